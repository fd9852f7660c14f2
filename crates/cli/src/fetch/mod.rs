//! The network: well-known models by name, and pictures by URL.
//!
//! Nothing else of this project opens a connection, and this only for what the command line names.

pub mod cache;
mod http;
pub mod known;
pub mod picture;
pub mod url;

use std::time::Duration;

use crate::error::{Error, Result};

/// The variable that keeps this program off the network when it is set, and neither empty nor `0`.
const OFFLINE: &str = "FERROYOLO_OFFLINE";

/// The variable with the seconds to wait for a sign of life from a server.
const TIMEOUT: &str = "FERROYOLO_TIMEOUT";

/// How long to wait for a sign of life from a server.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer is not waited for in any case.
const MAX_TIMEOUT_S: f64 = 86_400.0;

/// Whether the network is not to be used, by the flag or by the environment.
pub fn is_offline(flag: bool) -> bool {
    flag || std::env::var_os(OFFLINE).is_some_and(|value| !value.is_empty() && value != "0")
}

/// The error for what would need the network while it is not to be used.
pub fn offline_error(name: &str) -> Error {
    Error::failed(format!("{name}: not fetched, since --offline or {OFFLINE} forbids it"))
}

/// How long to wait for a sign of life from a server: `$FERROYOLO_TIMEOUT` seconds, else half a minute.
pub fn patience() -> Result<Duration> {
    match std::env::var(TIMEOUT) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .ok()
            .filter(|seconds| (0.0..=MAX_TIMEOUT_S).contains(seconds) && *seconds > 0.0)
            .map(Duration::from_secs_f64)
            .ok_or_else(|| Error::Usage(format!("{TIMEOUT}={text}: expected a number of seconds"))),
        _ => Ok(DEFAULT_TIMEOUT),
    }
}
