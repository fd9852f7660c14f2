//! Names of saved files: no two alike, and none that leaves its directory.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes of a name that somebody else chose, at most; file systems allow 255 with numbers and extension.
const MAX_BYTES: usize = 150;

/// Hands out file stems, each only once.
///
/// Remembers hashes, not names, so that a run over millions of pictures stays small; two names with one hash cost
/// only a needless number.
#[derive(Debug, Default)]
pub struct UniqueNames {
    next: HashMap<u64, u32>,
}

impl UniqueNames {
    /// `stem` itself at first, then `stem_2`, `stem_3` and so on.
    pub fn take(&mut self, stem: &str) -> String {
        let key = key(stem);
        let Some(&number) = self.next.get(&key) else {
            self.next.insert(key, 2);
            return stem.to_string();
        };
        let mut number = number;
        loop {
            let name = format!("{stem}_{number}");
            number = number.saturating_add(1);
            let name_key = self::key(&name);
            if !self.next.contains_key(&name_key) {
                self.next.insert(name_key, 2);
                self.next.insert(key, number);
                return name;
            }
        }
    }
}

/// Names that differ only in case are one file on some systems.
fn key(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.to_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// The beginning of `text` that has at most [`MAX_BYTES`] and no half of a character.
pub fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

/// A class name as the name of a directory: what could lead elsewhere is replaced by `_`.
pub fn as_component(name: &str) -> String {
    let safe: String = beginning(name)
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '+' | '(' | ')') { c } else { '_' }
        })
        .collect();
    let safe = safe.trim();
    if safe.is_empty() {
        "_".into()
    } else if safe.starts_with('.') || safe.ends_with('.') {
        safe.replace('.', "_")
    } else {
        safe.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_never_repeated() {
        let mut names = UniqueNames::default();
        let taken: Vec<_> = ["a", "a", "a_2", "A", "b", "a"].iter().map(|stem| names.take(stem)).collect();
        assert_eq!(taken, ["a", "a_2", "a_2_2", "A_3", "b", "a_4"]);
    }

    #[test]
    fn class_names_stay_in_their_directory() {
        for (name, safe) in [
            ("hot dog", "hot dog"),
            ("../../etc", "______etc"),
            ("a/b\\c:d", "a_b_c_d"),
            ("..", "__"),
            ("", "_"),
            ("  ", "_"),
            ("été", "été"),
            ("x\0y", "x_y"),
        ] {
            assert_eq!(as_component(name), safe, "{name:?}");
        }
        assert_eq!(as_component(&"n".repeat(200)), "n".repeat(150));
        assert_eq!(as_component(&format!("a{}", "車".repeat(100))), format!("a{}", "車".repeat(49)));
    }
}
