//! The error of this crate: what went wrong, in which file, and at which place in it.

use std::fmt;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system could not read or write a file.
    Io,
    /// The file is not a checkpoint of a form that this crate reads.
    Format,
    /// The file is damaged or contradicts itself.
    Corrupt,
    /// The file asks for something that is never done: a call, a global or an opcode outside the allow-list.
    Refused,
    /// The file asks for more memory, depth or size than an honest checkpoint needs.
    Limit,
    /// The file is sound, but holds a network that is not supported.
    Unsupported,
    /// A tensor's values or shape make no sense.
    Tensor,
}

/// A failure to read, convert or write a checkpoint.
///
/// Its message is in lower case and names the file and the thing in it: entry, opcode and byte offset, global, or
/// tensor.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    file: String,
    place: String,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, place: impl Into<String>, message: impl Into<String>) -> Self {
        let (place, message) = (place.into(), message.into());
        Self(Box::new(Inner { kind, file: String::new(), place, message, source: None }))
    }

    pub(crate) fn corrupt(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, place, message)
    }

    pub(crate) fn refused(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, place, message)
    }

    pub(crate) fn limit(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, place, message)
    }

    pub(crate) fn unsupported(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, place, message)
    }

    pub(crate) fn tensor(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Tensor, place, message)
    }

    pub(crate) fn format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, "", message)
    }

    pub(crate) fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, "", message).with_source(source)
    }

    /// Names the file, unless an inner layer has already done so.
    pub(crate) fn in_file(mut self, file: &str) -> Self {
        if self.0.file.is_empty() {
            self.0.file = file.to_owned();
        }
        self
    }

    /// Puts `outer` before the place, as in `yolo.pt: model.2: cv1: …`.
    pub(crate) fn within(mut self, outer: &str) -> Self {
        let inner = std::mem::take(&mut self.0.place);
        self.0.place = if inner.is_empty() { outer.to_owned() } else { format!("{outer}: {inner}") };
        self
    }

    pub(crate) fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file, as it was given; empty if the failure has none.
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// The entry, opcode, tensor or module it happened at; empty if it concerns the whole file.
    pub fn place(&self) -> &str {
        &self.0.place
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.0.file, &self.0.place] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {:?})", self.0.kind, self.to_string())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

/// A name taken from a file, made safe to print: cut short, and without control characters.
pub(crate) fn printable(name: &str) -> String {
    const MAX_CHARS: usize = 120;
    let mut out: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_file_and_place() {
        let error = Error::tensor("model.0.conv.weight", "holds nan").in_file("a.pt").in_file("b.pt");
        assert_eq!(error.to_string(), "a.pt: model.0.conv.weight: holds nan");
        assert_eq!(error.kind(), ErrorKind::Tensor);
        assert_eq!(Error::corrupt("x", "y").within("z").to_string(), "z: x: y");
    }

    #[test]
    fn names_from_files_are_printed_on_one_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert!(printable(&"x".repeat(1 << 20)).chars().count() < 200);
    }
}
