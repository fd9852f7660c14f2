//! Checks on the header of a safetensors file that come before anything trusts it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};

/// Bytes that the header of a model file may have. That of a YOLO11x has 200 KB.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// Errors unless a header of `header_len` bytes can stand in a file of `file_len` bytes.
pub(super) fn check_len(header_len: u64, file_len: u64) -> Result<()> {
    if file_len < 8 {
        return Err(Error::format("", "is not a safetensors file: shorter than eight bytes"));
    }
    // The shortest header is an empty object.
    if !(2..=MAX_HEADER_BYTES.min(file_len - 8)).contains(&header_len) {
        let message = format!(
            "is not a safetensors file: says its header has {header_len} bytes, the file has {file_len}"
        );
        return Err(Error::format("", message));
    }
    Ok(())
}

/// Errors unless the header fits into the file and no key in it stands twice.
///
/// Readers differ in which of two equal keys they believe, so such a file could be one model here and another there.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let header_len = bytes.first_chunk::<8>().map_or(0, |len| u64::from_le_bytes(*len));
    check_len(header_len, bytes.len() as u64)?;
    let text = &bytes[8..][..usize::try_from(header_len).unwrap_or(usize::MAX)];
    let mut json = serde_json::Deserializer::from_slice(text);
    // What is no JSON at all is left to the reader, whose message is better.
    match json.deserialize_map(UniqueKeys { depth: 0 }) {
        Err(error) if error.to_string().starts_with(TWICE) => {
            Err(Error::format("", "is not a valid safetensors file").with_source(error))
        }
        _ => Ok(()),
    }
}

const TWICE: &str = "a key stands twice";

/// Goes through an object and the objects in it, and keeps nothing but the keys.
struct UniqueKeys {
    depth: usize,
}

/// The header's objects are two deep: tensors, and what is said of each.
const MAX_DEPTH: usize = 2;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(serde::de::Error::custom(format!("{TWICE}: {key:?}")));
            }
            keys.insert(key);
            if self.depth + 1 < MAX_DEPTH {
                map.next_value_seed(Nested { depth: self.depth + 1 })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Nested {
    depth: usize,
}

impl<'de> serde::de::DeserializeSeed<'de> for Nested {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> std::result::Result<(), D::Error> {
        value.deserialize_map(UniqueKeys { depth: self.depth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    #[test]
    fn keys_that_stand_twice_are_refused() {
        for header in [
            r#"{"a": {"dtype": "F32"}, "a": {"dtype": "F16"}}"#,
            r#"{"__metadata__": {"ferroyolo.format": "1", "ferroyolo.format": "2"}}"#,
            r#"{"a": {"shape": [1], "shape": [2]}}"#,
        ] {
            let error = check(&file(header)).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            assert!(cause.is_some_and(|cause| cause.starts_with(TWICE)), "{header}");
        }
        assert!(check(&file(r#"{"a": {"dtype": "F32"}, "b": {"dtype": "F32"}}"#)).is_ok());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert!(check(b"").is_err());
        assert!(check(&u64::MAX.to_le_bytes()).is_err());
        assert!(check(&[0; 64]).is_err());
        assert!(check_len(MAX_HEADER_BYTES + 1, u64::MAX).is_err());
        assert!(check_len(8, 16).is_ok());
    }
}
