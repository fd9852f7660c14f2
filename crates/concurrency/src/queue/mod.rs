//! A bounded queue of jobs with workers of its own.
//!
//! **Choose it** when jobs come from elsewhere than the threads that should run them: requests, files, frames. Each
//! worker is a thread with an instance that it built itself and that never leaves it, so instances need not be `Send`.
//! For input that may crash or hang the process, use worker processes instead of threads.
//!
//! **It costs** two context switches for each job, a thread and an instance for each worker, one thread that keeps the
//! deadlines, and memory for `capacity` jobs that wait plus one for each worker; more are not accepted, which is the
//! point.
//!
//! **It promises**
//!
//! - Every accepted job has exactly one outcome, and its [`Ticket`] gets it, also if the handler panics, the deadline
//!   passes, the job is cancelled or the queue is dropped.
//! - A job that is not accepted is handed back in [`Rejected`].
//! - Jobs begin in the order in which they were accepted; submitters that wait for a place get it in the order in which
//!   they came.
//! - `accepted = completed + failed + queued + running` holds in every snapshot of [`TaskQueue::metrics`].
//! - A handler that panicked is not used again: the worker drops it and builds another before its next job. While that
//!   fails, the worker's jobs fail with the builder's error.
//! - A job that runs on a thread can't be stopped. At its deadline, or when it is cancelled, its ticket has its outcome at
//!   once; the worker goes on, and what it gives in the end is dropped and counted.
//! - [`close`](TaskQueue::close) ends: what was accepted runs, nothing else does. Dropping the queue closes it, answers
//!   what still waits with [`JobError::Closed`], and waits for the handlers that run.
//!
//! A handler that submits to its own queue and waits for the outcome may wait for ever, since all workers may be doing
//! the same.
//!
//! ```
//! use ferroyolo_concurrency::{JobError, TaskQueue};
//!
//! // Built once by each worker, in the worker's thread: here, a count of the jobs it has done.
//! let queue = TaskQueue::builder().workers(2).capacity(8).start(|_worker_idx| {
//!     let mut n_done = 0;
//!     Ok::<_, String>(move |text: String| {
//!         n_done += 1;
//!         text.parse::<i32>()
//!     })
//! })?;
//! let good = queue.submit("17".to_owned())?;
//! let bad = queue.submit("seventeen".to_owned())?;
//! assert_eq!(good.wait()?, 17);
//! assert!(matches!(bad.wait(), Err(JobError::App(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod core;
mod start;
mod submit;
mod ticket;
mod worker;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use self::core::Core;
use crate::error::JobError;
use crate::metrics::Metrics;
use crate::sync::{Deadline, Mutex, lock, thread};

pub use start::{Builder, StartError};
pub use submit::{Rejected, SubmitOptions};
pub use ticket::{Canceller, Ticket};

/// A bounded queue of jobs `J`, and threads that turn each into an `O`. The [module](self) says what it promises.
pub struct TaskQueue<J: Send + 'static, O: Send + 'static> {
    core: Arc<Core<J, O>>,
    /// Emptied when they are joined, or left to themselves.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// How a queue was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether every accepted job ran to its end within the time limit.
    pub in_time: bool,
    /// Jobs that got a result while the queue was drained.
    pub n_completed: u64,
    /// Jobs that got an error while the queue was drained, those included that the time limit closed.
    pub n_failed: u64,
    /// Jobs that were answered with [`JobError::Closed`] because of the time limit.
    pub n_closed: usize,
    /// Handlers that had not returned at the time limit. Their threads end when they do.
    pub n_left_running: usize,
}

impl TaskQueue<(), ()> {
    /// Where a queue begins: how many workers and places it has. The types of jobs and results follow from the handler.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<J: Send + 'static, O: Send + 'static> TaskQueue<J, O> {
    /// Submits a job, waiting for a place if there is none. Submitters that wait are served in the order they came.
    ///
    /// Errors with [`Rejected::Closed`] if the queue is closed, also while it waits.
    pub fn submit(&self, job: J) -> Result<Ticket<O>, Rejected<J>> {
        self.submit_with(job, SubmitOptions::new())
    }

    /// Submits a job if there is a place for it and nobody waits for one.
    pub fn try_submit(&self, job: J) -> Result<Ticket<O>, Rejected<J>> {
        self.submit_with(job, SubmitOptions::new().wait_for_place(Duration::ZERO))
    }

    /// Submits a job, waiting for a place no longer than `timeout`.
    pub fn submit_timeout(&self, job: J, timeout: Duration) -> Result<Ticket<O>, Rejected<J>> {
        self.submit_with(job, SubmitOptions::new().wait_for_place(timeout))
    }

    /// Submits a job with a deadline, or with other options.
    pub fn submit_with(&self, job: J, options: SubmitOptions) -> Result<Ticket<O>, Rejected<J>> {
        let (deadline, patience) = options.start();
        let id = match patience {
            Some(patience) => self.core.submit(job, deadline, &patience)?,
            None => self.core.try_submit(job, deadline)?,
        };
        Ok(Ticket::new(Arc::clone(&self.core), id))
    }

    /// Accepts no more jobs. Those accepted run; submitters that wait for a place get their jobs back.
    pub fn close(&self) {
        self.core.close();
    }

    /// Whether the queue accepts no more jobs.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Closes, and waits for the accepted jobs to be done, no longer than `timeout`.
    ///
    /// Jobs that are not done by then get the outcome [`JobError::Closed`], so that no ticket is left open. Handlers that
    /// run on are left to themselves; their threads end when they return.
    pub fn drain(&self, timeout: Duration) -> DrainReport {
        self.core.close();
        let before = self.core.metrics();
        let in_time = self.core.wait_over(&Deadline::after(timeout));
        let n_closed = if in_time { 0 } else { self.core.abort(|| JobError::Closed) };
        let after = self.core.metrics();
        let threads = std::mem::take(&mut *lock(&self.threads));
        if in_time {
            join(threads);
        }
        DrainReport {
            in_time,
            n_completed: after.jobs_completed - before.jobs_completed,
            n_failed: after.jobs_failed.total() - before.jobs_failed.total(),
            n_closed,
            n_left_running: after.workers.busy,
        }
    }

    /// What the queue did and is doing.
    pub fn metrics(&self) -> Metrics {
        self.core.metrics()
    }
}

impl<J: Send + 'static, O: Send + 'static> Drop for TaskQueue<J, O> {
    fn drop(&mut self) {
        self.core.stop(|| JobError::Closed);
        join(std::mem::take(&mut *lock(&self.threads)));
    }
}

impl<J: Send + 'static, O: Send + 'static> fmt::Debug for TaskQueue<J, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics();
        f.debug_struct("TaskQueue")
            .field("name", &metrics.name)
            .field("n_queued", &metrics.n_queued)
            .field("n_running", &metrics.n_running)
            .finish_non_exhaustive()
    }
}

/// Waits for the threads' ends, unless the caller is one of them: a handler may hold the last reference to its queue, and
/// the others end only after it has returned.
fn join(threads: Vec<thread::JoinHandle<()>>) {
    let own = thread::current().id();
    if threads.iter().any(|thread| thread.thread().id() == own) {
        return;
    }
    for thread in threads {
        // What a worker's thread could panic with was caught and answered where it happened.
        let _ = thread.join();
    }
}

/// Drops a caller's value. A destructor that panics has been reported by the panic hook; it must not take a worker, or
/// the outcome of another job, with it.
pub(crate) fn discard<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod reference;
#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests;
