//! A bounded queue of jobs whose workers are processes.
//!
//! **Choose it** when a job may take the whole process with it: pictures from strangers, native decoders, models whose
//! memory is not bounded. A worker that crashes, hangs, or runs out of memory costs one process and, at most, the job it
//! was at; the pool starts another.
//!
//! **It costs** a process with its own model for each worker, four threads of the parent for each worker, and a hop: the
//! job's bytes go through a socket and so do the result's. `cargo run --release --example process_hop` measures it;
//! half a megabyte takes some tenths of a millisecond. (Shared memory would save one copy of the two; it is not used,
//! because that is less than what decoding the same bytes takes by two orders of magnitude.)
//!
//! **It promises**
//!
//! - Every accepted job has exactly one outcome, as in a [`TaskQueue`](crate::TaskQueue). A job that was not accepted is
//!   handed back.
//! - A job *begins at least once and is answered exactly once*: after the death of its worker it is tried again on
//!   another, up to [`retries`](Builder::retries) times. So handlers have to be free of side effects that must not happen
//!   twice, as inference is. An answer of an attempt that was given up is dropped.
//! - An input that killed [`quarantine_after`](Builder::quarantine_after) workers is not tried any more, now and when it
//!   is submitted again: [`JobError::Quarantined`]. It is known by its contents; a bounded number of them is remembered.
//! - At its deadline a job has the outcome [`JobError::Timeout`] and its worker is killed. Workers that give no sign of
//!   life are killed, too, and their job is tried again. A cancelled job's worker goes on; what it gives is dropped.
//! - A handler's error, its panic, a crash with its signal, no memory, and a broken protocol are told apart:
//!   [`JobError`]. What ran out of memory by [`Limits::address_space`] is [`JobError::OutOfMemory`] and is not tried
//!   again; what the system's out-of-memory killer ended shows as a crash by signal 9, as it can't be told from others.
//! - Dead workers are replaced by the [`RestartPolicy`]; after too many deaths in a row the circuit opens and jobs fail
//!   with [`JobError::CircuitOpen`], until a worker that is tried after a while works.
//! - After [`close`](ProcessPool::close) the accepted jobs run and nothing else does. After
//!   [`drain`](ProcessPool::drain) or the drop of the pool no worker is started, none is left, and none has become a
//!   zombie. If this process is killed the workers end: their channel does, and on Linux the system kills them.
//!
//! Workers are programs that are started anew, never forks: see [`WorkerCommand`] and [`worker`]. They are in a process
//! group of their own, so that Ctrl-C in a terminal reaches only the parent, which can drain: [`signals`].
//!
//! On Linux all of this holds. On macOS a worker that is stopped while its parent is killed lives until it is continued.
//! On Windows the channel is a pair of pipes, limits are ignored, and what a killed worker itself started lives on.
//!
//! ```no_run
//! use ferroyolo_concurrency::process::{ProcessPool, WorkerCommand, worker};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     if worker::is_worker() {
//!         return Ok(worker::serve(|job| Ok(job.to_ascii_uppercase()))?);
//!     }
//!     let pool = ProcessPool::builder(WorkerCommand::current_exe()?).workers(2).start()?;
//!     assert_eq!(pool.submit(b"a picture".to_vec())?.wait()?, b"A PICTURE");
//!     Ok(())
//! }
//! ```

mod awake;
mod command;
mod driver;
mod frame;
mod launch;
mod link;
mod pool;
mod quarantine;
mod roster;
mod settings;
mod stderr;
mod supervisor;

#[cfg(all(unix, feature = "fault-injection"))]
pub mod faults;
pub mod signals;
#[cfg(all(test, unix, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests;
pub mod worker;

pub use command::{Limits, WorkerCommand};
pub use frame::VERSION;
pub use pool::{Builder, ProcessPool, StartError};
pub use stderr::Stderr;
pub use supervisor::RestartPolicy;

/// What models of the roster need of this module.
#[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
pub(crate) mod models {
    pub(crate) use super::frame::Tag;
    pub(crate) use super::roster::{Action, Answer, Clock, Death, Gate, Patience, Reason, Roster, Verdict};
    pub(crate) use super::supervisor::RestartPolicy;
}

#[cfg(doc)]
use crate::error::JobError;
