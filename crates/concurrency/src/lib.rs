//! Locked, per-thread, pooled, queued and process-isolated use of objects that serve one caller at a time.
//!
//! | you have | take |
//! |---|---|
//! | one instance, and callers that can wait for each other | [`Locked`], or [`locked()`] for a closure |
//! | a fixed set of threads that all call, all the time | [`PerThread`] |
//! | more callers than instances | [`Pool`] |
//! | jobs that come from elsewhere than the threads that run them | [`TaskQueue`] |
//! | jobs that may crash, hang or exhaust whoever runs them | [`ProcessPool`] |
//! | one shared value that is expensive to make | [`OnceInit`] |
//!
//! The module of each says when to choose it, what it costs and what it promises.

#![forbid(unsafe_code)]

#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
mod factory;
pub mod locked;
pub mod metrics;
#[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
mod models;
pub mod once_init;
pub mod per_thread;
pub mod pool;
pub mod process;
pub mod queue;
mod sync;
mod wait_list;

pub use error::{AppError, JobError};
pub use factory::Factory;
pub use locked::{LockError, Locked, locked};
pub use metrics::{LockMetrics, Metrics};
pub use once_init::{OnceError, OnceInit};
pub use per_thread::{PerThread, PerThreadError};
pub use pool::{Pool, PoolError, PoolGuard};
pub use process::ProcessPool;
pub use queue::{Canceller, DrainReport, Rejected, StartError, SubmitOptions, TaskQueue, Ticket};
