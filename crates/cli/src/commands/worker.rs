//! `ferroyolo worker`: the other end of `--policy process`.

use ferroyolo_concurrency::engine;

use crate::args::Worker;
use crate::error::{Error, Outcome, Result};
use crate::model;

/// Runs jobs until the process that started this one says to leave.
pub fn run(args: &Worker) -> Result<Outcome> {
    let load = || model::load(&args.model, args.model.threads, true).map(|loaded| loaded.model);
    let served = engine::serve(|| load().map_err(|error| error.chain()));
    served.map(|()| Outcome::Done).map_err(|error| Error::named("worker", error))
}
