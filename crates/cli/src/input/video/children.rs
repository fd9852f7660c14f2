//! Child processes that never outlive this one's interest in them.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{self, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::fetch::url;

/// How often a wait for the end of a child looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Bytes of a child's standard error that are kept.
const KEPT: usize = 4 << 10;

/// Lines of a child's standard error that are told.
const N_LINES: usize = 4;

/// The children that run; [`Children::close`] ends them, from whatever thread.
#[derive(Clone, Debug, Default)]
pub struct Children(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    state: Mutex<State>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    running: Vec<(u64, process::Child)>,
}

impl Children {
    /// Starts `command`; its standard error has to be piped, and is read to its end whatever happens.
    ///
    /// Errors after [`Children::close`].
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(io::Error::other("this program is ending"));
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        state.running.push((id, child));
        drop(state);
        // Whatever fails from here on ends the child.
        let urls = command.get_args().filter_map(OsStr::to_str).filter(|arg| url::kind(arg).is_some());
        let urls = urls.map(str::to_owned).collect();
        let mut child = Child { registry: Arc::clone(&self.0), id, stdin, stdout, stderr: None, urls };
        if let Some(stderr) = stderr {
            let follow = move || read_end(stderr);
            child.stderr = Some(thread::Builder::new().name("ffmpeg-stderr".into()).spawn(follow)?);
        }
        Ok(child)
    }

    /// Kills all children, waits for their end and lets no more start.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        for (_, child) in &mut state.running {
            end(child);
        }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that runs, or has ended and was not asked about. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    registry: Arc<Registry>,
    id: u64,
    /// Its standard input, if that is piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is piped.
    pub stdout: Option<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    /// Its arguments that may hold a password.
    urls: Vec<String>,
}

impl Child {
    /// A way to kill it from another thread.
    pub fn killer(&self) -> impl Fn() + Send + 'static {
        let (registry, id) = (Arc::clone(&self.registry), self.id);
        move || {
            if let Some((_, child)) = registry.lock().running.iter_mut().find(|(other, _)| *other == id) {
                end(child);
            }
        }
    }

    /// Waits for its end, at most for `patience`; then it is killed, and there is no status.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        let deadline = Instant::now() + patience;
        loop {
            {
                let mut state = self.registry.lock();
                let Some((_, child)) = state.running.iter_mut().find(|(id, _)| *id == self.id) else {
                    return Ok(None);
                };
                if let Some(status) = child.try_wait()? {
                    return Ok(Some(status));
                }
                if Instant::now() >= deadline {
                    end(child);
                    return Ok(None);
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The end of what it wrote to its standard error, after its end and without passwords; once only.
    pub fn stderr_text(&mut self) -> String {
        let bytes = self.stderr.take().and_then(|follower| follower.join().ok()).unwrap_or_default();
        url::hide_passwords(&String::from_utf8_lossy(&bytes), &self.urls)
    }

    /// The last lines of it, in one.
    pub fn complaints(&mut self) -> String {
        last_lines(&self.stderr_text())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if let Some(at) = state.running.iter().position(|(id, _)| *id == self.id) {
            let (_, mut child) = state.running.swap_remove(at);
            end(&mut child);
        }
    }
}

/// Kills a child and waits for it; one that has ended already is only waited for.
fn end(child: &mut process::Child) {
    // It may be gone.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads to the end and gives the last part, which begins with a whole line if it is not all.
fn read_end(mut from: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut is_cut = false;
    let mut chunk = [0; 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n_bytes) => {
                kept.extend_from_slice(&chunk[..n_bytes]);
                if kept.len() > 2 * KEPT {
                    kept.drain(..kept.len() - KEPT);
                    is_cut = true;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if is_cut {
        // The rest of a URL that was cut could not be told from other text any more.
        let n_bytes = kept.iter().position(|&byte| byte == b'\n').map_or(kept.len(), |end| end + 1);
        kept.drain(..n_bytes);
    }
    kept
}

/// The last few lines of `text`, one after the other, without ffmpeg's marks of places in memory.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(without_address).filter(|line| !line.is_empty()).collect();
    let mut told: Vec<&str> = Vec::new();
    for line in &lines[lines.len().saturating_sub(N_LINES)..] {
        if told.last().is_none_or(|last| last != line) {
            told.push(line);
        }
    }
    told.join("; ")
}

/// `[mov,mp4 @ 0x5581] text` without the mark before the text.
fn without_address(line: &str) -> &str {
    let text = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    text.filter(|(mark, _)| mark.contains(" @ 0x")).map_or(line, |(_, text)| text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_complaints_is_told() {
        let text = "first\n[mov,mp4 @ 0x5] a\n\n[h264 @ 0x6] b\n[h264 @ 0x7] b\n[note] c\n";
        assert_eq!(last_lines(text), "a; b; [note] c");
        assert_eq!(last_lines(""), "");
        let long = "x\n".repeat(100_000);
        assert!(read_end(long.as_bytes()).len() <= 2 * KEPT);
        let cut = format!("rtsp://me:{}@cam\nlast", "secret".repeat(3000));
        assert_eq!(read_end(cut.as_bytes()), b"last");
    }

    #[cfg(unix)]
    mod with_processes {
        use std::process::Stdio;

        use super::*;

        fn shell(script: &str) -> Command {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command
        }

        #[test]
        fn close_ends_children_and_lets_none_start() {
            let children = Children::default();
            let mut child = children.start(&mut shell("exec sleep 1000")).unwrap();
            children.close();
            let status = child.wait(Duration::from_secs(1000)).unwrap().unwrap();
            assert!(!status.success());
            assert!(children.start(&mut shell("true")).is_err());
        }

        #[test]
        fn a_child_that_does_not_end_is_killed() {
            let mut child = Children::default().start(&mut shell("echo no >&2; exec sleep 1000")).unwrap();
            assert_eq!(child.wait(Duration::from_millis(20)).unwrap(), None);
            // Its standard error has ended with it.
            let told = child.complaints();
            assert!(told.is_empty() || told == "no", "{told}");
        }

        #[test]
        fn passwords_of_arguments_are_not_told() {
            let mut command = shell("echo $0: refused >&2; echo for me:secret@ >&2");
            command.arg("rtsp://me:secret@cam/1");
            let mut child = Children::default().start(&mut command).unwrap();
            assert!(child.wait(Duration::from_secs(1000)).unwrap().unwrap().success());
            assert_eq!(child.complaints(), "rtsp://me:***@cam/1: refused; for me:***@");
        }

        #[test]
        fn much_on_standard_error_blocks_nothing() {
            let script = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
            let mut child = Children::default().start(&mut shell(script)).unwrap();
            let status = child.wait(Duration::from_secs(1000)).unwrap().unwrap();
            assert_eq!(status.code(), Some(3));
            assert!(child.complaints().ends_with("line 19999"));
        }
    }
}
