//! Tests of pools whose workers are threads, so that starts can be made to fail and channels to stutter.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::command::WorkerCommand;
use super::frame::tests::Choppy;
use super::frame::{self, Kind, Tag};
use super::launch::{Exit, HalfSocket, Launch, Launched, Process};
use super::pool::{Builder, ProcessPool, StartError};
use super::supervisor::RestartPolicy;
use crate::error::JobError;
use crate::sync::{Mutex, lock};

/// What a worker's thread does with a job.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Answers with the job reversed.
    Reverse,
    /// Answers, but only when it has been killed.
    ReverseLate,
    /// Ends at its first job.
    Die,
}

/// Starts threads instead of processes.
#[derive(Debug)]
struct Threads {
    habit: Habit,
    is_choppy: bool,
    /// What the next starts fail with.
    failures: Mutex<VecDeque<Errno>>,
}

#[derive(Debug)]
struct Thread {
    kill: mpsc::Sender<()>,
    stream: Option<UnixStream>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Process for Thread {
    fn kill(&mut self) {
        let _result = self.kill.send(());
        if let Some(stream) = self.stream.take() {
            let _result = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn wait(&mut self) -> Exit {
        self.thread.take().expect("a process is waited for once").join().expect("no panic");
        Exit { signal: Some(9), code: None }
    }

    fn id(&self) -> u32 {
        0
    }
}

impl Launch for Threads {
    fn launch(&self) -> io::Result<Launched> {
        if let Some(errno) = lock(&self.failures).pop_front() {
            return Err(errno.into());
        }
        let (ours, theirs) = UnixStream::pair()?;
        let (kill, killed) = mpsc::channel();
        // A late answer goes through the channel after the kill.
        let stream = (!matches!(self.habit, Habit::ReverseLate)).then(|| theirs.try_clone()).transpose()?;
        let (habit, is_choppy) = (self.habit, self.is_choppy);
        let thread = thread::spawn(move || work(theirs, habit, is_choppy, &killed));
        let to_worker = HalfSocket(ours.try_clone()?);
        let process = Box::new(Thread { kill, stream, thread: Some(thread) });
        Ok(if is_choppy {
            Launched {
                process,
                to_worker: Box::new(Choppy { inner: to_worker, state: 1 }),
                from_worker: Box::new(Choppy { inner: ours, state: 2 }),
                stderr: None,
            }
        } else {
            Launched { process, to_worker: Box::new(to_worker), from_worker: Box::new(ours), stderr: None }
        })
    }
}

fn work(stream: UnixStream, habit: Habit, is_choppy: bool, killed: &mpsc::Receiver<()>) {
    let to = stream.try_clone().expect("a descriptor");
    let end = stream.try_clone().expect("a descriptor");
    if is_choppy {
        serve(Choppy { inner: stream, state: 3 }, Choppy { inner: to, state: 4 }, habit, killed);
    } else {
        serve(stream, to, habit, killed);
    }
    // The process has a descriptor still, to be killed by.
    let _result = end.shutdown(std::net::Shutdown::Both);
}

fn serve(mut from: impl io::Read, mut to: impl io::Write, habit: Habit, killed: &mpsc::Receiver<()>) {
    let identity = env!("CARGO_PKG_VERSION").as_bytes();
    let _result = frame::write(&mut to, Kind::Hello, Tag::default(), identity);
    let _result = frame::write(&mut to, Kind::Ready, Tag::default(), &[]);
    let mut payload = Vec::new();
    while let Ok(Some(header)) = frame::read(&mut from, 1 << 30, &mut payload) {
        if header.kind != Kind::Request {
            continue;
        }
        if matches!(habit, Habit::Die) {
            return;
        }
        let reply: Vec<u8> = payload[..header.len].iter().rev().copied().collect();
        if matches!(habit, Habit::ReverseLate) {
            killed.recv().expect("the pool kills it");
        }
        if frame::write(&mut to, Kind::Reply, header.tag, &reply).is_err()
            || matches!(habit, Habit::ReverseLate)
        {
            return;
        }
    }
}

fn builder() -> Builder {
    let policy = RestartPolicy {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        ..RestartPolicy::default()
    };
    ProcessPool::builder(WorkerCommand::new("not started")).restarts(policy)
}

fn start(builder: Builder, habit: Habit, is_choppy: bool, failures: &[Errno]) -> ProcessPool {
    let failures = Mutex::new(failures.iter().copied().collect());
    builder.start_with(Threads { habit, is_choppy, failures }).expect("a pool")
}

#[test]
fn f14_short_reads_and_writes_and_interruptions_lose_nothing() {
    let pool = start(builder().workers(2).capacity(50), Habit::Reverse, true, &[]);
    let jobs: Vec<Vec<u8>> =
        (0..100_usize).map(|n| (0..n * 97).map(|at| (at * n % 253) as u8).collect()).collect();
    let tickets: Vec<_> = jobs.iter().map(|job| pool.submit(job.clone()).unwrap()).collect();
    for (ticket, job) in tickets.into_iter().zip(jobs) {
        assert!(ticket.wait().unwrap().iter().eq(job.iter().rev()));
    }
    assert!(pool.metrics().worker_restarts.is_empty(), "{}", pool.metrics());
}

#[test]
fn f14_starts_that_fail_for_a_while_lose_nothing() {
    let failures = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    let pool = start(builder().workers(2), Habit::Reverse, false, &failures);
    let tickets: Vec<_> = (0..10_u8).map(|n| pool.submit(vec![n, 1]).unwrap()).collect();
    for (n, ticket) in (0..10_u8).zip(tickets) {
        assert_eq!(ticket.wait().unwrap(), [1, n]);
    }
    let metrics = pool.metrics();
    assert_eq!(metrics.worker_restarts.get("not_started"), Some(&5), "{metrics}");
    assert_eq!((metrics.jobs_completed, metrics.job_retries), (10, 0), "{metrics}");
}

#[test]
fn f16_an_answer_after_the_deadline_is_dropped_and_counted() {
    let pool = start(builder().deadline(Duration::from_millis(50)), Habit::ReverseLate, false, &[]);
    let ticket = pool.submit(vec![1, 2]).unwrap();
    assert!(matches!(ticket.wait(), Err(JobError::Timeout)));
    pool.drain(Duration::from_secs(60));
    let metrics = pool.metrics();
    assert_eq!((metrics.late_replies_dropped, metrics.deadline_kills), (1, 1), "{metrics}");
    assert!(metrics.is_balanced() && metrics.jobs_completed == 0, "{metrics}");
}

#[test]
fn f10_starts_that_always_fail_open_the_circuit() {
    let failures = vec![Errno::AGAIN; 1000];
    let policy = RestartPolicy { budget: 3, backoff: Duration::ZERO, ..RestartPolicy::default() };
    let pool = start(builder().restarts(policy), Habit::Reverse, false, &failures);
    for n in 0..50 {
        assert!(matches!(pool.submit(vec![n]).unwrap().wait(), Err(JobError::CircuitOpen)));
    }
    assert_eq!(pool.n_started(), 4, "one more than the budget");
    assert!(pool.metrics().circuit_open);
}

#[test]
fn a_pool_that_is_dropped_while_it_starts_leaves_nothing() {
    for n_failures in 0..4 {
        let pool = start(builder().workers(3), Habit::Reverse, false, &vec![Errno::AGAIN; n_failures]);
        let ticket = pool.submit(vec![1]).unwrap();
        drop(pool);
        // It has an outcome, whichever.
        let _outcome = ticket.wait();
    }
}

#[test]
fn signs_of_life_that_can_not_come_in_time_are_refused() {
    let ms = Duration::from_millis;
    for (every, silence) in [(ms(0), ms(100)), (ms(100), ms(100)), (ms(100), ms(10))] {
        let error = builder().heartbeat(every, silence).start().map(drop).unwrap_err();
        assert!(matches!(error, StartError::Silence { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{silence:?}")), "{error}");
    }
}

#[test]
fn retries_that_can_not_be_reached_are_refused() {
    let refused = |builder: Builder| builder.start().map(drop).unwrap_err();
    for (builder, told) in [
        (builder().retries(2).quarantine_after(2), ["again 2 times", "2 workers", "at most 1"]),
        (builder().retries(1).quarantine_after(1), ["again 1 times", "1 workers", "at most 0"]),
        (builder().retries(u32::MAX), ["again 4294967295 times", "4294967295 workers", "at most 4294967294"]),
    ] {
        let error = refused(builder);
        assert!(matches!(error, StartError::Retries { .. }), "{error}");
        assert!(told.iter().all(|text| error.to_string().contains(text)), "{error}");
    }
}

#[test]
fn a_job_is_tried_as_often_as_was_asked_for() {
    for (of, n_attempts, is_quarantined) in [
        (builder(), 2, true),
        (builder().retries(0), 1, false),
        (builder().quarantine_after(1), 1, false),
        (builder().quarantine_after(5), 2, false),
        (builder().retries(1), 2, true),
        (builder().retries(3), 4, true),
        (builder().retries(3).quarantine_after(9), 4, false),
    ] {
        let pool = start(of, Habit::Die, false, &[]);
        let error = pool.submit(vec![1]).unwrap().wait().unwrap_err();
        match &error {
            JobError::Quarantined { kills } => {
                assert!(is_quarantined && *kills == n_attempts, "{error}");
            }
            JobError::Crashed { attempt, .. } => {
                assert!(!is_quarantined && *attempt == n_attempts, "{error}");
            }
            _ => panic!("{error}"),
        }
        assert_eq!(pool.metrics().job_retries, u64::from(n_attempts) - 1, "{}", pool.metrics());
    }
}

#[test]
fn numbers_that_must_not_be_zero_are_refused() {
    for (builder, what) in [
        (builder().workers(0), "workers"),
        (builder().capacity(0), "capacity"),
        (builder().quarantine_after(0), "quarantine"),
        (builder().max_frame(0), "bytes"),
    ] {
        let error = builder.start().map(drop).unwrap_err();
        assert!(matches!(error, StartError::Zero(_)));
        assert!(error.to_string().contains(what), "{error}");
    }
}
