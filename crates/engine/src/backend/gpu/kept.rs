//! Files of what was found out about an adapter: which ways are the fastest, and whether its matrix units compute right.
//!
//! They are only a memory: what can't be read, is no plain file, is of another version or tells of another adapter is
//! passed over and written anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use ferroyolo_shaders::Element;
use serde::{Deserialize, Serialize};

/// Of the file's form.
const VERSION: u32 = 2;

/// Far more than what is found out for many models takes.
const MAX_BYTES: u64 = 4 << 20;

/// What was found out about an adapter by means of some shaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// What the file's name begins with.
    #[serde(skip)]
    kind: &'static str,
    version: u32,
    /// Adapter, driver and number format.
    adapter: String,
    /// Which shaders that was.
    shaders: String,
    /// Answers by question.
    answers: BTreeMap<String, String>,
}

impl Kept {
    /// Nothing yet, in files of this kind for an adapter and the text of all shaders that matter.
    pub(super) fn new(kind: &'static str, adapter: String, shaders: &str) -> Self {
        let shaders = format!("{:016x}", hash(shaders));
        Self { kind, version: VERSION, adapter, shaders, answers: BTreeMap::new() }
    }

    pub(super) fn get(&self, question: &str) -> Option<&str> {
        self.answers.get(question).map(String::as_str)
    }

    pub(super) fn put(&mut self, question: String, answer: String) {
        self.answers.insert(question, answer);
    }

    /// Adds what the file in `folder` knows and this does not.
    pub(super) fn read(&mut self, folder: &Path) {
        let Some(found) = self.load(folder) else { return };
        for (question, answer) in found.answers {
            self.answers.entry(question).or_insert(answer);
        }
    }

    /// The file in `folder`, if it is whole and for this adapter and these shaders.
    fn load(&self, folder: &Path) -> Option<Self> {
        let text = read_whole(&folder.join(self.file_name()), MAX_BYTES)?;
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

    /// Of files of this kind for this adapter.
    pub(super) fn file_name(&self) -> String {
        format!("{}-{:016x}.json", self.kind, hash(&self.adapter))
    }
}

/// What is the same for the same driver of the same adapter, used with the same number format.
pub(super) fn whose(info: &wgpu::AdapterInfo, element: Element) -> String {
    let wgpu::AdapterInfo { backend, name, vendor, device, driver, driver_info, .. } = info;
    format!("{backend} {name} {vendor:04x}:{device:04x} {driver} {driver_info} {element:?}")
}

/// All of a plain file of at most `max` bytes. None of anything else: who opens a pipe waits for a writer, and a device
/// may never end.
pub(super) fn read_whole(place: &Path, max: u64) -> Option<Vec<u8>> {
    let is_fine = |meta: &fs::Metadata| meta.is_file() && meta.len() <= max;
    // Before it is opened, and once more since it may have been replaced in between.
    fs::metadata(place).ok().filter(is_fine)?;
    let file = fs::File::open(place).ok()?;
    file.metadata().ok().filter(is_fine)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= max).then_some(bytes)
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

    fn kept(adapter: &str, shaders: &str, answers: &[(&str, &str)]) -> Kept {
        let mut kept = Kept::new("test", adapter.into(), shaders);
        answers.iter().for_each(|&(question, answer)| kept.put(question.into(), answer.into()));
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
        assert_eq!(read("one", "other text").answers.len(), 0);
        assert_eq!(fs::read_dir(&place).expect("the folder").count(), 2);
        // What is found out in other ways is in other files.
        let mut other = Kept { kind: "other", ..kept("one", "text", &[]) };
        other.read(&place);
        assert_eq!(other.answers.len(), 0);
    }

    #[test]
    fn what_makes_no_sense_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut good = kept("one", "text", &[("a", "x")]);
        let place = folder.path().join(good.file_name());
        good.write(folder.path()).expect("a file");
        let text = fs::read_to_string(&place).expect("the file");
        let foreign = text.replace("\"one\"", "\"another\"");
        let later = text.replace("\"version\": 2", "\"version\": 3");
        let long = " ".repeat(MAX_BYTES as usize) + &text;
        for bad in ["", "{", "[1, 2]", &text[..text.len() / 2], &foreign, &later, &long] {
            assert_ne!(bad, text);
            fs::write(&place, bad).expect("a file");
            let mut read = kept("one", "text", &[]);
            read.read(folder.path());
            assert_eq!(read.answers.len(), 0, "{}", &bad[..bad.len().min(60)]);
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
        assert!(!read.answers.is_empty());
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn only_plain_files_of_a_fair_size_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        fs::write(&place, b"five!").expect("a file");
        assert_eq!(read_whole(&place, 5).as_deref(), Some(&b"five!"[..]));
        assert_eq!(read_whole(&place, 4), None);
        assert_eq!(read_whole(folder.path(), 1 << 20), None);
        assert_eq!(read_whole(&folder.path().join("absent"), 5), None);
        // Terabytes that a file system makes up.
        fs::File::create(&place).and_then(|file| file.set_len(1 << 40)).expect("a file with a hole");
        assert_eq!(read_whole(&place, 1 << 20), None);
    }

    /// Whoever opens a pipe for reading waits until somebody opens it for writing.
    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut good = kept("one", "text", &[("a", "x")]);
        let place = folder.path().join(good.file_name());
        let made = std::process::Command::new("mkfifo").arg(&place).status().expect("the program mkfifo");
        assert!(made.success(), "{made}");
        assert_eq!(read_whole(&place, 1 << 20), None);
        assert_eq!(read_whole(Path::new("/dev/zero"), 1 << 20), None);
        // It reads what is there before it writes, and puts a file in the place of the pipe.
        good.write(folder.path()).expect("a file");
        let mut read = kept("one", "text", &[]);
        read.read(folder.path());
        assert_eq!(read, good);
    }
}
