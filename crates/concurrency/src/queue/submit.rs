//! How a job is submitted, and how it is refused.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::sync::Deadline;

/// How to submit one job. By default it waits for a place as long as it takes, and has no deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubmitOptions {
    deadline: Option<Duration>,
    patience: Option<Duration>,
}

/// A job that was not accepted, handed back.
pub enum Rejected<J> {
    /// All places of the queue were taken.
    Full(J),
    /// The queue was closed.
    Closed(J),
}

impl SubmitOptions {
    /// The default: wait for a place as long as it takes, no deadline.
    pub fn new() -> SubmitOptions {
        SubmitOptions::default()
    }

    /// The job has to be done so long after it is submitted, or its outcome is [`JobError::Timeout`].
    ///
    /// The time spent waiting for a place counts; a job whose deadline passes before it has one is rejected as full.
    ///
    /// [`JobError::Timeout`]: crate::JobError::Timeout
    pub fn deadline(self, after: Duration) -> SubmitOptions {
        SubmitOptions { deadline: Some(after), ..self }
    }

    /// Wait no longer than this for a place; zero not to wait.
    pub fn wait_for_place(self, at_most: Duration) -> SubmitOptions {
        SubmitOptions { patience: Some(at_most), ..self }
    }

    /// The job's deadline, and how long to wait for a place, both from now; `None` not to wait.
    pub(crate) fn start(self) -> (Deadline, Option<Deadline>) {
        let at = |timeout: Option<Duration>| timeout.map_or(Deadline::Never, Deadline::after);
        let patience = match (self.patience, self.deadline) {
            (Some(Duration::ZERO), _) => None,
            (Some(patience), Some(deadline)) => Some(at(Some(patience.min(deadline)))),
            (patience, deadline) => Some(at(patience.or(deadline))),
        };
        (at(self.deadline), patience)
    }
}

impl<J> Rejected<J> {
    /// The job.
    pub fn into_job(self) -> J {
        match self {
            Rejected::Full(job) | Rejected::Closed(job) => job,
        }
    }

    /// Whether the queue takes no more jobs at all.
    pub fn is_closed(&self) -> bool {
        matches!(self, Rejected::Closed(_))
    }
}

impl<J> fmt::Debug for Rejected<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_closed() { "Closed(..)" } else { "Full(..)" })
    }
}

impl<J> fmt::Display for Rejected<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_closed() { "the queue is closed" } else { "the queue is full" })
    }
}

impl<J> Error for Rejected<J> {}
