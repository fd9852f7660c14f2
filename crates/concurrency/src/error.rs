//! Why a call, a submission or a job failed.

use std::error::Error;
use std::fmt;

/// What a caller's own code failed with.
pub type AppError = Box<dyn Error + Send + Sync + 'static>;

/// The outcome of an accepted job that has no result.
///
/// Every accepted job has exactly one outcome; none is lost and none comes twice.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobError {
    /// The job's handler returned an error.
    App(AppError),
    /// The job's handler panicked, with this message. The instance it used is not used again.
    Panicked(String),
    /// The job's deadline passed before it was done.
    Timeout,
    /// The job was cancelled by its submitter.
    Cancelled,
    /// The queue was dropped, or drained with a time limit, before the job was done. It may have begun.
    Closed,
    /// The worker process died while it ran this job, at this attempt and no attempt was left.
    Crashed {
        /// The signal that killed the process, if one did.
        signal: Option<i32>,
        /// The exit code, if it exited.
        code: Option<i32>,
        /// Which attempt this was, from 1.
        attempt: u32,
        /// The last lines of the process' standard error.
        stderr: String,
    },
    /// The worker process had no memory left, by its limit or by the machine's.
    OutOfMemory,
    /// The worker process broke the protocol.
    Protocol(String),
    /// The job killed as many workers as one job may and is not tried again.
    Quarantined {
        /// Workers that died of it.
        kills: u32,
    },
    /// The worker process speaks another version of the protocol.
    Incompatible {
        /// The version that this process speaks.
        want: u32,
        /// The version that the worker speaks.
        got: u32,
    },
    /// Workers die faster than the restart budget allows; no more are started.
    CircuitOpen,
    /// The device that the worker computes on was lost.
    DeviceLost,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::App(error) => write!(f, "the job failed: {error}"),
            JobError::Panicked(message) => write!(f, "the job's handler panicked: {message}"),
            JobError::Timeout => f.write_str("the job's deadline passed"),
            JobError::Cancelled => f.write_str("the job was cancelled"),
            JobError::Closed => f.write_str("the queue was closed before the job was done"),
            JobError::Crashed { signal, code, attempt, stderr } => {
                match (signal, code) {
                    (Some(signal), _) => write!(f, "the worker was killed by signal {signal}")?,
                    (None, Some(code)) => write!(f, "the worker exited with code {code}")?,
                    (None, None) => f.write_str("the worker died")?,
                }
                write!(f, " at attempt {attempt}")?;
                match stderr.lines().next_back() {
                    Some(line) => write!(f, ": {line}"),
                    None => Ok(()),
                }
            }
            JobError::OutOfMemory => f.write_str("the worker ran out of memory"),
            JobError::Protocol(what) => write!(f, "the worker broke the protocol: {what}"),
            JobError::Quarantined { kills } => {
                write!(f, "the input killed {kills} workers and is not tried again")
            }
            JobError::Incompatible { want, got } => {
                write!(f, "the worker speaks version {got} of the protocol, expected {want}")
            }
            JobError::CircuitOpen => f.write_str("workers die too fast; no more are started"),
            JobError::DeviceLost => f.write_str("the worker's device was lost"),
        }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JobError::App(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
