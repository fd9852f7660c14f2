//! A slot of the pool: takes jobs from the queue and has them run by the slot's worker, whichever that is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::Tag;
use super::link::Link;
use super::quarantine::Quarantine;
use super::roster::{Answer, Death, Gate, Hopeless, Reason, Roster};
use super::settings::Settings;
use crate::error::JobError;
use crate::queue::core::{Claim, Claimed, Core};
use crate::sync::{Deadline, Mutex, lock};

/// A job as the queue knows it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) bytes: Vec<u8>,
    /// Workers that died while they were at it.
    pub(crate) n_deaths: u32,
    /// Times that it was claimed and put back without being begun.
    pub(crate) n_passes: u32,
}

/// What the threads of a pool share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core<Work, Vec<u8>>>,
    pub(crate) roster: Roster<Arc<Link>>,
    pub(crate) quarantine: Mutex<Quarantine>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) start: Instant,
}

type Held<'a> = Claim<'a, Work, Vec<u8>>;

/// Runs jobs until the queue is over.
pub(crate) fn drive(shared: &Shared, slot: usize) {
    loop {
        // A job is claimed only when it can be run, so that it does not wait here while another slot is free; or when
        // none can, to say so.
        if shared.roster.wait_ready(slot) == Gate::Closed {
            return;
        }
        let Claimed::Job(claim, work) = shared.core.claim(&Deadline::Never) else { return };
        if let Some(error) = shared.refusal(&work) {
            claim.finish(Err(error));
            continue;
        }
        let tag = Tag { job: claim.key().id, generation: claim.key().generation };
        match shared.roster.assign(slot, tag, shared.deadline(&claim)) {
            Some(worker) => {
                // If it fails the worker is as good as dead; what is known of its death comes as the answer.
                if worker.send(tag, &work.bytes).is_err() {
                    worker.kill();
                }
                let answer = shared.roster.await_answer(slot);
                shared.conclude(claim, work, answer);
            }
            None => match shared.roster.hopeless() {
                Some(why) => {
                    claim.finish(Err(why.into()));
                }
                // The worker died while nobody looked. Others may be free.
                None => {
                    claim.put_back(Work { n_passes: work.n_passes + 1, ..work });
                }
            },
        }
    }
}

impl Shared {
    /// Why the job is not to be tried.
    fn refusal(&self, work: &Work) -> Option<JobError> {
        let kills = lock(&self.quarantine).n_kills(&work.bytes);
        if kills >= self.settings.quarantine_after {
            return Some(JobError::Quarantined { kills });
        }
        let (len, max) = (work.bytes.len(), self.settings.max_frame);
        (len > max).then(|| JobError::Protocol(format!("the job has {len} bytes, at most {max} are allowed")))
    }

    /// When the attempt has to be given up, since the pool was made.
    fn deadline(&self, claim: &Held<'_>) -> Option<Duration> {
        let attempt = self.settings.deadline.map(|limit| self.start.elapsed().saturating_add(limit));
        let job = match claim.deadline() {
            Deadline::At(at) => Some(at.saturating_duration_since(self.start)),
            _ => None,
        };
        attempt.into_iter().chain(job).min()
    }

    fn conclude(&self, claim: Held<'_>, work: Work, answer: Answer) {
        match answer {
            Answer::Done(reply) => {
                if work.n_deaths > 0 {
                    // It was not the input that killed the others.
                    lock(&self.quarantine).forget(&work.bytes);
                }
                claim.finish(Ok(reply));
            }
            Answer::App(message) => {
                claim.finish(Err(JobError::App(message.into())));
            }
            Answer::Panicked(message) => {
                claim.finish(Err(JobError::Panicked(message)));
            }
            Answer::TimedOut => {
                claim.finish(Err(JobError::Timeout));
            }
            Answer::Died(death) => self.bereave(claim, work, death),
        }
    }

    /// Tries a job again whose worker died, or answers it.
    fn bereave(&self, claim: Held<'_>, work: Work, death: Death) {
        match death.reason {
            Reason::Closed => {
                claim.finish(Err(JobError::Closed));
                return;
            }
            Reason::OutOfMemory => {
                claim.finish(Err(JobError::OutOfMemory));
                return;
            }
            _ => {}
        }
        if death.is_blameless {
            claim.retry(work);
            return;
        }
        let kills = lock(&self.quarantine).note(&work.bytes);
        let n_deaths = work.n_deaths + 1;
        if kills >= self.settings.quarantine_after && n_deaths > 1 {
            claim.finish(Err(JobError::Quarantined { kills }));
        } else if n_deaths > self.settings.n_retries {
            let attempt = claim.attempt() - work.n_passes;
            claim.finish(Err(error_of(death, attempt)));
        } else {
            claim.retry(Work { n_deaths, ..work });
        }
    }
}

fn error_of(death: Death, attempt: u32) -> JobError {
    let Death { reason, signal, code, mut stderr, .. } = death;
    match reason {
        Reason::Protocol(what) => return JobError::Protocol(what),
        Reason::Incompatible(got) => return JobError::Incompatible { want: super::frame::VERSION, got },
        Reason::Silent => stderr.push_str("\nit gave no sign of life and was killed"),
        _ => {}
    }
    JobError::Crashed { signal, code, attempt, stderr }
}

impl From<Hopeless> for JobError {
    fn from(why: Hopeless) -> JobError {
        match why {
            Hopeless::CircuitOpen => JobError::CircuitOpen,
            Hopeless::Incompatible(got) => JobError::Incompatible { want: super::frame::VERSION, got },
        }
    }
}
