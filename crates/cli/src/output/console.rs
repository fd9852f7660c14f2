//! Messages on stderr, and the progress bar.
//!
//! Nothing here fails: a program whose stderr is closed still does its work. Passwords of URLs are hidden once more, for the
//! case that one stands where no URL was expected and nobody knew it for one.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::error::Error;
use crate::fetch::url::hide_passwords;

/// Tells an error and its causes.
pub fn error(error: &Error) {
    tell("\x1b[1;31m", "error: ", &error.chain());
}

/// Tells something that the user may want to change.
pub fn warning(text: &str) {
    tell("\x1b[1;33m", "warning: ", text);
}

/// Tells what has been done.
pub fn notice(text: &str) {
    tell("", "", text);
}

/// Tells why the command line makes no sense, in the words of its parser.
pub fn usage(text: &str) {
    let _ = io::stderr().lock().write_all(hide_passwords(text, &[]).as_bytes());
}

fn tell(colour: &str, label: &str, text: &str) {
    let stderr = io::stderr();
    let coloured = !colour.is_empty()
        && stderr.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (on, off) = if coloured { (colour, "\x1b[0m") } else { ("", "") };
    // One write keeps lines of different threads apart.
    let line = format!("{on}{label}{off}{}\n", printable(hide_passwords(text, &[])));
    let _ = stderr.lock().write_all(line.as_bytes());
}

/// `text` with control characters escaped, so that a file's name can't steer the terminal.
pub fn printable(text: impl Display) -> String {
    let mut shown = String::new();
    for c in text.to_string().chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The progress bar of a command that works through many pictures, if there is one.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar of `total` steps where `wanted` and stderr is a terminal; otherwise nothing is shown.
    pub fn new(total: Option<usize>, wanted: bool) -> Self {
        let shown = wanted && io::stderr().is_terminal() && total.is_none_or(|n| n > 1);
        Self(shown.then(|| {
            let bar = match total {
                Some(n) => ProgressBar::with_draw_target(Some(n as u64), ProgressDrawTarget::stderr()),
                None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            };
            let template = if total.is_some() {
                "{bar:32} {pos}/{len}  {rate}  {eta} left"
            } else {
                "{spinner} {pos}  {rate}"
            };
            // An unreadable template would be our own slip; the bar's default look serves then.
            if let Ok(style) = ProgressStyle::with_template(template) {
                let rate = |state: &ProgressState, w: &mut dyn fmt::Write| {
                    // What can't be shown is left out.
                    let _ = write!(w, "{:.1} images/s", state.per_sec());
                };
                bar.set_style(style.with_key("rate", rate));
            }
            bar
        }))
    }

    /// One picture is done.
    pub fn step(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    /// Runs `write` while the bar is out of the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.0 {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The progress bar of a file that is fetched, if there is one.
pub struct Download(Option<ProgressBar>);

impl Download {
    /// A bar up to `n_bytes`, if that is known, where `wanted` and stderr is a terminal.
    pub fn new(n_bytes: Option<u64>, wanted: bool) -> Self {
        let shown = wanted && io::stderr().is_terminal();
        Self(shown.then(|| {
            let bar = ProgressBar::with_draw_target(n_bytes, ProgressDrawTarget::stderr());
            let template = if n_bytes.is_some() {
                "{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"
            } else {
                "{spinner} {bytes}  {bytes_per_sec}"
            };
            // As above.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        }))
    }

    /// So many bytes more have arrived.
    pub fn advance(&self, n_bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(n_bytes as u64);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(printable("a\x1b[2J\nb é"), "a\\u{1b}[2J\\nb é");
    }
}
