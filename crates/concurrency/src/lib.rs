//! Locked, per-thread, pooled, queued and process-isolated use of objects that serve one caller at a time.

#![forbid(unsafe_code)]

pub mod error;
mod sync;
mod wait_list;

pub use error::{AppError, JobError};
