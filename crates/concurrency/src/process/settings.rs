//! What a pool's threads need to know of its configuration.

use std::time::Duration;

use super::command::Limits;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long one attempt may take.
    pub(crate) deadline: Option<Duration>,
    /// How often a job whose worker died is tried again.
    pub(crate) n_retries: u32,
    /// How many workers one input may kill.
    pub(crate) quarantine_after: u32,
    /// Bytes that one message may have.
    pub(crate) max_frame: usize,
    /// How often a worker shows that it is alive.
    pub(crate) heartbeat: Duration,
    pub(crate) limits: Limits,
    pub(crate) identity: String,
    pub(crate) forward_stderr: bool,
}
