//! The programs `ffmpeg` and `ffprobe`: whether they are there, what they can do, and how they are run.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::children::{Child, Children, last_lines};
use crate::error::{Error, Result};

/// Bytes of what a program prints, at most.
const MAX_OUTPUT: u64 = 16 << 20;

/// How long a program may take that has to wait for nothing in the network, at least.
const LOCAL_PATIENCE: Duration = Duration::from_secs(60);

/// A program that is looked for in `PATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Decodes and encodes.
    Ffmpeg,
    /// Tells what a file holds.
    Ffprobe,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Program::Ffmpeg => "ffmpeg",
            Program::Ffprobe => "ffprobe",
        })
    }
}

/// What a program left that has ended.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub printed: String,
    /// The end of what it wrote to its standard error.
    pub stderr: String,
}

/// Runs the programs, and remembers what they can do.
#[derive(Debug)]
pub struct Tools {
    children: Children,
    patience: Duration,
    version: OnceLock<Option<(u32, u32)>>,
    has_x264: OnceLock<bool>,
}

impl Tools {
    /// Runs programs as `children`; a source in the network may be silent for `patience`.
    pub fn new(children: Children, patience: Duration) -> Self {
        Self { children, patience, version: OnceLock::new(), has_x264: OnceLock::new() }
    }

    /// How long a source in the network may be silent.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Starts `program`, of which `set_up` says the rest; it gets no standard input but a piped one.
    pub fn start(&self, program: Program, set_up: impl FnOnce(&mut Command)) -> Result<Child> {
        let mut command = Command::new(program.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        set_up(&mut command);
        self.children.start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::failed(format!(
                "videos, streams and cameras need the program {program}, which is not in PATH; install ffmpeg (Debian and \
                 Ubuntu: apt install ffmpeg, macOS: brew install ffmpeg, Windows: winget install ffmpeg)"
            )),
            _ => Error::named(&format!("can't start {program}"), error),
        })
    }

    /// How long a program may take that has to wait for nothing in the network.
    pub fn local_patience(&self) -> Duration {
        self.patience.max(LOCAL_PATIENCE)
    }

    /// Runs `program` to its end and gives what it writes to its standard output.
    ///
    /// Errors if it takes longer than `patience`, and, with what it says, if it fails.
    pub fn run<A: AsRef<OsStr>>(&self, program: Program, args: &[A], patience: Duration) -> Result<String> {
        let Ended { status, printed, stderr } = self.run_anyway(program, args, patience)?;
        if status.success() {
            return Ok(printed);
        }
        let complaints = last_lines(&stderr);
        let why = if complaints.is_empty() { status.to_string() } else { complaints };
        Err(Error::failed(format!("{program}: {why}")))
    }

    /// Runs `program` to its end, be that a failure.
    ///
    /// Errors if it takes longer than `patience`.
    pub fn run_anyway<A: AsRef<OsStr>>(
        &self,
        program: Program,
        args: &[A],
        patience: Duration,
    ) -> Result<Ended> {
        let mut child = self.start(program, |command| {
            command.args(args).stdout(Stdio::piped());
        })?;
        let stdout = child.stdout.take();
        let read = move || {
            let mut bytes = Vec::new();
            // What could be read is what there is.
            let _ = stdout.map(|stdout| stdout.take(MAX_OUTPUT).read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let reader = thread::Builder::new().name("ffmpeg-stdout".into()).spawn(read);
        let reader = reader.map_err(|error| Error::named("can't start a thread", error))?;
        let status = child.wait(patience).map_err(|error| Error::named(&program.to_string(), error))?;
        let printed = reader.join().unwrap_or_default();
        let stderr = child.stderr_text();
        let status = status
            .ok_or_else(|| Error::failed(format!("{program}: no answer for {} s", patience.as_secs_f64())))?;
        Ok(Ended { status, printed, stderr })
    }

    /// The arguments that keep ffmpeg from adding frames or leaving some out.
    pub fn every_frame_once(&self) -> Result<[&'static str; 2]> {
        let version = match self.version.get() {
            Some(version) => *version,
            None => {
                let printed = self.run(Program::Ffmpeg, &["-version"], self.local_patience())?;
                *self.version.get_or_init(|| parse_version(&printed))
            }
        };
        // Versions without a number are built from newer sources.
        let is_old = version.is_some_and(|version| version < (5, 1));
        Ok(if is_old { ["-vsync", "passthrough"] } else { ["-fps_mode", "passthrough"] })
    }

    /// Whether ffmpeg has the encoder libx264.
    pub fn has_x264(&self) -> Result<bool> {
        if let Some(&has_x264) = self.has_x264.get() {
            return Ok(has_x264);
        }
        let asked = ["-hide_banner", "-encoders"];
        let printed = self.run(Program::Ffmpeg, &asked, self.local_patience())?;
        Ok(*self.has_x264.get_or_init(|| printed.split_whitespace().any(|word| word == "libx264")))
    }
}

/// The major and minor version, of a release.
fn parse_version(printed: &str) -> Option<(u32, u32)> {
    let version = printed.strip_prefix("ffmpeg version ")?;
    let version = version.strip_prefix('n').unwrap_or(version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (printed, version) in [
            ("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000", Some((5, 1))),
            ("ffmpeg version n4.4.2 Copyright", Some((4, 4))),
            ("ffmpeg version 8.0", Some((8, 0))),
            ("ffmpeg version 7-git", Some((7, 0))),
            ("ffmpeg version N-118000-gabcdef", None),
            ("ffmpeg version 2025-01-01-git", Some((2025, 1))),
            ("other", None),
        ] {
            assert_eq!(parse_version(printed), version, "{printed}");
        }
    }
}
