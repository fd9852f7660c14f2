//! A worker that misbehaves on demand, for tests of what holds when workers do.
//!
//! Jobs are [`Job`]s: how much to compute, what to do instead of answering, and whether to do it at each attempt or only
//! at the first. A well-behaved attempt is answered with [`digest`] of the job's bytes, so that an answer that went to
//! the wrong job is noticed.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::frame::{self, Kind, Tag};
use super::worker::{Desk, ServeError, Worker};
use crate::sync::lock;

/// What a worker does when it should answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Fault {
    None,
    Sigkill,
    Segfault,
    Abort,
    StackOverflow,
    Exit,
    Panic,
    Error,
    OutOfMemory,
    LoopForever,
    StopItself,
    Garbage,
    Truncated,
    Oversized,
    WrongChecksum,
    WrongJob,
    WrongGeneration,
    UnknownKind,
    UnexpectedKind,
    AnswerTwice,
    CloseChannel,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 21] = [
        Fault::None,
        Fault::Sigkill,
        Fault::Segfault,
        Fault::Abort,
        Fault::StackOverflow,
        Fault::Exit,
        Fault::Panic,
        Fault::Error,
        Fault::OutOfMemory,
        Fault::LoopForever,
        Fault::StopItself,
        Fault::Garbage,
        Fault::Truncated,
        Fault::Oversized,
        Fault::WrongChecksum,
        Fault::WrongJob,
        Fault::WrongGeneration,
        Fault::UnknownKind,
        Fault::UnexpectedKind,
        Fault::AnswerTwice,
        Fault::CloseChannel,
    ];
}

/// What goes wrong before a worker takes jobs. Given as the environment variable [`START_ENV`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum StartFault {
    Crash,
    Hang,
    NotReady,
    OtherVersion,
    OtherBuild,
    Silence,
}

impl StartFault {
    const ALL: [StartFault; 6] = [
        StartFault::Crash,
        StartFault::Hang,
        StartFault::NotReady,
        StartFault::OtherVersion,
        StartFault::OtherBuild,
        StartFault::Silence,
    ];
}

/// The name of a [`StartFault`], as `Debug` writes it.
pub const START_ENV: &str = "FERROYOLO_START_FAULT";

/// While this file exists workers start as if there were no [`START_ENV`].
pub const REPAIRED_ENV: &str = "FERROYOLO_START_REPAIRED";

/// A folder in which workers note faults that are to happen once.
pub const ONCE_ENV: &str = "FERROYOLO_FAULTS_ONCE";

/// A job for [`serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Tells this job from others.
    pub number: u64,
    /// What to do instead of answering.
    pub fault: Fault,
    /// Whether only the first attempt does that. Needs [`ONCE_ENV`].
    pub is_once: bool,
    /// How long to sleep first.
    pub delay_ms: u32,
    /// How long to compute first, in rounds of [`spin`].
    pub n_rounds: u32,
    /// Bytes that are there to be carried.
    pub ballast: usize,
}

impl Job {
    const HEAD: usize = 18;

    /// A job that does nothing but answer.
    pub fn new(number: u64) -> Job {
        Job { number, fault: Fault::None, is_once: false, delay_ms: 0, n_rounds: 0, ballast: 0 }
    }

    /// The job's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Job::HEAD + self.ballast);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend([self.fault as u8, u8::from(self.is_once)]);
        bytes.extend(self.delay_ms.to_le_bytes());
        bytes.extend(self.n_rounds.to_le_bytes());
        let mut state = self.number;
        bytes.extend((0..self.ballast).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        }));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Job, ServeError> {
        let wrong = || ServeError::Protocol("got a job that is none".to_owned());
        let (head, ballast) = bytes.split_at_checked(Job::HEAD).ok_or_else(wrong)?;
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(Job {
            number: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32,
            fault: Fault::ALL.into_iter().find(|fault| *fault as u8 == head[8]).ok_or_else(wrong)?,
            is_once: head[9] != 0,
            delay_ms: u32_at(10),
            n_rounds: u32_at(14),
            ballast: ballast.len(),
        })
    }
}

/// The right answer to a job: FNV-1a of its bytes.
pub fn digest(job: &[u8]) -> [u8; 8] {
    let hash = job.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.to_le_bytes()
}

/// Computes for some microseconds.
pub fn spin(n_rounds: u32) {
    for round in 0..n_rounds {
        let mut x = u64::from(round) + 1;
        for _ in 0..1000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
    }
}

/// Serves [`Job`]s to the pool that started this process.
///
/// # Errors
///
/// As [`worker::serve`](super::worker::serve).
pub fn serve() -> Result<(), ServeError> {
    let is_repaired = std::env::var_os(REPAIRED_ENV).is_some_and(|path| Path::new(&path).exists());
    let start = std::env::var(START_ENV).unwrap_or_default();
    let fault = StartFault::ALL.into_iter().find(|fault| !is_repaired && format!("{fault:?}") == start);
    let worker = match fault {
        None => Worker::new(),
        Some(StartFault::Crash) => std::process::exit(7),
        Some(StartFault::Hang) => sleep_forever(),
        Some(StartFault::NotReady) => {
            return Worker::new()
                .serve(|| Err::<fn(&[u8]) -> Result<Vec<u8>, String>, _>("no model is here".to_owned()));
        }
        Some(StartFault::OtherVersion) => {
            let mut worker = Worker::new();
            worker.version = frame::VERSION + 1;
            worker
        }
        Some(StartFault::OtherBuild) => Worker::new().identity("another build"),
        Some(StartFault::Silence) => Worker::new(),
    };
    let desk = worker.report()?;
    if fault == Some(StartFault::Silence) {
        sleep_forever();
    }
    desk.send(Kind::Ready, Tag::default(), &[])?;
    while let Some((tag, len, bytes)) = desk.next()? {
        let job = Job::decode(&bytes[..len])?;
        let reply = digest(&bytes[..len]);
        std::thread::sleep(Duration::from_millis(u64::from(job.delay_ms)));
        spin(job.n_rounds);
        desk.done(bytes);
        if job.fault != Fault::None && (!job.is_once || is_first(job.number)) {
            misbehave(&desk, tag, job.fault, &reply)?;
        } else {
            desk.send(Kind::Reply, tag, &reply)?;
        }
    }
    Ok(())
}

/// Whether this job has not been here before, in whichever worker.
fn is_first(number: u64) -> bool {
    let folder = std::env::var_os(ONCE_ENV).map(PathBuf::from).expect("a folder for faults that happen once");
    OpenOptions::new().write(true).create_new(true).open(folder.join(number.to_string())).is_ok()
}

fn misbehave(desk: &Desk, tag: Tag, fault: Fault, reply: &[u8]) -> Result<(), ServeError> {
    let raw = |bytes: &[u8]| lock(&desk.to_pool).write_all(bytes).map_err(ServeError::Channel);
    let mut message = frame::encode(frame::VERSION, Kind::Reply, tag, reply).to_vec();
    message.extend_from_slice(reply);
    match fault {
        Fault::None => unreachable!("that is no fault"),
        Fault::Sigkill => raise(Signal::KILL),
        Fault::Segfault => raise(Signal::SEGV),
        Fault::Abort => std::process::abort(),
        Fault::StackOverflow => {
            black_box(overflow(1));
        }
        Fault::Exit => std::process::exit(3),
        Fault::Panic => {
            desk.work_once(tag, || panic!("a handler that panics"))?;
            return Err(ServeError::Panicked(String::new()));
        }
        Fault::Error => desk.send(Kind::AppError, tag, b"a handler's error")?,
        Fault::OutOfMemory => {
            let mut blocks: Vec<Vec<u8>> = Vec::new();
            loop {
                blocks.push(black_box(Vec::with_capacity(64 << 20)));
            }
        }
        Fault::LoopForever => loop {
            spin(1000);
        },
        Fault::StopItself => {
            kill_process(getpid(), Signal::STOP).map_err(|error| ServeError::Channel(error.into()))?;
            // The signal may take effect in another thread first.
            sleep_forever();
        }
        Fault::Garbage => raw(&[0xA5; 400])?,
        Fault::Truncated => {
            raw(&message[..message.len() - 3])?;
            std::process::exit(0);
        }
        Fault::Oversized => {
            message[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
            raw(&message)?;
        }
        Fault::WrongChecksum => {
            let last = message.len() - 1;
            message[last] ^= 0x40;
            raw(&message)?;
        }
        Fault::WrongJob => desk.send(Kind::Reply, Tag { job: tag.job + 1, ..tag }, reply)?,
        Fault::WrongGeneration => {
            desk.send(Kind::Reply, Tag { generation: tag.generation + 1, ..tag }, reply)?;
        }
        Fault::UnknownKind => {
            message[8] = 77;
            raw(&message)?;
        }
        Fault::UnexpectedKind => desk.send(Kind::Request, tag, reply)?,
        Fault::AnswerTwice => {
            desk.send(Kind::Reply, tag, reply)?;
            desk.send(Kind::Reply, tag, reply)?;
        }
        Fault::CloseChannel => *lock(&desk.to_pool) = Box::new(std::io::sink()),
    }
    Ok(())
}

/// Sends a signal to this process until it takes effect.
fn raise(signal: Signal) -> ! {
    loop {
        // The runtime's handler takes the first segmentation fault for one of its guard pages and looks.
        let _result = kill_process(getpid(), signal);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let block = black_box([depth; 1000]);
    block[depth as usize % 1000] + overflow(depth + 1)
}

fn sleep_forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
