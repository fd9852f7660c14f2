//! What a submitter holds of its job.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Outcome};
use crate::error::JobError;
use crate::sync::Deadline;

/// The right to one job's outcome.
///
/// Waiting takes the ticket, and gives it back if the outcome did not come in time; so no outcome is taken twice. A
/// dropped ticket lets its job run and drops the outcome; [`Ticket::cancel`] it first if the job is not wanted either.
#[must_use = "a dropped ticket drops the job's outcome"]
pub struct Ticket<O> {
    host: Arc<dyn Host<O>>,
    id: u64,
    is_taken: bool,
}

/// Cancels a job from wherever its ticket is not. Made by [`Ticket::canceller`].
pub struct Canceller<O> {
    host: Arc<dyn Host<O>>,
    id: u64,
}

/// The queue as a ticket sees it, whatever its jobs are.
trait Host<O>: Send + Sync {
    fn wait_outcome(&self, id: u64, deadline: &Deadline) -> Option<Outcome<O>>;
    fn cancel(&self, id: u64) -> bool;
    fn abandon(&self, id: u64);
}

impl<J: Send, O: Send> Host<O> for Core<J, O> {
    fn wait_outcome(&self, id: u64, deadline: &Deadline) -> Option<Outcome<O>> {
        Core::wait_outcome(self, id, deadline)
    }

    fn cancel(&self, id: u64) -> bool {
        Core::cancel(self, id)
    }

    fn abandon(&self, id: u64) {
        Core::abandon(self, id);
    }
}

impl<O> Ticket<O> {
    /// The ticket of job `id`; one for each job.
    pub(crate) fn new<J: Send + 'static>(core: Arc<Core<J, O>>, id: u64) -> Ticket<O>
    where
        O: Send + 'static,
    {
        Ticket { host: core, id, is_taken: false }
    }

    /// The job's number in its queue: 0 for the first that was accepted, and so on.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the job's outcome.
    pub fn wait(mut self) -> Result<O, JobError> {
        loop {
            if let Some(outcome) = self.take(&Deadline::Never) {
                return outcome;
            }
        }
    }

    /// Waits for the job's outcome for so long; gives the ticket back if it did not come. The job goes on.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<O, JobError>, Ticket<O>> {
        self.wait_until(&Deadline::after(timeout))
    }

    /// The job's outcome if it is there; else the ticket.
    pub fn try_wait(self) -> Result<Result<O, JobError>, Ticket<O>> {
        self.wait_timeout(Duration::ZERO)
    }

    pub(crate) fn wait_until(mut self, deadline: &Deadline) -> Result<Outcome<O>, Ticket<O>> {
        self.take(deadline).ok_or(self)
    }

    /// Gives the job the outcome [`JobError::Cancelled`] if it has none yet; says whether it did.
    ///
    /// A queued job does not run any more and its place is free at once. One that runs on a thread can't be stopped:
    /// what it gives is dropped.
    pub fn cancel(&self) -> bool {
        self.host.cancel(self.id)
    }

    /// Something to cancel the job with while another thread waits for the ticket.
    pub fn canceller(&self) -> Canceller<O> {
        Canceller { host: Arc::clone(&self.host), id: self.id }
    }

    fn take(&mut self, deadline: &Deadline) -> Option<Outcome<O>> {
        let outcome = self.host.wait_outcome(self.id, deadline)?;
        self.is_taken = true;
        Some(outcome)
    }
}

impl<O> Drop for Ticket<O> {
    fn drop(&mut self) {
        if !self.is_taken {
            self.host.abandon(self.id);
        }
    }
}

impl<O> Canceller<O> {
    /// As [`Ticket::cancel`].
    pub fn cancel(&self) -> bool {
        self.host.cancel(self.id)
    }
}

impl<O> Clone for Canceller<O> {
    fn clone(&self) -> Canceller<O> {
        Canceller { host: Arc::clone(&self.host), id: self.id }
    }
}

impl<O> fmt::Debug for Ticket<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<O> fmt::Debug for Canceller<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("id", &self.id).finish_non_exhaustive()
    }
}
