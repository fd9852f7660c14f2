//! One GET request, whose answer comes in pieces and never stalls for long.
//!
//! The request runs in a thread of its own that hands over what has arrived; so silence of whatever kind (a name that
//! does not resolve, a connection that hangs, a body that stops) ends after the same time.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::url::hide_passwords;
use crate::error::{Error, Result};

/// Bytes that are handed over at a time, at most.
const CHUNK: usize = 64 << 10;

/// Pieces that wait to be taken.
const AHEAD: usize = 8;

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 10;

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the body, at most.
    pub max_bytes: u64,
    /// Time without a byte, at most.
    pub patience: Duration,
    /// Time for all of it, at most.
    pub total: Duration,
}

/// The body of an answer.
pub struct Body {
    parts: Receiver<Part>,
    limits: Limits,
    length: Option<u64>,
    n_bytes: u64,
}

enum Part {
    Head(Option<u64>),
    Bytes(Vec<u8>),
    End,
    Failed(String),
}

/// Asks for `url` and waits for the head of the answer; errors do not name `url`.
///
/// Redirects are followed, from `https` only to `https`.
pub fn get(url: &str, limits: Limits) -> Result<Body> {
    let (sender, parts) = sync_channel(AHEAD);
    let asked = url.to_owned();
    let request = move || {
        let part = match transfer(&asked, limits, &sender) {
            Ok(()) => Part::End,
            Err(reason) => Part::Failed(hide_passwords(&reason, &[asked])),
        };
        // Nobody may listen any more.
        let _ = sender.send(part);
    };
    // Not joined: it ends when nobody listens, or when its time is over.
    thread::Builder::new()
        .name("fetch".into())
        .spawn(request)
        .map_err(|error| Error::named("thread", error))?;
    let mut body = Body { parts, limits, length: None, n_bytes: 0 };
    match body.next_part()? {
        Part::Head(length) => body.length = length,
        Part::Failed(reason) => return Err(Error::failed(reason)),
        Part::Bytes(_) | Part::End => return Err(Error::failed("the answer has no head")),
    }
    if let Some(length) = body.length
        && length > limits.max_bytes
    {
        return Err(too_large(limits.max_bytes));
    }
    Ok(body)
}

impl Body {
    /// Bytes of the whole body, if the server told.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; `None` when all are there.
    pub fn next_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        match self.next_part()? {
            Part::Bytes(bytes) => {
                self.n_bytes += bytes.len() as u64;
                if self.n_bytes > self.limits.max_bytes {
                    return Err(too_large(self.limits.max_bytes));
                }
                Ok(Some(bytes))
            }
            Part::End => match self.length {
                Some(length) if length != self.n_bytes => Err(self.cut_short("the connection was closed")),
                _ => Ok(None),
            },
            Part::Failed(reason) => Err(self.cut_short(&reason)),
            Part::Head(_) => Err(Error::failed("the answer has two heads")),
        }
    }

    fn next_part(&mut self) -> Result<Part> {
        self.parts.recv_timeout(self.limits.patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                let seconds = self.limits.patience.as_secs_f64();
                Error::failed(format!("no answer for {seconds} s, after {} bytes", self.n_bytes))
            }
            RecvTimeoutError::Disconnected => Error::failed("the request ended without an answer"),
        })
    }

    fn cut_short(&self, reason: &str) -> Error {
        let of = self.length.map(|length| format!(" of {length}")).unwrap_or_default();
        Error::failed(format!("cut short after {}{of} bytes: {reason}", self.n_bytes))
    }
}

fn too_large(max_bytes: u64) -> Error {
    Error::failed(format!("has more than the {max_bytes} bytes that are allowed"))
}

fn transfer(url: &str, limits: Limits, to: &SyncSender<Part>) -> std::result::Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(limits.total))
        .timeout_resolve(Some(limits.patience))
        .timeout_connect(Some(limits.patience))
        .max_redirects(MAX_REDIRECTS)
        .https_only(url.starts_with("https:"))
        .user_agent(concat!("ferroyolo/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| explain(&error))?;
    let length = response.headers().get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
    let mut body = response.into_body().into_reader();
    if to.send(Part::Head(length)).is_err() {
        return Ok(());
    }
    loop {
        let mut bytes = vec![0; CHUNK];
        match body.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n_bytes) => {
                bytes.truncate(n_bytes);
                if to.send(Part::Bytes(bytes)).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(status) => {
            let meaning = match status {
                401 | 403 => " (access denied)",
                404 | 410 => " (not there)",
                429 => " (too many requests)",
                500.. => " (the server is in trouble)",
                _ => "",
            };
            format!("HTTP status {status}{meaning}")
        }
        ureq::Error::RequireHttpsOnly(_) => {
            "redirected from https to plain http, which is not followed".into()
        }
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
