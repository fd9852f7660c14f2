//! Who runs the network: threads that share a model, or worker processes.
//!
//! A [`Crew`] takes batches of pictures and gives back what was found in each, in the order of the batches and with
//! nothing lost: a picture that fails, panics or crashes its worker costs that picture.

mod processes;
mod threads;

use std::fmt;
use std::str::FromStr;
use std::thread;

use ferroyolo::{Image, Results};
use ferroyolo_concurrency::engine::Policy;

use crate::error::{Error, Result};
use crate::input::pipeline::{Decode, Label, Picture};

pub use processes::ProcessCrew;
pub use threads::ThreadCrew;

/// How workers share the model, `--policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Threads of this process.
    Threads(Policy),
    /// Processes of their own.
    Processes,
}

impl Sharing {
    /// All ways, in the order in which they are told.
    pub const ALL: [Sharing; 5] = [
        Sharing::Threads(Policy::Shared),
        Sharing::Threads(Policy::Locked),
        Sharing::Threads(Policy::PerThread),
        Sharing::Threads(Policy::Pool),
        Sharing::Processes,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Sharing::Threads(policy) => policy.as_str(),
            Sharing::Processes => "process",
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Sharing, String> {
        Sharing::ALL
            .into_iter()
            .find(|sharing| sharing.as_str() == name)
            .ok_or_else(|| "expected shared, locked, per-thread, pool or process".into())
    }
}

/// How many workers there are, and how many threads each may use for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staffing {
    /// How they share the model.
    pub sharing: Sharing,
    /// Batches that are worked on at the same time.
    pub n_workers: usize,
    /// Threads of the network for each; all CPUs if absent.
    pub threads: Option<usize>,
    /// Pictures in a batch, at most.
    pub batch: usize,
}

impl Staffing {
    /// What the flags ask for.
    ///
    /// Without flags one worker uses all CPUs. A policy alone gets a worker for each CPU; several workers divide the
    /// CPUs among them, unless `threads` says otherwise. Under a lock one call at a time runs, and may use all CPUs.
    pub fn of(policy: Option<Sharing>, workers: Option<usize>, threads: Option<usize>) -> Staffing {
        let n_cpus = thread::available_parallelism().map_or(1, usize::from);
        Staffing::on(n_cpus, policy, workers, threads)
    }

    /// The same with batches of another size.
    pub fn with_batch(self, batch: usize) -> Staffing {
        Staffing { batch, ..self }
    }

    /// Batches that go through the network at the same time, at most.
    pub fn at_a_time(self) -> usize {
        if self.sharing == Sharing::Threads(Policy::Locked) { 1 } else { self.n_workers }
    }

    fn on(
        n_cpus: usize,
        policy: Option<Sharing>,
        workers: Option<usize>,
        threads: Option<usize>,
    ) -> Staffing {
        let sharing = policy.unwrap_or(Sharing::Threads(Policy::Shared));
        let n_workers = workers.unwrap_or(if policy.is_some() { n_cpus } else { 1 });
        let staffing = Staffing { sharing, n_workers, threads, batch: 1 };
        let at_a_time = staffing.at_a_time();
        let threads = threads.or_else(|| (at_a_time > 1).then(|| (n_cpus / at_a_time).max(1)));
        Staffing { threads, ..staffing }
    }
}

/// What became of one picture.
#[derive(Debug)]
pub struct Predicted {
    /// What it is called.
    pub label: Label,
    /// The pixels, if they were decoded in this process.
    pub image: Option<Image>,
    /// What was found, or why nothing could be.
    pub results: Result<Results>,
}

/// What is told of a batch that is done picture by picture.
fn batch_failed(n: usize, error: &Error) -> String {
    format!("a batch of {n} failed and is done one by one: {}", error.chain())
}

/// Workers that take batches of pictures.
pub trait Crew: Sync {
    /// A picture as the workers want it.
    type Source: Send + 'static;
    /// A batch on its way.
    type Pending: Send;

    /// Makes a picture ready for the workers.
    const DECODE: Decode<Self::Source>;

    /// Hands in a batch; waits if too many are on their way.
    fn submit(&self, batch: Vec<Picture<Self::Source>>) -> Self::Pending;

    /// Waits for a batch and gives what became of its pictures, in their order.
    fn finish(&self, pending: Self::Pending) -> Vec<Predicted>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for sharing in Sharing::ALL {
            assert_eq!(sharing.as_str().parse(), Ok(sharing));
        }
        assert!("Shared".parse::<Sharing>().is_err() && "".parse::<Sharing>().is_err());
    }

    #[test]
    fn cpus_are_divided_among_workers() {
        let pool = Some(Sharing::Threads(Policy::Pool));
        let locked = Some(Sharing::Threads(Policy::Locked));
        let check = |policy, workers, threads, expected| {
            let staffing = Staffing::on(8, policy, workers, threads);
            assert_eq!((staffing.n_workers, staffing.threads), expected);
        };
        check(None, None, None, (1, None));
        check(None, Some(4), None, (4, Some(2)));
        check(pool, None, None, (8, Some(1)));
        check(pool, Some(3), None, (3, Some(2)));
        check(pool, Some(16), None, (16, Some(1)));
        check(pool, Some(2), Some(8), (2, Some(8)));
        check(locked, Some(4), None, (4, None));
        check(Some(Sharing::Processes), Some(2), None, (2, Some(4)));
    }
}
