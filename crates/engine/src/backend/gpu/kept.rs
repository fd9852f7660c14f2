//! The file of measured choices, one for each adapter.
//!
//! It is only a memory: what can't be read, is of another version or tells of another adapter is passed over and
//! written anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Of the file's form.
const VERSION: u32 = 1;

/// Far more than the choices of many models take.
const MAX_BYTES: u64 = 4 << 20;

/// Which way was the fastest for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    version: u32,
    /// Adapter and driver.
    adapter: String,
    /// Which shaders were measured.
    shaders: String,
    /// The names of ways by dispatch.
    choices: BTreeMap<String, String>,
}

impl Kept {
    /// Nothing yet, for an adapter and the text of all shaders that are measured.
    pub(super) fn new(adapter: String, shaders: &str) -> Self {
        let shaders = format!("{:016x}", hash(shaders));
        Self { version: VERSION, adapter, shaders, choices: BTreeMap::new() }
    }

    pub(super) fn get(&self, dispatch: &str) -> Option<&str> {
        self.choices.get(dispatch).map(String::as_str)
    }

    pub(super) fn put(&mut self, dispatch: String, way: String) {
        self.choices.insert(dispatch, way);
    }

    /// Adds what the file in `folder` knows and this does not.
    pub(super) fn read(&mut self, folder: &Path) {
        let Some(found) = self.load(folder) else { return };
        for (dispatch, way) in found.choices {
            self.choices.entry(dispatch).or_insert(way);
        }
    }

    /// The file in `folder`, if it is whole and for this adapter and these shaders.
    fn load(&self, folder: &Path) -> Option<Self> {
        let file = fs::File::open(folder.join(self.file_name())).ok()?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > MAX_BYTES {
            return None;
        }
        let found: Self = serde_json::from_slice(&text).ok()?;
        let is_ours =
            (found.version, &found.adapter, &found.shaders) == (self.version, &self.adapter, &self.shaders);
        is_ours.then_some(found)
    }

    /// Writes all of it, with what another process may have written since. A reader sees the old file or the new one.
    pub(super) fn write(&mut self, folder: &Path) -> io::Result<()> {
        self.read(folder);
        let text = serde_json::to_vec_pretty(self)?;
        write_whole(&folder.join(self.file_name()), &text)
    }

    fn file_name(&self) -> String {
        format!("gpu-tuning-{:016x}.json", hash(&self.adapter))
    }
}

/// Writes a file, and the folders above it if they are not there. A reader sees the old file or the new one.
pub(super) fn write_whole(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(folder)?;
    let (draft, mut file) = tempfile_in(folder, name)?;
    let written = io::Write::write_all(&mut file, bytes);
    drop(file);
    let moved = written.and_then(|()| fs::rename(&draft, place));
    if moved.is_err() {
        // Nothing is lost if it stays.
        let _ = fs::remove_file(&draft);
    }
    moved
}

/// A new file that no other process or thread has.
fn tempfile_in(folder: &Path, name: &str) -> io::Result<(std::path::PathBuf, fs::File)> {
    for attempt in 0..100u32 {
        let place = folder.join(format!(".{name}.{}.{attempt}", std::process::id()));
        match fs::File::create_new(&place) {
            Ok(file) => return Ok((place, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// FNV-1a, which is the same everywhere and always.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(adapter: &str, shaders: &str, choices: &[(&str, &str)]) -> Kept {
        let mut kept = Kept::new(adapter.into(), shaders);
        choices.iter().for_each(|&(dispatch, way)| kept.put(dispatch.into(), way.into()));
        kept
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("new");
        kept("one", "text", &[("a", "x"), ("b", "y")]).write(&place).expect("a file");
        // Another process, which has measured something else meanwhile.
        kept("one", "text", &[("b", "z"), ("c", "x")]).write(&place).expect("a file");
        kept("two", "text", &[("a", "z")]).write(&place).expect("a file");
        let read = |adapter, shaders| {
            let mut read = kept(adapter, shaders, &[]);
            read.read(&place);
            read
        };
        assert_eq!(read("one", "text"), kept("one", "text", &[("a", "x"), ("b", "z"), ("c", "x")]));
        assert_eq!(read("two", "text").get("a"), Some("z"));
        assert_eq!(read("one", "other text").choices.len(), 0);
        assert_eq!(fs::read_dir(&place).expect("the folder").count(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut good = kept("one", "text", &[("a", "x")]);
        let place = folder.path().join(good.file_name());
        good.write(folder.path()).expect("a file");
        let text = fs::read_to_string(&place).expect("the file");
        let foreign = text.replace("\"one\"", "\"another\"");
        let later = text.replace("\"version\": 1", "\"version\": 2");
        let long = " ".repeat(MAX_BYTES as usize) + &text;
        for bad in ["", "{", "[1, 2]", &text[..text.len() / 2], &foreign, &later, &long] {
            assert_ne!(bad, text);
            fs::write(&place, bad).expect("a file");
            let mut read = kept("one", "text", &[]);
            read.read(folder.path());
            assert_eq!(read.choices.len(), 0, "{}", &bad[..bad.len().min(60)]);
            good.write(folder.path()).expect("a file");
            assert_eq!(fs::read_to_string(&place).expect("the file"), text);
        }
    }

    #[test]
    fn processes_at_once_leave_a_whole_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for idx in 0..8 {
                let folder = folder.path();
                scope.spawn(move || {
                    kept("one", "text", &[(&format!("{idx}"), "x")]).write(folder).expect("a file");
                });
            }
        });
        let mut read = kept("one", "text", &[]);
        read.read(folder.path());
        assert!(!read.choices.is_empty());
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }
}
