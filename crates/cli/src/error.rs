//! What can end a command, and how an error is told.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// What the functions of this program return.
pub type Result<T> = std::result::Result<T, Error>;

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it worked.
    Done,
    /// Some of it failed; each failure has been told already.
    SomeFailed,
    /// A signal asked for an end before all was done; with the exit status that tells which.
    Stopped(u8),
}

/// Why a command stopped.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense, alone or for this model.
    Usage(String),
    /// Something failed; the text says where and what.
    Failed {
        /// The place and what happened there.
        message: String,
        /// What led to it.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// Nobody reads stdout any more.
    StdoutClosed,
}

impl Error {
    /// A failure that has no cause beyond its text.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    /// `source`, which happened at `path`.
    pub fn at(path: &Path, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::named(&path.display().to_string(), source)
    }

    /// `source`, which happened at `name`; the name is not repeated where the text begins with it.
    pub fn named(name: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let named = source.to_string().strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        if named { source.into() } else { Self::Failed { message: name.into(), source: Some(source) } }
    }

    /// A failed write to stdout.
    pub fn stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::StdoutClosed
        } else {
            Self::Failed { message: "stdout".into(), source: Some(error.into()) }
        }
    }

    /// The exit status that tells this error.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed { .. } => 1,
            Self::StdoutClosed => 0,
        }
    }

    /// The error and its causes in one line, `what: cause: cause`.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// `error` and its causes in one line, `what: cause: cause`.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // System errors often say what the message above them says already.
        let told = last.to_lowercase();
        let repeated = message
            .to_lowercase()
            .split(" (os error")
            .next()
            .is_some_and(|said| told == said || told.ends_with(&format!(": {said}")));
        if !repeated {
            text = format!("{text}: {message}");
        }
        last = message;
        cause = error.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed { message, .. } => f.write_str(message),
            Self::StdoutClosed => f.write_str("stdout was closed"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Failed { source: Some(source), .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<Box<dyn StdError + Send + Sync>> for Error {
    fn from(error: Box<dyn StdError + Send + Sync>) -> Self {
        // The first text of a chain is its own message, so that nothing is said twice.
        match error.downcast::<Self>() {
            Ok(own) => *own,
            Err(other) => Self::Failed { message: other.to_string(), source: Cause::of(other) },
        }
    }
}

impl From<ferroyolo::Error> for Error {
    fn from(error: ferroyolo::Error) -> Self {
        let error: Box<dyn StdError + Send + Sync> = error.into();
        error.into()
    }
}

impl From<ferroyolo_tools::Error> for Error {
    fn from(error: ferroyolo_tools::Error) -> Self {
        let error: Box<dyn StdError + Send + Sync> = error.into();
        error.into()
    }
}

/// The causes of an error whose own text has been taken over already.
#[derive(Debug)]
struct Cause(Box<dyn StdError + Send + Sync>);

impl Cause {
    fn of(error: Box<dyn StdError + Send + Sync>) -> Option<Box<dyn StdError + Send + Sync>> {
        if error.source().is_some() { Some(Box::new(Self(error))) } else { None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => Ok(()),
        }
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source().and_then(StdError::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> io::Error {
        io::Error::from_raw_os_error(2)
    }

    #[test]
    fn a_chain_names_place_and_causes_once() {
        let engine = ferroyolo::Error::io("a.jpg", missing());
        assert_eq!(Error::at(Path::new("a.jpg"), engine).chain(), "a.jpg: no such file or directory");
        let engine = ferroyolo::Error::image("", "not a picture").with_source("bad marker");
        assert_eq!(Error::at(Path::new("a.jpg"), engine).chain(), "a.jpg: not a picture: bad marker");
        assert_eq!(Error::failed("alone").chain(), "alone");
    }

    #[test]
    fn only_a_closed_stdout_is_quiet() {
        assert!(matches!(Error::stdout(io::ErrorKind::BrokenPipe.into()), Error::StdoutClosed));
        assert_eq!(Error::stdout(io::ErrorKind::StorageFull.into()).exit_status(), 1);
        assert_eq!(Error::Usage("no".into()).exit_status(), 2);
    }
}
