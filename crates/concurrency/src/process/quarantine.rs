//! Inputs that killed workers, remembered by their contents.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// How often which input killed a worker. Keeps a bounded number of inputs; the oldest are forgotten.
///
/// An input is known by its length and 128 bits of keyed hashes, so that an innocent one is not taken for it, not even
/// if somebody looks for one. Hashing takes time, so it is done only for inputs as long as one that is remembered.
#[derive(Debug)]
pub(crate) struct Quarantine {
    keys: [RandomState; 2],
    entries: VecDeque<Entry>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    len: usize,
    hash: [u64; 2],
    n_kills: u32,
}

impl Quarantine {
    /// Remembers up to `capacity` inputs.
    pub(crate) fn new(capacity: usize) -> Quarantine {
        Quarantine { keys: [RandomState::new(), RandomState::new()], entries: VecDeque::new(), capacity }
    }

    /// How many workers this input is known to have killed.
    pub(crate) fn n_kills(&self, input: &[u8]) -> u32 {
        self.find(input).map_or(0, |idx| self.entries[idx].n_kills)
    }

    /// Notes that the input killed a worker; returns how many that makes.
    pub(crate) fn note(&mut self, input: &[u8]) -> u32 {
        let mut entry = match self.find(input).and_then(|idx| self.entries.remove(idx)) {
            Some(entry) => entry,
            None => Entry { len: input.len(), hash: self.hash(input), n_kills: 0 },
        };
        entry.n_kills = entry.n_kills.saturating_add(1);
        let n_kills = entry.n_kills;
        self.entries.push_back(entry);
        if self.entries.len() > self.capacity {
            self.entries.pop_front();
        }
        n_kills
    }

    /// Forgets an input, which has turned out to be harmless.
    pub(crate) fn forget(&mut self, input: &[u8]) {
        if let Some(idx) = self.find(input) {
            self.entries.remove(idx);
        }
    }

    fn hash(&self, input: &[u8]) -> [u64; 2] {
        self.keys.each_ref().map(|key| key.hash_one(input))
    }

    fn find(&self, input: &[u8]) -> Option<usize> {
        if self.entries.iter().all(|entry| entry.len != input.len()) {
            return None;
        }
        let hash = self.hash(input);
        self.entries.iter().position(|entry| entry.len == input.len() && entry.hash == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_by_contents() {
        let mut quarantine = Quarantine::new(8);
        assert_eq!(quarantine.n_kills(b"bad"), 0);
        assert_eq!(quarantine.note(b"bad"), 1);
        assert_eq!(quarantine.note(b"bad"), 2);
        assert_eq!(quarantine.note(b"odd"), 1);
        assert_eq!(quarantine.n_kills(b"bad"), 2);
        assert_eq!(quarantine.n_kills(b"off"), 0, "as long as others, but another input");
    }

    #[test]
    fn harmless_inputs_are_forgotten() {
        let mut quarantine = Quarantine::new(8);
        quarantine.note(b"bad");
        quarantine.forget(b"bad");
        quarantine.forget(b"never seen");
        assert_eq!(quarantine.n_kills(b"bad"), 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut quarantine = Quarantine::new(2);
        quarantine.note(b"a");
        quarantine.note(b"b");
        quarantine.note(b"a");
        quarantine.note(b"c");
        assert_eq!([b"a", b"b", b"c"].map(|input| quarantine.n_kills(input)), [2, 0, 1]);
    }
}
