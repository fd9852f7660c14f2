//! The one error type of this crate.

use std::error::Error as StdError;
use std::path::Path;
use std::{fmt, io};

/// What a function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing went wrong, for programs that react to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder could not be read.
    Io,
    /// The description of a data set makes no sense.
    Dataset,
    /// A label file or mask is malformed, or does not fit the data set.
    Label,
    /// A caller's value makes no sense.
    Argument,
}

/// An error with its kind, the place where it happened, and its cause.
///
/// Shown as `<at>: <message>`; the place is a file, with the line where there is one.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    at: String,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` at `at`.
    #[must_use]
    pub fn new(kind: ErrorKind, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, at: at.into(), message: message.into(), source: None }))
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let message = match source.kind() {
            io::ErrorKind::NotFound => "no such file or directory",
            io::ErrorKind::PermissionDenied => "permission denied",
            _ => "can't be read",
        };
        Self::new(ErrorKind::Io, path.display().to_string(), message).with_source(source)
    }

    pub(crate) fn dataset(path: &Path, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Dataset, path.display().to_string(), message)
    }

    pub(crate) fn label(path: &Path, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Label, path.display().to_string(), message)
    }

    pub(crate) fn label_line(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Label, format!("{}:{line}", path.display()), message)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What sort of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it happened: a file, with the line where there is one.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.0.at
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.at, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.0.kind).field("text", &self.to_string()).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
