//! What workers write to their standard error: passed on line by line, and the end of it kept.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::sync::{Condvar, Deadline, Mutex, lock, wait};

/// What becomes of a worker's standard error. Its end is kept for error messages in each case but `Inherit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stderr {
    /// Lines are written to this process' standard error, with the worker's slot before them.
    #[default]
    Forward,
    /// Nothing of it is shown.
    Discard,
    /// The worker writes to this process' standard error itself. That it ran out of memory is told from nothing but what it
    /// writes there, and so shows as a crash.
    Inherit,
}

/// Bytes of the end that are kept.
const KEPT: usize = 8 << 10;

/// A line that is longer is passed on in parts.
const MAX_LINE: usize = 4 << 10;

/// The end of what a worker wrote.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    state: Mutex<TailState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct TailState {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.bytes.extend_from_slice(bytes);
        if state.bytes.len() > 2 * KEPT {
            let cut = state.bytes.len() - KEPT;
            state.bytes.drain(..cut);
        }
    }

    fn end(&self) {
        lock(&self.state).has_ended = true;
        self.ended.notify_all();
    }

    /// The last few lines, after waiting until everything is there, but not for long: a process that the worker left
    /// behind may hold its standard error open.
    pub(crate) fn text(&self) -> String {
        let deadline = Deadline::after(Duration::from_millis(200));
        let mut state = lock(&self.state);
        while !state.has_ended && !deadline.has_passed() {
            state = wait(&self.ended, state, &deadline);
        }
        let from = state.bytes.len().saturating_sub(KEPT);
        String::from_utf8_lossy(&state.bytes[from..]).trim_end().to_owned()
    }
}

/// Reads `from` to its end in a thread of its own.
pub(crate) fn follow(
    mut from: Box<dyn Read + Send>,
    slot: usize,
    forward: bool,
) -> io::Result<(Arc<Tail>, thread::JoinHandle<()>)> {
    let tail = Arc::new(Tail::default());
    let to = Arc::clone(&tail);
    let follower = thread::Builder::new().name(format!("worker-{slot}-stderr")).spawn(move || {
        let mut chunk = [0; 4096];
        let mut lines = Lines { slot, line: Vec::new() };
        loop {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => {
                    to.push(&chunk[..n]);
                    if forward {
                        lines.push(&chunk[..n], &mut io::stderr());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if forward {
            lines.flush(&mut io::stderr());
        }
        // The descriptor is gone by the time that the end is known.
        drop(from);
        to.end();
    })?;
    Ok((tail, follower))
}

/// Splits what comes in chunks into lines.
struct Lines {
    slot: usize,
    line: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], to: &mut impl Write) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.flush(to);
            }
        }
    }

    fn flush(&mut self, to: &mut impl Write) {
        if self.line.is_empty() {
            return;
        }
        if !self.line.ends_with(b"\n") {
            self.line.push(b'\n');
        }
        let line = String::from_utf8_lossy(&self.line);
        // There is nobody to tell that standard error can't be written to.
        let _result = to.write_all(format!("[worker {}] {line}", self.slot).as_bytes());
        self.line.clear();
    }
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_named() {
        let mut lines = Lines { slot: 3, line: Vec::new() };
        let mut out = Vec::new();
        for chunk in ["one\ntw", "o\n", "\n", "rest"] {
            lines.push(chunk.as_bytes(), &mut out);
        }
        lines.flush(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "[worker 3] one\n[worker 3] two\n[worker 3] \n[worker 3] rest\n");
    }

    #[test]
    fn a_line_without_end_is_passed_on_in_parts() {
        let mut lines = Lines { slot: 0, line: Vec::new() };
        let mut out = Vec::new();
        for _ in 0..10 {
            lines.push(&[b'x'; 1000], &mut out);
        }
        assert!(lines.line.len() < MAX_LINE);
        assert!(out.len() >= 5000, "{}", out.len());
    }

    #[test]
    fn only_the_end_is_kept() {
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let (tail, follower) = follow(Box::new(io::Cursor::new(text.into_bytes())), 0, false).unwrap();
        follower.join().unwrap();
        let end = tail.text();
        assert!(end.ends_with("line 99999"), "{end}");
        assert!(end.len() <= KEPT, "{}", end.len());
        assert!(lock(&tail.state).bytes.len() <= 2 * KEPT);
    }
}
