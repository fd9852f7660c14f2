//! What may still be built out of a checkpoint, in bytes of memory.
//!
//! A pickle can name one value in many places, and each place costs it three bytes. Whatever is copied for each place
//! is paid for here, so that a small file can't become a large network.

use crate::error::{Error, Result};
use crate::pickle::Pickle;

/// Memory that any file may use, however small it is.
const FLOOR: usize = 1 << 16;

/// Longest name of a module, an attribute, a tensor or a class.
pub(crate) const MAX_NAME: usize = 256;

/// Bytes of memory that are left.
#[derive(Debug)]
pub(crate) struct Credit(usize);

impl Credit {
    /// Three times the file, less the file itself, its values, and a sixteenth for what is not counted.
    pub(crate) fn of(pickle: &Pickle) -> Self {
        let n_bytes = pickle.bytes.len();
        Self((2 * n_bytes - n_bytes / 16).saturating_sub(pickle.n_bytes).max(FLOOR))
    }

    /// Takes `n` bytes; errors with `ErrorKind::Limit`, naming `place`, if fewer are left.
    pub(crate) fn pay(&mut self, n: usize, place: &str) -> Result<()> {
        self.check(n, place)?;
        self.0 -= n;
        Ok(())
    }

    /// Errors as [`Self::pay`] does, but takes nothing: for memory that is free again soon.
    pub(crate) fn check(&self, n: usize, place: &str) -> Result<()> {
        if n <= self.0 {
            return Ok(());
        }
        Err(Error::limit(place, "the network takes more memory than the file that it is read from allows"))
    }
}

/// What a text takes as it is, in the document, and in the header that holds the document as a string.
pub(crate) fn text_size(text: &str) -> usize {
    // Escaped once in the document, and the escapes once more in the header.
    let size = |byte| match byte {
        b'"' | b'\\' => 1 + 2 + 4,
        0..0x20 => 1 + 6 + 7,
        _ => 3,
    };
    text.bytes().map(size).sum()
}

/// Errors, naming `place`, if `n_bytes` are too many for a name.
pub(crate) fn check_name_len(n_bytes: usize, what: &str, place: &str) -> Result<()> {
    if n_bytes <= MAX_NAME {
        return Ok(());
    }
    Err(Error::limit(place, format!("name of {what} has {n_bytes} bytes, {MAX_NAME} are the most")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paid_is_gone() {
        let mut credit = Credit(10);
        credit.pay(6, "a").unwrap();
        credit.check(4, "a").unwrap();
        credit.pay(4, "a").unwrap();
        let error = credit.pay(1, "model.0").unwrap_err();
        assert!(error.to_string().starts_with("model.0: the network takes more memory"), "{error}");
    }

    #[test]
    fn text_is_priced_with_its_escapes() {
        for text in ["plain", "\"quoted\"", "\u{1}\n\\", "ä€"] {
            let document = serde_json::to_string(text).unwrap();
            let header = serde_json::to_string(&document[1..document.len() - 1]).unwrap();
            assert!(text_size(text) >= text.len() + document.len() - 2 + header.len() - 2, "{text:?}");
        }
    }
}
