//! The worker's side: a program that runs jobs for the pool that started it.
//!
//! ```no_run
//! use ferroyolo_concurrency::process::worker;
//!
//! // In main, before anything else, if the command line says so:
//! worker::serve(|job: &[u8]| Ok(job.iter().rev().copied().collect()))?;
//! # Ok::<(), worker::ServeError>(())
//! ```
//!
//! On Unix the channel is the standard input, which is empty to everybody else, and what is printed goes nowhere. With
//! [pipes](super::WorkerCommand::pipes) the channel is standard input and output, and nothing else may print.
//!
//! A worker never outlives its pool: when the channel ends it leaves, at once if it is at a job; and on Linux the
//! system kills it when the pool's process is gone, also if it is stopped or hangs.

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::command::Limits;
use super::frame::{self, FrameError, Kind, Tag};
use super::launch::CHANNEL_ENV;
use super::settings::Settings;
use crate::sync::{Condvar, Deadline, Mutex, lock, wait};

/// Why a program could not work, or had to stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// No pool started this process.
    NotAWorker,
    /// The channel is not what it should be, or failed.
    Channel(io::Error),
    /// The pool broke the protocol.
    Protocol(String),
    /// The pool speaks another version of the protocol.
    Incompatible {
        /// The version that this process speaks.
        want: u32,
        /// The version that the pool speaks.
        got: u32,
    },
    /// A limit that the pool asked for could not be set.
    Limits(io::Error),
    /// The pool that started this process is gone.
    Orphaned,
    /// The handler could not be made; the pool knows why.
    Init(String),
    /// The handler panicked with this message; the pool knows. It is not to be used again.
    Panicked(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::NotAWorker => f.write_str("this process was not started by a pool"),
            ServeError::Channel(error) => write!(f, "the channel to the pool failed: {error}"),
            ServeError::Protocol(what) => write!(f, "the pool broke the protocol: {what}"),
            ServeError::Incompatible { want, got } => {
                write!(f, "the pool speaks version {got} of the protocol, expected {want}")
            }
            ServeError::Limits(error) => write!(f, "a limit could not be set: {error}"),
            ServeError::Orphaned => f.write_str("the pool is gone"),
            ServeError::Init(message) => write!(f, "the handler could not be made: {message}"),
            ServeError::Panicked(message) => write!(f, "the handler panicked: {message}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Channel(error) | ServeError::Limits(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether a pool started this process.
pub fn is_worker() -> bool {
    std::env::var_os(CHANNEL_ENV).is_some()
}

/// Whether this process has reported to its pool.
static HAS_REPORTED: AtomicBool = AtomicBool::new(false);

/// Whether a pool started this process and waits for it to report.
pub(super) fn is_idle() -> bool {
    is_worker() && !HAS_REPORTED.load(Ordering::Relaxed)
}

/// Runs jobs with `handler` until the pool says to leave. The process should end after that.
///
/// What the handler returns as an error becomes [`JobError::App`](crate::JobError::App). After a panic this returns
/// [`ServeError::Panicked`] and the pool starts another process.
///
/// # Errors
///
/// If no pool started this process, or the channel fails.
pub fn serve(handler: impl FnMut(&[u8]) -> Result<Vec<u8>, String>) -> Result<(), ServeError> {
    Worker::new().serve(|| Ok(handler))
}

/// A worker that tells who it is.
#[derive(Clone, Debug)]
pub struct Worker {
    identity: String,
    pub(super) version: u32,
}

impl Default for Worker {
    fn default() -> Worker {
        Worker::new()
    }
}

impl Worker {
    /// A worker of this crate's version.
    pub fn new() -> Worker {
        Worker { identity: env!("CARGO_PKG_VERSION").to_owned(), version: frame::VERSION }
    }

    /// Sets what build this is: [`WorkerCommand::identity`](super::WorkerCommand::identity) has to be the same.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Worker {
        self.identity = identity.into();
        self
    }

    /// As [`serve`], with a handler that is made after the pool's limits are set and signs of life are given.
    ///
    /// # Errors
    ///
    /// As [`serve`], and if `init` fails; the pool gets its message.
    pub fn serve<H>(self, init: impl FnOnce() -> Result<H, String>) -> Result<(), ServeError>
    where
        H: FnMut(&[u8]) -> Result<Vec<u8>, String>,
    {
        let desk = self.report()?;
        match init() {
            Ok(handler) => {
                desk.send(Kind::Ready, Tag::default(), &[])?;
                desk.work(handler)
            }
            Err(message) => {
                desk.send(Kind::NotReady, Tag::default(), message.as_bytes())?;
                Err(ServeError::Init(message))
            }
        }
    }

    /// Takes the channel and the pool's orders, and begins to give signs of life.
    pub(super) fn report(self) -> Result<Desk, ServeError> {
        HAS_REPORTED.store(true, Ordering::Relaxed);
        let (mut from_pool, mut to_pool) = channel()?;
        let mut payload = Vec::new();
        let orders = match frame::read(&mut from_pool, Orders::MAX_LEN, &mut payload) {
            Ok(Some(header)) if header.kind == Kind::Init => Orders::decode(&payload[..header.len])?,
            Ok(Some(header)) => return Err(ServeError::Protocol(format!("got {:?} first", header.kind))),
            Ok(None) => return Err(ServeError::Orphaned),
            Err(FrameError::Version(got)) => {
                // The pool learns from the header that this is another version.
                frame::write(&mut to_pool, Kind::Hello, Tag::default(), self.identity.as_bytes())
                    .map_err(ServeError::Channel)?;
                return Err(ServeError::Incompatible { want: self.version, got });
            }
            Err(error) => return Err(ServeError::Protocol(error.to_string())),
        };
        orders.obey()?;
        let hello = frame::encode(self.version, Kind::Hello, Tag::default(), self.identity.as_bytes());
        frame::write_all(&mut to_pool, &hello, self.identity.as_bytes()).map_err(ServeError::Channel)?;
        let desk = Desk {
            to_pool: Arc::new(Mutex::new(to_pool)),
            inbox: Arc::new(Inbox::default()),
            max_frame: orders.max_frame,
        };
        desk.start(from_pool, orders.heartbeat)?;
        Ok(desk)
    }
}

/// What the pool tells a worker at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    parent: u32,
    heartbeat: Duration,
    max_frame: usize,
    limits: Limits,
}

impl Orders {
    const LEN: usize = 7 * 8;

    /// Longer messages are no orders.
    const MAX_LEN: usize = 4096;

    pub(crate) fn of(settings: &Settings) -> Orders {
        Orders {
            parent: std::process::id(),
            heartbeat: settings.heartbeat,
            max_frame: settings.max_frame,
            limits: settings.limits,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let heartbeat_ms = u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX);
        [
            u64::from(self.parent),
            heartbeat_ms,
            self.max_frame as u64,
            limit(self.limits.address_space),
            limit(self.limits.cpu_s),
            limit(self.limits.open_files),
            u64::from(self.limits.core_files),
        ]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
    }

    fn decode(bytes: &[u8]) -> Result<Orders, ServeError> {
        let wrong =
            || ServeError::Protocol(format!("got orders of {} bytes, expected {}", bytes.len(), Orders::LEN));
        let (numbers, rest) = bytes.as_chunks::<8>();
        let &[parent, heartbeat_ms, max_frame, address_space, cpu_s, open_files, core_files] = numbers else {
            return Err(wrong());
        };
        if !rest.is_empty() {
            return Err(wrong());
        }
        let limit = |bytes| Some(u64::from_le_bytes(bytes)).filter(|limit| *limit != u64::MAX);
        Ok(Orders {
            parent: u32::try_from(u64::from_le_bytes(parent)).map_err(|_| wrong())?,
            heartbeat: Duration::from_millis(u64::from_le_bytes(heartbeat_ms)),
            max_frame: usize::try_from(u64::from_le_bytes(max_frame)).map_err(|_| wrong())?,
            limits: Limits {
                address_space: limit(address_space),
                cpu_s: limit(cpu_s),
                open_files: limit(open_files),
                core_files: u64::from_le_bytes(core_files) != 0,
            },
        })
    }

    #[cfg(unix)]
    fn obey(&self) -> Result<(), ServeError> {
        use rustix::process::{Resource, getppid, setrlimit};

        // The signal comes when the thread that started this process ends, which is when the pool does. What happened
        // before this line, the comparison finds.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| ServeError::Limits(error.into()))?;
        let parent = getppid().map_or(0, rustix::process::Pid::as_raw_pid);
        if i64::from(parent) != i64::from(self.parent) {
            return Err(ServeError::Orphaned);
        }
        let core = (!self.limits.core_files).then_some(0);
        for (resource, limit) in [
            (Resource::As, self.limits.address_space),
            (Resource::Cpu, self.limits.cpu_s),
            (Resource::Nofile, self.limits.open_files),
            (Resource::Core, core),
        ] {
            if limit.is_some() {
                setrlimit(resource, rustix::process::Rlimit { current: limit, maximum: limit })
                    .map_err(|error| ServeError::Limits(error.into()))?;
            }
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn obey(&self) -> Result<(), ServeError> {
        Ok(())
    }
}

type Channel = (Box<dyn Read + Send>, Box<dyn Write + Send>);

fn channel() -> Result<Channel, ServeError> {
    match std::env::var_os(CHANNEL_ENV) {
        None => Err(ServeError::NotAWorker),
        #[cfg(unix)]
        Some(kind) if kind == "socket" => socket().map_err(ServeError::Channel),
        Some(kind) if kind == "pipes" => Ok((Box::new(io::stdin()), Box::new(io::stdout()))),
        Some(kind) => Err(ServeError::Protocol(format!("there is no channel of the kind {kind:?}"))),
    }
}

/// Takes the socket from standard input, where /dev/null is put instead.
#[cfg(unix)]
fn socket() -> io::Result<Channel> {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::launch::HalfSocket;

    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails if it is no socket.
    socket.peer_addr()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok((Box::new(socket.try_clone()?), Box::new(HalfSocket(socket))))
}

/// Where a worker sits: its channel and the job that lies there.
pub(super) struct Desk {
    pub(super) to_pool: Arc<Mutex<Box<dyn Write + Send>>>,
    inbox: Arc<Inbox>,
    max_frame: usize,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct InboxState {
    job: Option<(Tag, usize, Vec<u8>)>,
    /// A buffer to use again.
    spare: Vec<u8>,
    is_at_work: bool,
    ended: Option<Result<(), String>>,
}

impl Desk {
    fn start(&self, mut from_pool: Box<dyn Read + Send>, heartbeat: Duration) -> Result<(), ServeError> {
        let (inbox, max_frame) = (Arc::clone(&self.inbox), self.max_frame);
        let read = move || {
            let mut payload = Vec::new();
            loop {
                let ended = match frame::read(&mut from_pool, max_frame, &mut payload) {
                    Ok(Some(header)) if header.kind == Kind::Request => {
                        match inbox.put(header.tag, header.len, payload) {
                            Some(spare) => {
                                payload = spare;
                                continue;
                            }
                            None => Err("got a job before the last one was done".to_owned()),
                        }
                    }
                    Ok(Some(header)) => Err(format!("got an unexpected message: {:?}", header.kind)),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error.to_string()),
                };
                return inbox.end(ended);
            }
        };
        let to_pool = Arc::clone(&self.to_pool);
        // A pool that is gone is the reader's to notice.
        let beat = move || {
            while frame::write(&mut *lock(&to_pool), Kind::Heartbeat, Tag::default(), &[]).is_ok() {
                thread::sleep(heartbeat);
            }
        };
        thread::Builder::new().name("pool-reader".to_owned()).spawn(read).map_err(ServeError::Channel)?;
        thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).map_err(ServeError::Channel)?;
        Ok(())
    }

    pub(super) fn send(&self, kind: Kind, tag: Tag, payload: &[u8]) -> Result<(), ServeError> {
        frame::write(&mut *lock(&self.to_pool), kind, tag, payload).map_err(ServeError::Channel)
    }

    /// Takes the next job; `None` when the pool says to leave.
    pub(super) fn next(&self) -> Result<Option<(Tag, usize, Vec<u8>)>, ServeError> {
        self.inbox.take().map_err(ServeError::Protocol)
    }

    fn work(&self, mut handler: impl FnMut(&[u8]) -> Result<Vec<u8>, String>) -> Result<(), ServeError> {
        while let Some((tag, len, buffer)) = self.next()? {
            let result = catch_unwind(AssertUnwindSafe(|| handler(&buffer[..len])));
            self.done(buffer);
            self.answer(tag, result)?;
        }
        Ok(())
    }

    /// Says that the job is done, before it is answered: the next one may come as soon as it is.
    pub(super) fn done(&self, buffer: Vec<u8>) {
        self.inbox.give_back(buffer);
    }

    fn answer(&self, tag: Tag, result: thread::Result<Result<Vec<u8>, String>>) -> Result<(), ServeError> {
        match result {
            Ok(Ok(reply)) if reply.len() > self.max_frame => {
                let (got, max) = (reply.len(), self.max_frame);
                let message = format!("the result has {got} bytes, at most {max} are allowed");
                self.send(Kind::AppError, tag, message.as_bytes())
            }
            Ok(Ok(reply)) => self.send(Kind::Reply, tag, &reply),
            Ok(Err(message)) => self.send(Kind::AppError, tag, self.cut(&message)),
            Err(panic) => {
                let message = message_of(panic.as_ref());
                self.send(Kind::Panicked, tag, self.cut(&message))?;
                Err(ServeError::Panicked(message))
            }
        }
    }

    /// Runs a handler for one job.
    #[cfg(feature = "fault-injection")]
    pub(super) fn work_once(
        &self,
        tag: Tag,
        handler: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<(), ServeError> {
        self.answer(tag, catch_unwind(AssertUnwindSafe(handler)))
    }

    fn cut<'a>(&self, message: &'a str) -> &'a [u8] {
        &message.as_bytes()[..message.len().min(self.max_frame)]
    }
}

impl Inbox {
    /// Puts a job there and returns a buffer for the next; `None` if the last one is not done.
    fn put(&self, tag: Tag, len: usize, payload: Vec<u8>) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        if state.job.is_some() || state.is_at_work {
            return None;
        }
        state.job = Some((tag, len, payload));
        self.changed.notify_all();
        Some(std::mem::take(&mut state.spare))
    }

    fn take(&self) -> Result<Option<(Tag, usize, Vec<u8>)>, String> {
        let mut state = lock(&self.state);
        state.is_at_work = false;
        loop {
            if let Some(job) = state.job.take() {
                state.is_at_work = true;
                return Ok(Some(job));
            }
            if let Some(ended) = &state.ended {
                return ended.clone().map(|()| None);
            }
            state = wait(&self.changed, state, &Deadline::Never);
        }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut state = lock(&self.state);
        state.is_at_work = false;
        state.spare = buffer;
    }

    /// The channel has ended: whoever waits for a job leaves, and whoever is at one is not waited for.
    fn end(&self, how: Result<(), String>) {
        let mut state = lock(&self.state);
        let is_wanted = !state.is_at_work && state.job.is_none();
        if let Err(what) = &how {
            eprintln!("the pool broke the protocol: {what}");
        }
        state.ended = Some(how);
        self.changed.notify_all();
        drop(state);
        if !is_wanted {
            leave_at_once();
        }
    }
}

/// Ends the process whatever it is doing, without running anything of it.
fn leave_at_once() -> ! {
    #[cfg(unix)]
    {
        let _result = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    std::process::abort()
}

pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for limits in [
            Limits::default(),
            Limits { address_space: Some(1 << 30), cpu_s: Some(7), open_files: Some(64), core_files: true },
        ] {
            let orders =
                Orders { parent: 17, heartbeat: Duration::from_millis(300), max_frame: 1 << 20, limits };
            assert_eq!(Orders::decode(&orders.encode()).unwrap(), orders);
        }
        for len in [0, 8, Orders::LEN - 1, Orders::LEN + 8] {
            assert!(matches!(Orders::decode(&vec![0; len]), Err(ServeError::Protocol(_))), "{len}");
        }
    }

    #[test]
    fn a_process_that_no_pool_started_is_no_worker() {
        assert!(!is_worker());
        let error = serve(|_| Ok(Vec::new())).unwrap_err();
        assert!(matches!(error, ServeError::NotAWorker), "{error}");
    }
}
