//! What a queue did and is doing, in numbers, and their text in the format of Prometheus.
//!
//! All numbers of a snapshot were taken at once, under the lock that guards what they count:
//! `accepted = completed + failed + queued + running` holds in every one of them.
//!
//! ```
//! use ferroyolo_concurrency::TaskQueue;
//!
//! let queue = TaskQueue::builder().name("squares").start(|_| Ok::<_, String>(|n: u64| Ok::<_, String>(n * n)))?;
//! assert_eq!(queue.submit(7)?.wait()?, 49);
//! let metrics = queue.metrics();
//! assert!(metrics.is_balanced());
//! assert!(metrics.to_string().contains("ferroyolo_jobs_completed_total{queue=\"squares\"} 1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Snapshots of several queues and locks are one answer to a scrape as a [`Page`], not one after the other: the format
//! describes each family of numbers once and keeps its samples together.

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::JobError;

pub use text::Page;

/// The numbers of one queue or pool at one instant. `Display` writes them in the text format of Prometheus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// What the queue is called; the label `queue`.
    pub name: String,
    /// Jobs that were accepted so far.
    pub jobs_accepted: u64,
    /// Jobs that have a result.
    pub jobs_completed: u64,
    /// Jobs that have an error.
    pub jobs_failed: Failures,
    /// Attempts that were given up and whose job went back to the queue, to be begun anew. A job may have several.
    pub job_retries: u64,
    /// Jobs that wait for a worker.
    pub n_queued: usize,
    /// Jobs that a worker is at, and whose outcome is open.
    pub n_running: usize,
    /// How long jobs waited for a worker.
    pub queue_wait: Histogram,
    /// How long workers were at a job, whatever became of it.
    pub infer: Histogram,
    /// What the workers are doing.
    pub workers: Workers,
    /// Workers or their instances that were replaced, by reason.
    pub worker_restarts: BTreeMap<&'static str, u64>,
    /// Workers that were killed because a deadline had passed.
    pub deadline_kills: u64,
    /// Results that came after the job had its outcome, and were dropped.
    pub late_replies_dropped: u64,
    /// Whether workers died so fast that no more are started.
    pub circuit_open: bool,
}

/// How callers wait for a [`Locked`](crate::Locked) or a [`Pool`](crate::Pool). `Display` writes it in the text format of
/// Prometheus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockMetrics {
    /// What the lock or pool is called; the label `lock`.
    pub name: String,
    /// How long callers waited for their turn, those included that got it at once and those that gave up.
    pub lock_wait: Histogram,
    /// Callers that wait.
    pub n_waiting: usize,
}

/// What the workers of a queue are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workers {
    /// Waiting for a job.
    pub idle: usize,
    /// At a job, also if its outcome is no longer waited for.
    pub busy: usize,
    /// Neither: being started, between two jobs, or gone.
    pub away: usize,
}

/// The kinds of [`JobError`], to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// [`JobError::App`]
    App,
    /// [`JobError::Panicked`]
    Panicked,
    /// [`JobError::Timeout`]
    Timeout,
    /// [`JobError::Cancelled`]
    Cancelled,
    /// [`JobError::Closed`]
    Closed,
    /// [`JobError::Crashed`]
    Crashed,
    /// [`JobError::OutOfMemory`]
    OutOfMemory,
    /// [`JobError::Protocol`]
    Protocol,
    /// [`JobError::Quarantined`]
    Quarantined,
    /// [`JobError::Incompatible`]
    Incompatible,
    /// [`JobError::CircuitOpen`]
    CircuitOpen,
    /// [`JobError::DeviceLost`]
    DeviceLost,
}

/// Counts of failed jobs by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    counts: [u64; FailureKind::ALL.len()],
}

/// How long something took: how often no longer than each of [`Histogram::BOUNDS_S`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// One for each bound, and one for what exceeds them all. Not cumulated.
    counts: [u64; Histogram::BOUNDS_S.len() + 1],
    sum: Duration,
}

/// What is counted of a queue as it goes. Part of what its mutex guards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: Failures,
    pub(crate) retries: u64,
    pub(crate) queue_wait: Histogram,
    pub(crate) infer: Histogram,
    pub(crate) restarts: BTreeMap<&'static str, u64>,
    pub(crate) deadline_kills: u64,
    pub(crate) late_replies_dropped: u64,
    pub(crate) circuit_open: bool,
}

impl Counters {
    /// These counts with the rest of a snapshot: how many jobs are queued and running, and what workers do.
    pub(crate) fn snapshot(
        &self,
        name: &str,
        [n_queued, n_running]: [usize; 2],
        workers: Workers,
    ) -> Metrics {
        Metrics {
            name: name.to_owned(),
            jobs_accepted: self.accepted,
            jobs_completed: self.completed,
            jobs_failed: self.failed.clone(),
            job_retries: self.retries,
            n_queued,
            n_running,
            queue_wait: self.queue_wait.clone(),
            infer: self.infer.clone(),
            workers,
            worker_restarts: self.restarts.clone(),
            deadline_kills: self.deadline_kills,
            late_replies_dropped: self.late_replies_dropped,
            circuit_open: self.circuit_open,
        }
    }
}

impl Metrics {
    /// Whether every accepted job is accounted for exactly once. It always is; tests ask.
    pub fn is_balanced(&self) -> bool {
        let open = self.n_queued as u64 + self.n_running as u64;
        self.jobs_accepted == self.jobs_completed + self.jobs_failed.total() + open
    }
}

impl FailureKind {
    /// All kinds, in the order in which they are written.
    pub const ALL: [FailureKind; 12] = [
        FailureKind::App,
        FailureKind::Panicked,
        FailureKind::Timeout,
        FailureKind::Cancelled,
        FailureKind::Closed,
        FailureKind::Crashed,
        FailureKind::OutOfMemory,
        FailureKind::Protocol,
        FailureKind::Quarantined,
        FailureKind::Incompatible,
        FailureKind::CircuitOpen,
        FailureKind::DeviceLost,
    ];

    /// The kind's name as a label.
    pub fn label(self) -> &'static str {
        match self {
            FailureKind::App => "app",
            FailureKind::Panicked => "panicked",
            FailureKind::Timeout => "timeout",
            FailureKind::Cancelled => "cancelled",
            FailureKind::Closed => "closed",
            FailureKind::Crashed => "crashed",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::Protocol => "protocol",
            FailureKind::Quarantined => "quarantined",
            FailureKind::Incompatible => "incompatible",
            FailureKind::CircuitOpen => "circuit_open",
            FailureKind::DeviceLost => "device_lost",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl JobError {
    /// Which kind of failure this is, to count by.
    pub fn kind(&self) -> FailureKind {
        match self {
            JobError::App(_) => FailureKind::App,
            JobError::Panicked(_) => FailureKind::Panicked,
            JobError::Timeout => FailureKind::Timeout,
            JobError::Cancelled => FailureKind::Cancelled,
            JobError::Closed => FailureKind::Closed,
            JobError::Crashed { .. } => FailureKind::Crashed,
            JobError::OutOfMemory => FailureKind::OutOfMemory,
            JobError::Protocol(_) => FailureKind::Protocol,
            JobError::Quarantined { .. } => FailureKind::Quarantined,
            JobError::Incompatible { .. } => FailureKind::Incompatible,
            JobError::CircuitOpen => FailureKind::CircuitOpen,
            JobError::DeviceLost => FailureKind::DeviceLost,
        }
    }
}

impl Failures {
    /// How many jobs failed so.
    pub fn of(&self, kind: FailureKind) -> u64 {
        self.counts[kind as usize]
    }

    /// How many jobs failed.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Every kind with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        FailureKind::ALL.into_iter().map(|kind| (kind, self.of(kind)))
    }

    pub(crate) fn add(&mut self, kind: FailureKind) {
        self.counts[kind as usize] += 1;
    }
}

impl Histogram {
    /// Upper bounds in seconds, inclusive: from a hop between threads to a large picture on a slow machine.
    pub const BOUNDS_S: [f64; 15] =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

    /// How many durations were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Each bound in seconds with the number of durations no longer than it; last infinity with all of them.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = Histogram::BOUNDS_S.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts).scan(0, |sum, (bound_s, count)| {
            *sum += count;
            Some((bound_s, *sum))
        })
    }

    pub(crate) fn observe(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        self.counts[Histogram::BOUNDS_S.partition_point(|bound_s| *bound_s < took_s)] += 1;
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_in_their_own_places() {
        let mut failures = Failures::default();
        for (idx, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, idx, "{kind} is listed out of order");
            failures.add(kind);
        }
        assert!(failures.iter().all(|(_, count)| count == 1));
        assert_eq!(failures.total(), 12);
    }

    #[test]
    fn bounds_are_inclusive_and_rise() {
        assert!(Histogram::BOUNDS_S.is_sorted_by(|a, b| a < b));
        let mut histogram = Histogram::default();
        for took_ms in [1, 2, 60_000] {
            histogram.observe(Duration::from_millis(took_ms));
        }
        let at = |bound_s| histogram.cumulated().find(|(at, _)| *at == bound_s).map(|(_, count)| count);
        assert_eq!(at(0.0005), Some(0));
        assert_eq!(at(0.001), Some(1));
        assert_eq!(at(0.0025), Some(2));
        assert_eq!(at(10.0), Some(2));
        assert_eq!(at(f64::INFINITY), Some(3));
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum(), Duration::from_millis(60_003));
    }
}
