//! The text format of Prometheus, version 0.0.4.
//!
//! Each family of numbers has one `HELP` and one `TYPE`, and all its samples follow them. So what is to be on one page is
//! written family by family, not queue by queue.

use std::collections::BTreeSet;
use std::fmt;

use super::{FailureKind, Histogram, LockMetrics, Metrics};

/// Snapshots of several queues, pools and locks as one page; `Display` writes it in the text format of Prometheus.
///
/// Of several with one name, the second is called `name-2` and so on, since no two samples may have the same labels.
///
/// ```
/// use ferroyolo_concurrency::{Locked, TaskQueue, metrics::Page};
///
/// let builder = || TaskQueue::builder().capacity(4);
/// let small = builder().name("small").start(|_| Ok::<_, String>(|n: u64| Ok::<_, String>(n)))?;
/// let large = builder().name("large").start(|_| Ok::<_, String>(|n: u64| Ok::<_, String>(n)))?;
/// let camera = Locked::new(());
/// let page = Page::new().queue(small.metrics()).queue(large.metrics()).lock(camera.metrics("camera"));
/// assert_eq!(page.to_string().matches("# TYPE ferroyolo_queue_depth gauge").count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Page {
    queues: Vec<Metrics>,
    locks: Vec<LockMetrics>,
}

impl Page {
    /// A page with nothing on it.
    #[must_use]
    pub fn new() -> Page {
        Page::default()
    }

    /// With the numbers of a queue or a pool of processes.
    #[must_use]
    pub fn queue(mut self, metrics: Metrics) -> Page {
        self.queues.push(metrics);
        self
    }

    /// With the numbers of a lock or a pool of instances.
    #[must_use]
    pub fn lock(mut self, metrics: LockMetrics) -> Page {
        self.locks.push(metrics);
        self
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = labels("queue", self.queues.iter().map(|metrics| &*metrics.name));
        queues(f, &labels.iter().zip(&self.queues).collect::<Vec<_>>())?;
        let labels = self::labels("lock", self.locks.iter().map(|metrics| &*metrics.name));
        locks(f, &labels.iter().zip(&self.locks).collect::<Vec<_>>())
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        queues(f, &[(&label("queue", &self.name), self)])
    }
}

impl fmt::Display for LockMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        locks(f, &[(&label("lock", &self.name), self)])
    }
}

/// Snapshots, each with the label of all its samples.
type Labelled<'a, M> = [(&'a String, &'a M)];

fn queues(f: &mut fmt::Formatter<'_>, all: &Labelled<'_, Metrics>) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let mut text = Families { f, all };
    text.single("jobs_accepted_total", "Jobs that were accepted.", |of| of.jobs_accepted)?;
    text.single("jobs_completed_total", "Jobs that have a result.", |of| of.jobs_completed)?;
    text.several("jobs_failed_total", "Jobs that have an error, by kind.", |of| {
        of.jobs_failed.iter().map(|(kind, count)| (format!("kind=\"{kind}\""), count)).collect()
    })?;
    text.single("job_retries_total", "Attempts that were given up to be begun anew.", |of| of.job_retries)?;
    text.single("jobs_quarantined_total", "Jobs that were refused as killers of workers.", |of| {
        of.jobs_failed.of(FailureKind::Quarantined)
    })?;
    text.single("queue_depth", "Jobs that wait for a worker.", |of| of.n_queued as u64)?;
    text.single("jobs_running", "Jobs that a worker is at.", |of| of.n_running as u64)?;
    text.histogram("queue_wait_seconds", "How long jobs waited for a worker.", |of| &of.queue_wait)?;
    text.histogram("infer_seconds", "How long workers were at a job.", |of| &of.infer)?;
    text.several("workers", "Workers, by what they are doing.", |of| {
        let states = [("idle", of.workers.idle), ("busy", of.workers.busy), ("away", of.workers.away)];
        states.map(|(state, n)| (format!("state=\"{state}\""), n as u64)).into()
    })?;
    text.several("worker_restarts_total", "Workers that were replaced, by reason.", |of| {
        of.worker_restarts.iter().map(|(reason, n)| (format!("reason=\"{}\"", escaped(reason)), *n)).collect()
    })?;
    text.single("deadline_kills_total", "Workers killed because a deadline had passed.", |of| {
        of.deadline_kills
    })?;
    text.single("late_replies_dropped_total", "Results that came after the outcome.", |of| {
        of.late_replies_dropped
    })?;
    text.single("circuit_open", "Whether no more workers are started.", |of| u64::from(of.circuit_open))
}

fn locks(f: &mut fmt::Formatter<'_>, all: &Labelled<'_, LockMetrics>) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let mut text = Families { f, all };
    text.histogram("lock_wait_seconds", "How long callers waited for their turn.", |of| &of.lock_wait)?;
    text.single("lock_waiting", "Callers that wait for their turn.", |of| of.n_waiting as u64)
}

/// Writes families, each with the samples of all snapshots.
struct Families<'a, 'f, M> {
    f: &'a mut fmt::Formatter<'f>,
    all: &'a Labelled<'a, M>,
}

impl<M> Families<'_, '_, M> {
    /// What ends in `_total` only grows, and is a counter; other plain numbers are gauges.
    fn head(&mut self, name: &str, help: &str) -> fmt::Result {
        let kind = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_seconds") => "histogram",
            _ => "gauge",
        };
        writeln!(self.f, "# HELP ferroyolo_{name} {help}\n# TYPE ferroyolo_{name} {kind}")
    }

    fn single(&mut self, name: &str, help: &str, value: impl Fn(&M) -> u64) -> fmt::Result {
        self.several(name, help, |of| vec![(String::new(), value(of))])
    }

    /// A sample for each of the labels that `values` gives.
    fn several(&mut self, name: &str, help: &str, values: impl Fn(&M) -> Vec<(String, u64)>) -> fmt::Result {
        self.head(name, help)?;
        for (labels, of) in self.all {
            for (label, value) in values(of) {
                sample(self.f, name, [labels, &label], value)?;
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, of: impl Fn(&M) -> &Histogram) -> fmt::Result {
        self.head(name, help)?;
        for (labels, metrics) in self.all {
            let histogram = of(metrics);
            for (bound_s, count) in histogram.cumulated() {
                let bound = if bound_s.is_finite() { bound_s.to_string() } else { "+Inf".to_owned() };
                sample(self.f, &format!("{name}_bucket"), [labels, &format!("le=\"{bound}\"")], count)?;
            }
            sample(self.f, &format!("{name}_sum"), [labels, ""], histogram.sum().as_secs_f64())?;
            sample(self.f, &format!("{name}_count"), [labels, ""], histogram.count())?;
        }
        Ok(())
    }
}

fn sample(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    [labels, label]: [&str; 2],
    value: impl fmt::Display,
) -> fmt::Result {
    let comma = if label.is_empty() { "" } else { "," };
    writeln!(f, "ferroyolo_{name}{{{labels}{comma}{label}}} {value}")
}

/// A label for each name, no two the same.
fn labels<'a>(key: &str, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let given: BTreeSet<&str> = names.clone().collect();
    let mut taken = BTreeSet::new();
    let unique = |name: &str| {
        let numbered = (2..).map(|number: u64| format!("{name}-{number}"));
        // A name that somebody gave is theirs.
        let mut free = numbered.filter(|other| !given.contains(&**other));
        let mut name = name.to_owned();
        while !taken.insert(name.clone()) {
            name = free.next().unwrap_or_default();
        }
        label(key, &name)
    };
    names.map(unique).collect()
}

fn label(key: &str, value: &str) -> String {
    format!("{key}=\"{}\"", escaped(value))
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
