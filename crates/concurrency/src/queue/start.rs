//! How a queue is configured and started.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::core::Core;
use super::worker::{message_of, work};
use super::{TaskQueue, join};
use crate::error::{AppError, JobError};
use crate::sync::{Condvar, Deadline, Mutex, lock, thread, wait};

/// How many workers and places a queue has, and what it is called.
#[derive(Clone, Debug)]
pub struct Builder {
    capacity: usize,
    n_workers: usize,
    name: String,
}

/// Why a queue could not be started. No thread of it is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This was set to zero.
    Zero(&'static str),
    /// The operating system started no thread.
    Spawn {
        /// What the thread was to be called.
        thread: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// This worker's instance could not be built.
    Build {
        /// Which worker, from 0.
        worker_idx: usize,
        /// [`JobError::App`] with what the factory returned, or [`JobError::Panicked`].
        error: JobError,
    },
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder { capacity: 16, n_workers: 1, name: "queue".to_owned() }
    }

    /// How many accepted jobs may wait for a worker. 16 if not set.
    pub fn capacity(self, capacity: usize) -> Builder {
        Builder { capacity, ..self }
    }

    /// How many workers there are, each with a thread and an instance of its own. One if not set, since an instance may
    /// use many threads itself.
    pub fn workers(self, n_workers: usize) -> Builder {
        Builder { n_workers, ..self }
    }

    /// What threads and metrics are called by.
    pub fn name(self, name: impl Into<String>) -> Builder {
        // The operating system's names end at a zero, and the standard library refuses them.
        Builder { name: name.into().replace('\0', ""), ..self }
    }

    /// Starts the workers and waits until each has its instance.
    ///
    /// `factory` is called in each worker's thread with the worker's index, at first and after each panic, and makes the
    /// handler that runs the worker's jobs one by one. All first calls may run at the same time.
    ///
    /// Errors if a worker or its instance could not be made; then all the others are gone, too.
    pub fn start<J, O, F, W, E, A>(self, factory: F) -> Result<TaskQueue<J, O>, StartError>
    where
        J: Send + 'static,
        O: Send + 'static,
        F: Fn(usize) -> Result<W, E> + Send + Sync + 'static,
        W: FnMut(J) -> Result<O, A>,
        E: Into<AppError>,
        A: Into<AppError>,
    {
        let Builder { capacity, n_workers, name } = self;
        for (value, what) in [(capacity, "capacity"), (n_workers, "workers")] {
            if value == 0 {
                return Err(StartError::Zero(what));
            }
        }
        let core = Arc::new(Core::new(name.clone(), capacity, n_workers));
        let factory = Arc::new(factory);
        let gate = Arc::new(Gate::new(n_workers));
        // Grows as threads start: a number of workers that can't be had is an error of the system's.
        let mut threads = Vec::new();
        let mut failed = None;
        for worker_idx in 0..n_workers {
            let (core, factory, gate) = (Arc::clone(&core), Arc::clone(&factory), Arc::clone(&gate));
            let run = move || {
                let build = || build(&*factory, worker_idx);
                match build() {
                    Ok(first) => {
                        gate.pass(None);
                        work(&core, first, build);
                    }
                    Err(error) => gate.pass(Some(StartError::Build { worker_idx, error })),
                }
            };
            match spawn(format!("{name}-{worker_idx}"), run) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let failed = match failed {
            Some(error) => Some(error),
            None => gate.wait().or_else(|| start_timer(&core, &name, &mut threads)),
        };
        if let Some(error) = failed {
            core.close();
            join(threads);
            return Err(error);
        }
        Ok(TaskQueue { core, threads: Mutex::new(threads) })
    }
}

/// Starts the thread that keeps deadlines. Models have no clock, and fire deadlines themselves.
fn start_timer<J: Send + 'static, O: Send + 'static>(
    core: &Arc<Core<J, O>>,
    name: &str,
    threads: &mut Vec<thread::JoinHandle<()>>,
) -> Option<StartError> {
    #[cfg(not(all(test, any(ferroyolo_loom, ferroyolo_shuttle))))]
    {
        let core = Arc::clone(core);
        match spawn(format!("{name}-timer"), move || core.keep_time()) {
            Ok(thread) => threads.push(thread),
            Err(error) => return Some(error),
        }
    }
    #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
    let _ = (core, name, threads);
    None
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, StartError> {
    let spawned = thread::Builder::new().name(name.clone()).spawn(run);
    spawned.map_err(|error| StartError::Spawn { thread: name, error })
}

/// Makes a worker's handler, whatever the factory does.
fn build<F, W, E>(factory: &F, worker_idx: usize) -> Result<W, JobError>
where
    F: Fn(usize) -> Result<W, E>,
    E: Into<AppError>,
{
    match catch_unwind(AssertUnwindSafe(|| factory(worker_idx).map_err(Into::into))) {
        Ok(made) => made.map_err(JobError::App),
        Err(payload) => Err(JobError::Panicked(message_of(payload))),
    }
}

/// Where the starter waits until every worker has reported.
struct Gate {
    state: Mutex<(usize, Option<StartError>)>,
    changed: Condvar,
}

impl Gate {
    fn new(n_awaited: usize) -> Gate {
        Gate { state: Mutex::new((n_awaited, None)), changed: Condvar::new() }
    }

    fn pass(&self, error: Option<StartError>) {
        let mut state = lock(&self.state);
        state.0 -= 1;
        if state.1.is_none() {
            state.1 = error;
        }
        drop(state);
        self.changed.notify_one();
    }

    fn wait(&self) -> Option<StartError> {
        let mut state = lock(&self.state);
        while state.0 > 0 {
            state = wait(&self.changed, state, &Deadline::Never);
        }
        state.1.take()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Zero(what) => write!(f, "a queue needs {what}, got 0, expected 1 or more"),
            StartError::Spawn { thread, error } => {
                write!(f, "the thread {thread} could not be started: {error}")
            }
            StartError::Build { worker_idx, error } => {
                write!(f, "no instance could be built for worker {worker_idx}: {error}")
            }
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Zero(_) => None,
            StartError::Spawn { error, .. } => Some(error),
            StartError::Build { error, .. } => Some(error),
        }
    }
}
