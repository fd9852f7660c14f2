//! A picture by URL.

use std::time::Duration;

use super::http::{self, Limits};
use super::patience;
use crate::error::Result;

/// Bytes of a picture, at most.
const MAX_BYTES: u64 = 256 << 20;

/// Time for a picture to arrive, at most.
const TOTAL: Duration = Duration::from_secs(600);

/// Fetches the file at `url`, of whatever kind it is; errors do not name the URL.
pub fn fetch(url: &str) -> Result<Vec<u8>> {
    let mut body = http::get(url, Limits { max_bytes: MAX_BYTES, patience: patience()?, total: TOTAL })?;
    let mut all = Vec::new();
    while let Some(bytes) = body.next_bytes()? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
