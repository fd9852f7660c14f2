//! A worker: a thread that builds its own instance of the handler and runs jobs with it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::core::{Claimed, Core};
use super::discard;
use crate::error::{AppError, JobError};
use crate::sync::Deadline;

/// Runs jobs until the queue is over. `first` is the instance to begin with, `build` makes the ones after a panic.
pub(super) fn work<J, O, W, A>(core: &Core<J, O>, first: W, build: impl Fn() -> Result<W, JobError>)
where
    W: FnMut(J) -> Result<O, A>,
    A: Into<AppError>,
{
    let mut handler = Some(first);
    while let Claimed::Job(claim, job) = core.claim(&Deadline::Never) {
        let mut instance = match handler.take().map_or_else(&build, Ok) {
            Ok(instance) => instance,
            Err(error) => {
                discard(job);
                claim.finish(Err(error));
                continue;
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| instance(job).map_err(Into::into)));
        match result {
            Ok(result) => {
                handler = Some(instance);
                claim.finish(result.map_err(JobError::App));
            }
            Err(payload) => {
                core.count(|counters| *counters.restarts.entry("panic").or_default() += 1);
                claim.finish(Err(JobError::Panicked(message_of(payload))));
                discard(instance);
            }
        }
    }
    discard(handler);
}

/// What a panic said.
pub(crate) fn message_of(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a value that is not text".to_owned(),
    };
    discard(payload);
    message
}
