//! The law of the accounting: whatever is done to it, one step after the other, it agrees with a plain model of a queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::core::{Claim, Claimed, Core};
use super::submit::Rejected;
use crate::error::JobError;
use crate::metrics::FailureKind;
use crate::sync::{Deadline, lock};

const N_CASES: u32 = 10_000;
const MAX_STEPS: usize = 60;

/// One step. Numbers choose among what there is: a claim that is held, a job that was accepted.
#[derive(Clone, Debug)]
enum Step {
    Submit,
    Claim,
    Finish(usize, End),
    /// The worker is given up by somebody else, and goes on.
    RetryElsewhere(usize),
    /// The deadline passes; nothing happens by itself.
    Pass(usize),
    Expire,
    Cancel(usize),
    Abandon(usize),
    Take(usize),
    Close,
    Stop,
    Abort,
}

/// How a worker ends a claim.
#[derive(Clone, Copy, Debug)]
enum End {
    Result,
    Error,
    Killed,
    Death,
    Retry,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || any::<usize>();
    let end = prop_oneof![
        4 => Just(End::Result),
        1 => Just(End::Error),
        1 => Just(End::Killed),
        1 => Just(End::Death),
        2 => Just(End::Retry),
    ];
    let step = prop_oneof![
        12 => Just(Step::Submit),
        10 => Just(Step::Claim),
        8 => (which(), end).prop_map(|(claim, end)| Step::Finish(claim, end)),
        2 => which().prop_map(Step::RetryElsewhere),
        3 => which().prop_map(Step::Pass),
        2 => Just(Step::Expire),
        3 => which().prop_map(Step::Cancel),
        2 => which().prop_map(Step::Abandon),
        5 => which().prop_map(Step::Take),
        1 => Just(Step::Close),
        1 => Just(Step::Stop),
        1 => Just(Step::Abort),
    ];
    prop::collection::vec(step, 1..MAX_STEPS)
}

type Outcome = Result<u64, FailureKind>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Queued,
    /// With the attempt whose answer counts.
    Running(u32),
    Done,
}

#[derive(Debug)]
struct Job {
    stage: Stage,
    n_attempts: u32,
    is_late: bool,
    has_ticket: bool,
    outcome: Option<Outcome>,
}

/// A queue as one would describe it.
#[derive(Debug, Default)]
struct Reference {
    capacity: usize,
    is_closed: bool,
    is_stopped: bool,
    jobs: Vec<Job>,
    queue: VecDeque<usize>,
    n_completed: u64,
    n_failed: BTreeMap<FailureKind, u64>,
    n_retried: u64,
    n_dropped: u64,
}

impl Reference {
    fn submit(&mut self) -> Result<usize, bool> {
        if self.is_closed || self.queue.len() >= self.capacity {
            return Err(self.is_closed);
        }
        self.queue.push_back(self.jobs.len());
        let stage = Stage::Queued;
        self.jobs.push(Job { stage, n_attempts: 0, is_late: false, has_ticket: true, outcome: None });
        Ok(self.jobs.len() - 1)
    }

    fn claim(&mut self) -> Option<(usize, u32)> {
        while let Some(id) = self.queue.pop_front() {
            if self.jobs[id].is_late {
                self.end(id, Err(FailureKind::Timeout));
                continue;
            }
            let job = &mut self.jobs[id];
            job.n_attempts += 1;
            job.stage = Stage::Running(job.n_attempts);
            return Some((id, job.n_attempts));
        }
        None
    }

    fn finish(&mut self, (id, attempt): (usize, u32), outcome: Outcome) -> bool {
        let is_reply = matches!(outcome, Ok(_) | Err(FailureKind::App));
        let counts = self.jobs[id].stage == Stage::Running(attempt);
        let is_late = self.jobs[id].is_late;
        if counts {
            self.end(id, if is_late { Err(FailureKind::Timeout) } else { outcome });
        }
        if !counts || is_late {
            self.n_dropped += u64::from(is_reply);
        }
        counts && !is_late
    }

    fn retry(&mut self, (id, attempt): (usize, u32)) -> bool {
        if self.jobs[id].stage != Stage::Running(attempt) {
            return false;
        }
        if self.is_stopped {
            self.end(id, Err(FailureKind::Closed));
            return false;
        }
        self.jobs[id].stage = Stage::Queued;
        self.queue.push_front(id);
        self.n_retried += 1;
        true
    }

    fn end_all(&mut self, kind: FailureKind, is_chosen: impl Fn(&Job) -> bool) {
        for id in 0..self.jobs.len() {
            if self.jobs[id].stage != Stage::Done && is_chosen(&self.jobs[id]) {
                self.end(id, Err(kind));
            }
        }
    }

    fn end(&mut self, id: usize, outcome: Outcome) {
        self.queue.retain(|queued| *queued != id);
        self.jobs[id].stage = Stage::Done;
        self.jobs[id].outcome = Some(outcome);
        match outcome {
            Ok(_) => self.n_completed += 1,
            Err(kind) => *self.n_failed.entry(kind).or_default() += 1,
        }
    }

    fn n_running(&self) -> usize {
        self.jobs.iter().filter(|job| matches!(job.stage, Stage::Running(_))).count()
    }
}

/// The real queue and its model, and what a test holds of both.
struct Pair<'a> {
    core: &'a Core<u64, u64>,
    reference: Reference,
    /// Set when the job's deadline passes.
    clocks: Vec<Arc<Mutex<bool>>>,
    claims: Vec<(Claim<'a, u64, u64>, usize, u32)>,
}

fn error_of(kind: FailureKind) -> JobError {
    match kind {
        FailureKind::App => JobError::App("refused".into()),
        FailureKind::OutOfMemory => JobError::OutOfMemory,
        other => unreachable!("workers of this test don't end in {other}"),
    }
}

impl Pair<'_> {
    fn step(&mut self, step: &Step) {
        let passed = Deadline::Manual(Arc::new(Mutex::new(true)));
        let n_jobs = self.reference.jobs.len();
        let n_claims = self.claims.len();
        match *step {
            Step::Submit => {
                let clock = Arc::new(Mutex::new(false));
                let deadline = Deadline::Manual(Arc::clone(&clock));
                let job = n_jobs as u64;
                match (self.core.submit(job, deadline, &passed), self.reference.submit()) {
                    (Ok(id), Ok(expected)) => assert_eq!(id, expected as u64),
                    (Err(Rejected::Full(back)), Err(false)) | (Err(Rejected::Closed(back)), Err(true)) => {
                        assert_eq!(back, job);
                        return;
                    }
                    other => panic!("{other:?}"),
                }
                self.clocks.push(clock);
            }
            Step::Claim => match (self.core.claim(&passed), self.reference.claim()) {
                (Claimed::Job(claim, job), Some((id, attempt))) => {
                    assert_eq!((claim.key().id, job, claim.attempt()), (id as u64, id as u64, attempt));
                    self.claims.push((claim, id, attempt));
                }
                (Claimed::Nothing, None) => assert!(!self.is_over()),
                (Claimed::Over, None) => assert!(self.is_over()),
                other => panic!("{other:?}"),
            },
            Step::Finish(which, end) if n_claims > 0 => {
                let (claim, id, attempt) = self.claims.swap_remove(which % n_claims);
                // Told apart by attempt, so that the answer of another one would show.
                let result = 100 * id as u64 + u64::from(attempt);
                let now = (id, attempt);
                let (counts, expected) = match end {
                    End::Result => (claim.finish(Ok(result)), self.reference.finish(now, Ok(result))),
                    End::Error | End::Killed => {
                        let is_reply = matches!(end, End::Error);
                        let kind = if is_reply { FailureKind::App } else { FailureKind::OutOfMemory };
                        (claim.finish(Err(error_of(kind))), self.reference.finish(now, Err(kind)))
                    }
                    End::Retry => (claim.retry(id as u64), self.reference.retry(now)),
                    End::Death => {
                        drop(claim);
                        self.reference.finish(now, Err(FailureKind::Crashed));
                        return;
                    }
                };
                assert_eq!(counts, expected, "{step:?}");
            }
            Step::RetryElsewhere(which) if n_claims > 0 => {
                let (claim, id, attempt) = &self.claims[which % n_claims];
                let requeued = self.core.retry(claim.key(), *id as u64);
                assert_eq!(requeued, self.reference.retry((*id, *attempt)));
            }
            Step::Pass(which) if n_jobs > 0 => {
                *lock(&self.clocks[which % n_jobs]) = true;
                self.reference.jobs[which % n_jobs].is_late = true;
            }
            Step::Expire => {
                self.core.expire();
                self.reference.end_all(FailureKind::Timeout, |job| job.is_late);
            }
            Step::Cancel(which) if n_jobs > 0 => {
                let id = which % n_jobs;
                let is_open = self.reference.jobs[id].stage != Stage::Done;
                assert_eq!(self.core.cancel(id as u64), is_open);
                if is_open {
                    self.reference.end(id, Err(FailureKind::Cancelled));
                }
            }
            Step::Abandon(which) if n_jobs > 0 => {
                let job = &mut self.reference.jobs[which % n_jobs];
                if std::mem::replace(&mut job.has_ticket, false) {
                    self.core.abandon((which % n_jobs) as u64);
                }
            }
            Step::Take(which) if n_jobs > 0 => {
                let job = &mut self.reference.jobs[which % n_jobs];
                if job.has_ticket {
                    let outcome = self.core.wait_outcome((which % n_jobs) as u64, &passed);
                    assert_eq!(outcome.map(|outcome| outcome.map_err(|error| error.kind())), job.outcome);
                    job.has_ticket = job.outcome.is_none();
                }
            }
            Step::Close => {
                self.core.close();
                self.reference.is_closed = true;
            }
            Step::Stop => {
                assert_eq!(self.core.stop(|| JobError::Closed), self.reference.queue.len());
                (self.reference.is_closed, self.reference.is_stopped) = (true, true);
                self.reference.end_all(FailureKind::Closed, |job| job.stage == Stage::Queued);
            }
            Step::Abort => {
                let n_open = self.reference.queue.len() + self.reference.n_running();
                assert_eq!(self.core.abort(|| JobError::Closed), n_open);
                (self.reference.is_closed, self.reference.is_stopped) = (true, true);
                self.reference.end_all(FailureKind::Closed, |_| true);
            }
            _ => {}
        }
    }

    fn is_over(&self) -> bool {
        self.reference.is_closed && self.reference.queue.is_empty() && self.reference.n_running() == 0
    }

    fn check(&self) {
        let metrics = self.core.metrics();
        let reference = &self.reference;
        assert!(metrics.is_balanced(), "{metrics}");
        assert_eq!(metrics.jobs_accepted, reference.jobs.len() as u64);
        assert_eq!(metrics.jobs_completed, reference.n_completed);
        for (kind, count) in metrics.jobs_failed.iter() {
            assert_eq!(count, reference.n_failed.get(&kind).copied().unwrap_or(0), "{kind}");
        }
        assert_eq!(metrics.job_retries, reference.n_retried);
        assert_eq!(metrics.late_replies_dropped, reference.n_dropped);
        assert_eq!((metrics.n_queued, metrics.n_running), (reference.queue.len(), reference.n_running()));
        assert_eq!(metrics.workers.busy, self.claims.len());
        assert_eq!(self.core.is_closed(), reference.is_closed);
        let has_outcome = |job: &&Job| job.has_ticket && job.outcome.is_some();
        assert_eq!(self.core.n_outcomes(), reference.jobs.iter().filter(has_outcome).count());
    }
}

fn check(capacity: usize, steps: &[Step]) {
    let core = Core::new("model".to_owned(), capacity, 2);
    let reference = Reference { capacity, ..Reference::default() };
    let mut pair = Pair { core: &core, reference, clocks: Vec::new(), claims: Vec::new() };
    for step in steps {
        pair.step(step);
        pair.check();
    }
    // Whatever is still held ends with its worker; then every ticket can be resolved.
    for (claim, id, attempt) in std::mem::take(&mut pair.claims) {
        drop(claim);
        pair.reference.finish((id, attempt), Err(FailureKind::Crashed));
    }
    pair.step(&Step::Stop);
    pair.check();
    for id in 0..pair.reference.jobs.len() {
        pair.step(&Step::Take(id));
    }
    assert_eq!(core.n_outcomes(), 0);
    assert!(core.wait_over(&Deadline::Never));
}

#[test]
fn a_queue_does_what_its_model_does() {
    let config = ProptestConfig { cases: N_CASES, failure_persistence: None, ..ProptestConfig::default() };
    let cases = (1_usize..4, steps());
    let law = |(capacity, steps): (usize, Vec<Step>)| {
        check(capacity, &steps);
        Ok(())
    };
    TestRunner::new(config).run(&cases, law).unwrap_or_else(|error| panic!("{error}"));
}
