//! A pool of worker processes: how it is configured, started, used and ended.

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::command::WorkerCommand;
use super::driver::{Shared, Work, drive};
use super::launch::Launch;
use super::link;
use super::quarantine::Quarantine;
use super::roster::{Action, Clock, Patience, Roster};
use super::settings::Settings;
use super::stderr::Stderr;
use super::supervisor::RestartPolicy;
use super::worker;
use crate::error::JobError;
use crate::metrics::Metrics;
use crate::queue::core::Core;
use crate::queue::{DrainReport, Rejected, SubmitOptions, Ticket};
use crate::sync::{Deadline, Mutex, lock};

/// Inputs that killed workers and are remembered.
const N_REMEMBERED: usize = 1024;

/// A bounded queue of jobs, and processes that turn each into a result. The [module](super) says what it promises.
pub struct ProcessPool {
    shared: Arc<Shared>,
    name: String,
    /// Emptied when they are joined.
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    drivers: Vec<thread::JoinHandle<()>>,
    others: Vec<thread::JoinHandle<()>>,
}

/// How a pool is configured. Made by [`ProcessPool::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    command: WorkerCommand,
    name: String,
    n_workers: usize,
    capacity: usize,
    deadline: Option<Duration>,
    n_retries: Option<u32>,
    quarantine_after: Option<u32>,
    max_frame: usize,
    heartbeat: Duration,
    patience: Patience,
    restarts: RestartPolicy,
    seed: Option<u64>,
}

/// Why a pool could not be started. Nothing of it is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This was set to zero.
    Zero(&'static str),
    /// A job's input would be refused before the job has been tried as often as was asked for.
    Retries {
        /// Attempts after the first.
        n_retries: u32,
        /// Workers that one input may kill.
        quarantine_after: u32,
    },
    /// Workers would be killed before they can give the next sign of life.
    Silence {
        /// Between two signs of life; at least a millisecond.
        every: Duration,
        /// The time without one after which a worker is killed.
        silence: Duration,
    },
    /// The operating system started no thread.
    Thread(io::Error),
    /// This process is a worker itself, and has not called [`worker::serve`](super::worker::serve): if it started workers
    /// of its own program, each of them would do the same.
    InsideWorker,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Zero(what) => write!(f, "a pool needs {what}, got 0, expected 1 or more"),
            StartError::Retries { n_retries, quarantine_after } => write!(
                f,
                "a job can't be tried again {n_retries} times if its input is refused after it killed \
                 {quarantine_after} workers: expected at most {} retries",
                quarantine_after.saturating_sub(1)
            ),
            StartError::Silence { every, silence } => write!(
                f,
                "signs of life can't come every {every:?} and be missed after {silence:?}: the first has to be 1 ms or \
                 more, the second more than the first"
            ),
            StartError::Thread(error) => write!(f, "no thread could be started: {error}"),
            StartError::InsideWorker => f.write_str(
                "this process is a worker of a pool, and has to call worker::serve before it starts a pool of its own",
            ),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Zero(_)
            | StartError::Retries { .. }
            | StartError::Silence { .. }
            | StartError::InsideWorker => None,
            StartError::Thread(error) => Some(error),
        }
    }
}

impl Builder {
    /// How many workers there are. One if not set.
    #[must_use]
    pub fn workers(self, n_workers: usize) -> Builder {
        Builder { n_workers, ..self }
    }

    /// How many accepted jobs may wait for a worker. 16 if not set.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> Builder {
        Builder { capacity, ..self }
    }

    /// What threads and metrics are called by.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Builder {
        Builder { name: name.into(), ..self }
    }

    /// How long one attempt at a job may take before its worker is killed and the job times out. No limit if not set.
    ///
    /// Deadlines of single jobs are set by [`SubmitOptions::deadline`]; the earlier one counts.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Builder {
        Builder { deadline: Some(deadline), ..self }
    }

    /// How often a job is tried again whose worker died. If not set once, or never if one kill is enough for quarantine.
    ///
    /// After that its outcome is [`JobError::Crashed`], or [`JobError::Quarantined`] if it was tried more than once and
    /// its input has killed as many workers as [`Builder::quarantine_after`] says. Has to be less than that, or it could
    /// not be reached.
    #[must_use]
    pub fn retries(self, n_retries: u32) -> Builder {
        Builder { n_retries: Some(n_retries), ..self }
    }

    /// How many workers one input may kill, over all jobs that consist of it, before it is refused. One more than
    /// [`Builder::retries`] if not set, and 2 at least.
    #[must_use]
    pub fn quarantine_after(self, n_kills: u32) -> Builder {
        Builder { quarantine_after: Some(n_kills), ..self }
    }

    /// How dead workers are replaced.
    #[must_use]
    pub fn restarts(self, policy: RestartPolicy) -> Builder {
        Builder { restarts: policy, ..self }
    }

    /// Bytes that a job or a result may have. 64 MiB if not set.
    #[must_use]
    pub fn max_frame(self, bytes: usize) -> Builder {
        Builder { max_frame: bytes, ..self }
    }

    /// How often a worker gives a sign of life, and after how long without one it is killed. 1 s and 15 s if not set.
    ///
    /// This finds processes that are stopped or stand still as a whole. A handler that hangs is found by the deadline.
    /// Time in which this process is stopped itself does not count, here and for the other times that workers have: what
    /// they sent meanwhile is read first. Deadlines of jobs are by the clock in any case.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration, silence: Duration) -> Builder {
        self.heartbeat = every;
        self.patience.silence = silence;
        self
    }

    /// How long a worker may take until it is ready. 60 s if not set.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Builder {
        self.patience.start = timeout;
        self
    }

    /// How long a worker that is told to leave may take before it is killed. 5 s if not set.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Builder {
        self.patience.grace = grace;
        self
    }

    /// Makes the delays between restarts repeatable.
    #[must_use]
    pub fn seed(self, seed: u64) -> Builder {
        Builder { seed: Some(seed), ..self }
    }

    /// Starts the pool. Workers are started in the background; jobs may be submitted at once.
    ///
    /// # Errors
    ///
    /// If a number is zero that must not be, numbers contradict each other, or there are no threads. That workers can't
    /// be started, or are of another version, is the outcome of jobs.
    pub fn start(self) -> Result<ProcessPool, StartError> {
        let command = self.command.clone();
        self.start_with(command)
    }

    pub(crate) fn start_with(self, launch: impl Launch) -> Result<ProcessPool, StartError> {
        if worker::is_idle() {
            return Err(StartError::InsideWorker);
        }
        let n_retries = self.n_retries.unwrap_or(match self.quarantine_after {
            Some(0 | 1) => 0,
            _ => 1,
        });
        let quarantine_after = self.quarantine_after.unwrap_or(n_retries.saturating_add(1).max(2));
        for (value, what) in [
            (self.n_workers, "workers"),
            (self.capacity, "capacity"),
            (quarantine_after as usize, "kills before quarantine"),
            (self.max_frame, "bytes in a message"),
        ] {
            if value == 0 {
                return Err(StartError::Zero(what));
            }
        }
        if n_retries >= quarantine_after {
            return Err(StartError::Retries { n_retries, quarantine_after });
        }
        let (every, silence) = (self.heartbeat, self.patience.silence);
        if every < Duration::from_millis(1) || silence <= every {
            return Err(StartError::Silence { every, silence });
        }
        let start = Instant::now();
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let settings = Settings {
            deadline: self.deadline,
            n_retries,
            quarantine_after,
            max_frame: self.max_frame,
            heartbeat: self.heartbeat,
            limits: self.command.limits,
            identity: self.command.identity,
            forward_stderr: self.command.stderr == Stderr::Forward,
        };
        let shared = Arc::new(Shared {
            core: Arc::new(Core::new(self.name.clone(), self.capacity, self.n_workers)),
            roster: Roster::new(self.n_workers, self.restarts, seed, self.patience, Clock::Since(start)),
            quarantine: Mutex::new(Quarantine::new(N_REMEMBERED)),
            settings: Arc::new(settings),
            start,
        });
        let pool = ProcessPool { shared, name: self.name, threads: Mutex::default() };
        // If one of these fails the pool is dropped, which ends the others.
        pool.spawn_threads(self.n_workers, launch).map_err(StartError::Thread)?;
        Ok(pool)
    }
}

impl ProcessPool {
    /// Where a pool begins: what its workers are.
    pub fn builder(command: WorkerCommand) -> Builder {
        Builder {
            command,
            name: "processes".to_owned(),
            n_workers: 1,
            capacity: 16,
            deadline: None,
            n_retries: None,
            quarantine_after: None,
            max_frame: 64 << 20,
            heartbeat: Duration::from_secs(1),
            patience: Patience {
                start: Duration::from_secs(60),
                silence: Duration::from_secs(15),
                grace: Duration::from_secs(5),
            },
            restarts: RestartPolicy::default(),
            seed: None,
        }
    }

    fn spawn_threads(&self, n_workers: usize, launch: impl Launch) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        let spawn =
            |name: String, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name).spawn(run);
        let shared = Arc::clone(&self.shared);
        threads
            .others
            .push(spawn(format!("{}-supervisor", self.name), Box::new(move || supervise(&shared, &launch)))?);
        let shared = Arc::clone(&self.shared);
        threads
            .others
            .push(spawn(format!("{}-timer", self.name), Box::new(move || shared.core.keep_time()))?);
        for slot in 0..n_workers {
            let shared = Arc::clone(&self.shared);
            threads
                .drivers
                .push(spawn(format!("{}-{slot}", self.name), Box::new(move || drive(&shared, slot)))?);
        }
        Ok(())
    }

    /// Submits a job, waiting for a place if there is none. Submitters that wait are served in the order they came.
    ///
    /// # Errors
    ///
    /// [`Rejected::Closed`] if the pool is closed, also while it waits.
    pub fn submit(&self, job: Vec<u8>) -> Result<Ticket<Vec<u8>>, Rejected<Vec<u8>>> {
        self.submit_with(job, SubmitOptions::new())
    }

    /// Submits a job if there is a place for it and nobody waits for one.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the job.
    pub fn try_submit(&self, job: Vec<u8>) -> Result<Ticket<Vec<u8>>, Rejected<Vec<u8>>> {
        self.submit_with(job, SubmitOptions::new().wait_for_place(Duration::ZERO))
    }

    /// Submits a job, waiting for a place no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the job.
    pub fn submit_timeout(
        &self,
        job: Vec<u8>,
        timeout: Duration,
    ) -> Result<Ticket<Vec<u8>>, Rejected<Vec<u8>>> {
        self.submit_with(job, SubmitOptions::new().wait_for_place(timeout))
    }

    /// Submits a job with a deadline, or with other options.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the job.
    pub fn submit_with(
        &self,
        job: Vec<u8>,
        options: SubmitOptions,
    ) -> Result<Ticket<Vec<u8>>, Rejected<Vec<u8>>> {
        let (deadline, patience) = options.start();
        let work = Work { bytes: job, n_deaths: 0, n_passes: 0 };
        let id = match patience {
            Some(patience) => self.shared.core.submit(work, deadline, &patience),
            None => self.shared.core.try_submit(work, deadline),
        };
        match id {
            Ok(id) => Ok(Ticket::new(Arc::clone(&self.shared.core), id)),
            Err(Rejected::Full(work)) => Err(Rejected::Full(work.bytes)),
            Err(Rejected::Closed(work)) => Err(Rejected::Closed(work.bytes)),
        }
    }

    /// Accepts no more jobs. Those accepted run; submitters that wait for a place get their jobs back.
    pub fn close(&self) {
        self.shared.core.close();
    }

    /// Whether the pool accepts no more jobs.
    pub fn is_closed(&self) -> bool {
        self.shared.core.is_closed()
    }

    /// Closes, waits for the accepted jobs to be done, no longer than `timeout`, and ends the workers.
    ///
    /// Jobs that are not done by then get the outcome [`JobError::Closed`], and their workers are killed.
    pub fn drain(&self, timeout: Duration) -> DrainReport {
        let core = &self.shared.core;
        core.close();
        let before = core.metrics();
        let in_time = core.wait_over(&Deadline::after(timeout));
        let n_closed = if in_time { 0 } else { core.abort(|| JobError::Closed) };
        self.end();
        let after = core.metrics();
        DrainReport {
            in_time,
            n_completed: after.jobs_completed - before.jobs_completed,
            n_failed: after.jobs_failed.total() - before.jobs_failed.total(),
            n_closed,
            n_left_running: 0,
        }
    }

    /// What the pool did and is doing.
    pub fn metrics(&self) -> Metrics {
        let tally = self.shared.roster.tally();
        let mut metrics = self.shared.core.metrics();
        metrics.worker_restarts.extend(tally.deaths.into_iter().filter(|(reason, _)| *reason != "closed"));
        metrics.deadline_kills += tally.n_deadline_kills;
        metrics.late_replies_dropped += tally.n_late_replies;
        metrics.circuit_open |= tally.is_circuit_open;
        metrics
    }

    /// The process numbers of the workers that are there now.
    pub fn pids(&self) -> Vec<u32> {
        self.shared.roster.workers().iter().map(|worker| worker.pid()).collect()
    }

    /// What a worker died of last, if one did that should not have; for messages to people.
    pub fn last_failure(&self) -> Option<String> {
        self.shared.roster.tally().last_failure
    }

    /// How many workers were started so far.
    pub fn n_started(&self) -> u64 {
        self.shared.roster.tally().n_started
    }

    /// Ends the workers and the threads. No job is left by now, or none that counts.
    fn end(&self) {
        let (idle, busy) = self.shared.roster.close();
        busy.iter().for_each(|worker| worker.kill());
        idle.iter().for_each(|worker| worker.dismiss());
        let Threads { drivers, others } = std::mem::take(&mut *lock(&self.threads));
        for thread in drivers.into_iter().chain(others) {
            // A thread of ours that panicked has said so.
            let _result = thread.join();
        }
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        // What runs is a process of ours: it need not be waited for.
        self.shared.core.abort(|| JobError::Closed);
        self.end();
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Starts workers and kills those whose time is over, until the pool is closed and no worker is left.
///
/// In one thread for the pool's whole life: on Linux workers are killed when the thread ends that started them.
fn supervise(shared: &Arc<Shared>, launch: &dyn Launch) {
    let mut keepers: Vec<thread::JoinHandle<()>> = Vec::new();
    loop {
        match shared.roster.next() {
            Action::Spawn { slot, incarnation } => {
                let started = link::start(launch, &shared.settings, slot, incarnation);
                let (link, keeper) = match started {
                    Ok(started) => started,
                    Err(error) => {
                        shared.roster.not_spawned(slot, error.to_string());
                        continue;
                    }
                };
                if let Err(unwanted) = shared.roster.spawned(slot, link) {
                    unwanted.kill();
                }
                keepers.retain(|keeper| !keeper.is_finished());
                keep(shared, keeper, &mut keepers);
            }
            Action::Kill(worker) => worker.kill(),
            Action::Stop => break,
        }
    }
    for keeper in keepers {
        let _result = keeper.join();
    }
}

fn keep(shared: &Arc<Shared>, keeper: link::Keeper, keepers: &mut Vec<thread::JoinHandle<()>>) {
    // A closure that can't be started is dropped, and the keeper is needed then.
    let keeper = Arc::new(Mutex::new(Some(keeper)));
    let (shared_there, keeper_there) = (Arc::clone(shared), Arc::clone(&keeper));
    let run = move || {
        let keeper = lock(&keeper_there).take();
        if let Some(keeper) = keeper {
            keeper.keep(&shared_there.roster);
        }
    };
    match thread::Builder::new().name("worker-keeper".to_owned()).spawn(run) {
        Ok(thread) => keepers.push(thread),
        Err(error) => {
            let keeper = lock(&keeper).take();
            if let Some(keeper) = keeper {
                link::bury(keeper, &shared.roster, &error);
            }
        }
    }
}
