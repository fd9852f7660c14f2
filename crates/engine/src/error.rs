//! The one error type of this crate.

use std::error::Error as StdError;
use std::{fmt, io};

/// What a function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing went wrong, for programs that react to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or stream could not be read or written.
    Io,
    /// A model file is malformed.
    Format,
    /// A picture can't be decoded or encoded.
    Image,
    /// A shape is not the one that was expected.
    Shape,
    /// A tensor is missing, left over, or of the wrong type.
    Weights,
    /// Well-formed, but not something this library can run.
    Unsupported,
    /// Larger than a limit that guards memory or time.
    Limit,
    /// A device is absent or failed.
    Device,
    /// A value is too large for the number format to compute in; a wider one has room for it.
    Overflow,
    /// A caller's option or value makes no sense.
    Argument,
}

impl ErrorKind {
    /// The kind as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Format => "format",
            Self::Image => "image",
            Self::Shape => "shape",
            Self::Weights => "weights",
            Self::Unsupported => "unsupported",
            Self::Limit => "limit",
            Self::Device => "device",
            Self::Overflow => "overflow",
            Self::Argument => "argument",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error with its kind, the place where it happened, and its cause.
///
/// Shown as `<at>: <message>`; the cause is had from [`StdError::source`] and is not part of the text.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    at: String,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` at `at` (a layer path, file or value name; may be empty).
    #[must_use]
    pub fn new(kind: ErrorKind, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, at: at.into(), message: message.into(), source: None }))
    }

    /// A failure to read or write `at`, caused by `source`.
    #[must_use]
    pub fn io(at: impl Into<String>, source: io::Error) -> Self {
        let message = match source.kind() {
            io::ErrorKind::NotFound => "no such file or directory",
            io::ErrorKind::PermissionDenied => "permission denied",
            io::ErrorKind::IsADirectory => "is a directory",
            io::ErrorKind::UnexpectedEof => "ends too early",
            io::ErrorKind::StorageFull => "no space left",
            _ => "can't be read or written",
        };
        Self::new(ErrorKind::Io, at, message).with_source(source)
    }

    /// A malformed model file.
    #[must_use]
    pub fn format(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, at, message)
    }

    /// A picture that can't be decoded or encoded.
    #[must_use]
    pub fn image(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Image, at, message)
    }

    /// A shape other than the expected one.
    #[must_use]
    pub fn shape(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, at, message)
    }

    /// A missing, superfluous or wrongly typed tensor.
    #[must_use]
    pub fn weights(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Weights, at, message)
    }

    /// Something well-formed that this library can't run.
    #[must_use]
    pub fn unsupported(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, at, message)
    }

    /// A limit that was exceeded.
    #[must_use]
    pub fn limit(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, at, message)
    }

    /// A device that is absent or failed.
    #[must_use]
    pub fn device(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Device, at, message)
    }

    /// A value that is too large for the number format to compute in.
    #[must_use]
    pub fn overflow(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Overflow, at, message)
    }

    /// An option or value that makes no sense.
    #[must_use]
    pub fn argument(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, at, message)
    }

    /// The same error with the cause `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error at another place, such as the file whose bytes were read.
    #[must_use]
    pub fn with_at(mut self, at: impl Into<String>) -> Self {
        self.0.at = at.into();
        self
    }

    /// What sort of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The layer path, file or value name where it happened; empty if unknown.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.0.at
    }

    /// What happened, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.at.is_empty() {
            f.write_str(&self.0.message)
        } else {
            write!(f, "{}: {}", self.0.at, self.0.message)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("at", &self.0.at)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_place_and_message() {
        let error = Error::shape("model.2.cv1", "got [1], expected [2]");
        assert_eq!(error.to_string(), "model.2.cv1: got [1], expected [2]");
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert_eq!(error.at(), "model.2.cv1");
        assert_eq!(Error::limit("", "too large").to_string(), "too large");
        assert_eq!(error.with_at("x").to_string(), "x: got [1], expected [2]");
    }

    #[test]
    fn keeps_its_cause() {
        let error = Error::io("a.jpg", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "a.jpg: no such file or directory");
        assert!(error.source().is_some_and(<dyn StdError>::is::<io::Error>));
        assert!(Error::image("a", "b").source().is_none());
    }

    #[test]
    fn crosses_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
