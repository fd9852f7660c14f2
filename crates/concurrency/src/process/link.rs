//! The parent's side of one worker: its process, its channel, and the thread that keeps it.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use super::frame::{self, FrameError, Header, Kind, Tag};
use super::launch::{Exit, Launch, Process};
use super::roster::{Answer, Death, Reason, Roster, Verdict};
use super::settings::Settings;
use super::stderr::{self, Tail};
use super::worker::Orders;
use crate::sync::{Mutex, lock};

/// A worker as drivers and the supervisor see it.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` when it is being reaped, or has been.
    process: Mutex<Option<Box<dyn Process>>>,
    to_worker: Mutex<Option<Sender>>,
    pid: u32,
}

struct Sender(Box<dyn Write + Send>);

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

/// What the keeper has of a worker.
pub(crate) struct Keeper {
    slot: usize,
    incarnation: u64,
    link: Arc<Link>,
    from_worker: Box<dyn Read + Send>,
    stderr: Option<(Arc<Tail>, thread::JoinHandle<()>)>,
    settings: Arc<Settings>,
}

impl Link {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the worker, unless it has been reaped.
    pub(crate) fn kill(&self) {
        if let Some(process) = &mut *lock(&self.process) {
            process.kill();
        }
    }

    /// Kills the worker, if it is still alive, and waits for its end.
    fn reap(&self) -> Exit {
        self.kill();
        // It dies without being waited for; nobody who would kill it again waits here meanwhile.
        let process = lock(&self.process).take();
        process.map_or_else(Exit::default, |mut process| process.wait())
    }

    /// Sends a job. Blocks while the worker takes nothing; ends with an error when it is killed.
    pub(crate) fn send(&self, tag: Tag, job: &[u8]) -> io::Result<()> {
        match &mut *lock(&self.to_worker) {
            Some(to) => frame::write(&mut to.0, Kind::Request, tag, job),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Tells the worker, which has no job, to leave.
    pub(crate) fn dismiss(&self) {
        let to_worker = lock(&self.to_worker).take();
        drop(to_worker);
    }
}

/// Starts a worker. The keeper has to run, whatever happens next.
pub(crate) fn start(
    launch: &dyn Launch,
    settings: &Arc<Settings>,
    slot: usize,
    incarnation: u64,
) -> io::Result<(Arc<Link>, Keeper)> {
    let mut launched = launch.launch()?;
    let follower = launched.stderr.take().map(|from| stderr::follow(from, slot, settings.forward_stderr));
    let mut process = launched.process;
    let stderr = match follower.transpose() {
        Ok(stderr) => stderr,
        Err(error) => {
            process.kill();
            process.wait();
            return Err(error);
        }
    };
    // It fails only if the worker is dead already, which the keeper finds out.
    let orders = Orders::of(settings).encode();
    let _result = frame::write(&mut launched.to_worker, Kind::Init, Tag::default(), &orders);
    let pid = process.id();
    let link = Arc::new(Link {
        process: Mutex::new(Some(process)),
        to_worker: Mutex::new(Some(Sender(launched.to_worker))),
        pid,
    });
    let keeper = Keeper {
        slot,
        incarnation,
        link: Arc::clone(&link),
        from_worker: launched.from_worker,
        stderr,
        settings: Arc::clone(settings),
    };
    Ok((link, keeper))
}

impl Keeper {
    /// Reads what the worker sends until it is dead, and reaps it.
    pub(crate) fn keep(mut self, roster: &Roster<Arc<Link>>) {
        let mut payload = Vec::new();
        let mut has_greeted = false;
        let mut is_blameless = false;
        let mut is_cut = false;
        let broken = loop {
            let header = match frame::read(&mut self.from_worker, self.settings.max_frame, &mut payload) {
                Ok(Some(header)) => header,
                Ok(None) => break None,
                Err(FrameError::Version(got)) => break Some(Reason::Incompatible(got)),
                // A worker that is killed while it writes is cut off; how it ended tells.
                Err(FrameError::Truncated) => {
                    is_cut = true;
                    break None;
                }
                Err(FrameError::Io(_)) => break None,
                Err(error) => break Some(Reason::Protocol(error.to_string())),
            };
            if !has_greeted {
                if let Err(reason) = self.greet(header, &payload[..header.len]) {
                    break Some(reason);
                }
                has_greeted = true;
                roster.heard(self.slot, self.incarnation);
                continue;
            }
            let body = &payload[..header.len];
            let answer = match header.kind {
                Kind::Heartbeat => {
                    roster.heard(self.slot, self.incarnation);
                    continue;
                }
                Kind::Ready if roster.ready(self.slot, self.incarnation) => continue,
                Kind::NotReady => break Some(Reason::NotReady(text(body))),
                Kind::Reply => {
                    let mut reply = std::mem::take(&mut payload);
                    reply.truncate(header.len);
                    Answer::Done(reply)
                }
                Kind::AppError => Answer::App(text(body)),
                Kind::Panicked => Answer::Panicked(text(body)),
                Kind::Init | Kind::Hello | Kind::Ready | Kind::Request => {
                    break Some(Reason::Protocol(format!("got an unexpected message: {:?}", header.kind)));
                }
            };
            match roster.answer(self.slot, self.incarnation, header.tag, answer) {
                Verdict::Accepted | Verdict::Dropped => {}
                Verdict::Unasked { is_repeated } => {
                    is_blameless = is_repeated;
                    let Tag { job, generation } = header.tag;
                    let what =
                        if is_repeated { "a second answer" } else { "an answer that was not asked for" };
                    break Some(Reason::Protocol(format!("got {what}: job {job}, generation {generation}")));
                }
            }
        };
        if let Some(reason) = &broken {
            roster.doom(self.slot, self.incarnation, reason.clone());
        }
        let exit = self.link.reap();
        self.link.dismiss();
        drop(self.from_worker);
        let stderr = match self.stderr {
            Some((tail, follower)) => {
                let text = tail.text();
                drop(follower);
                text
            }
            None => String::new(),
        };
        let reason = match broken {
            Some(reason) => reason,
            None if is_cut && exit.signal.is_none() => Reason::Protocol(FrameError::Truncated.to_string()),
            None => reason_of(exit, &stderr),
        };
        let death = Death { reason, signal: exit.signal, code: exit.code, stderr, is_blameless };
        roster.died(self.slot, self.incarnation, death);
    }

    fn greet(&self, header: Header, identity: &[u8]) -> Result<(), Reason> {
        if header.kind != Kind::Hello {
            return Err(Reason::Protocol(format!("got {:?} first, expected Hello", header.kind)));
        }
        let (got, expected) = (text(identity), &self.settings.identity);
        if got != *expected {
            return Err(Reason::Protocol(format!(
                "the worker is another build: got {got:?}, expected {expected:?}"
            )));
        }
        Ok(())
    }
}

/// Reaps a worker whose keeper could not be started.
pub(crate) fn bury(keeper: Keeper, roster: &Roster<Arc<Link>>, why: &io::Error) {
    roster.doom(keeper.slot, keeper.incarnation, Reason::NotStarted(why.to_string()));
    keeper.link.kill();
    // The channel of a dead worker ends: nothing here waits for anything but its death.
    keeper.keep(roster);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a worker died of that nobody killed.
fn reason_of(exit: Exit, stderr: &str) -> Reason {
    // What Rust's allocation error handler prints before it aborts; a backtrace may follow.
    let is_oom = |line: &str| line.contains("memory allocation of ") && line.contains(" bytes failed");
    const SIGABRT: i32 = 6;
    if exit.signal == Some(SIGABRT) && stderr.lines().any(is_oom) {
        return Reason::OutOfMemory;
    }
    Reason::Crashed
}
