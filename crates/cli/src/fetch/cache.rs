//! The cache of fetched models: each is fetched once, and what it is may not change afterwards.
//!
//! A file that arrives is written under another name, checked, and only then given its own, so that a reader sees all of
//! it or nothing. Its SHA-256 has to be the pinned one where that is known; else the one of the first fetch is kept
//! beside the file and holds from then on. Of several processes that want the same file one fetches it, and the others
//! wait for it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferroyolo_tools::Checkpoint;
use sha2::{Digest, Sha256};

use super::http::{self, Limits};
use super::known::WellKnown;
use super::{is_offline, patience};
use crate::error::{Error, Result};
use crate::output::console::{self, Download};
use crate::output::file::{create_beside, write_atomically};

/// Far more than any published model has.
const MAX_BYTES: u64 = 4 << 30;

/// Time for a model to arrive, at most.
const TOTAL: Duration = Duration::from_secs(4 * 60 * 60);

/// Extensions under which a model may lie in the cache; the first that is there is taken.
const EXTENSIONS: [&str; 3] = ["safetensors", "pt", "pth"];

/// How to come by a model.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Whether the network is not to be used, whatever the environment says.
    pub offline: bool,
    /// Whether to tell nothing but errors.
    pub quiet: bool,
}

/// The file that `given` means: a path, or a well-known name, whose file is in the cache or fetched into it.
pub fn locate(given: &Path, access: Access) -> Result<PathBuf> {
    locate_in(directory(), given, access)
}

fn locate_in(cache: Option<PathBuf>, given: &Path, access: Access) -> Result<PathBuf> {
    if given.exists() {
        return Ok(given.into());
    }
    let shown = given.display();
    let Some(known) = given.to_str().and_then(WellKnown::parse) else {
        let is_path = given.components().count() > 1 || given.extension().is_some();
        let also = if is_path { "" } else { ", and no well-known model has this name" };
        return Err(Error::failed(format!("{shown}: no such file or directory{also}")));
    };
    let Some(cache) = cache else {
        let advice = "set FERROYOLO_CACHE to a directory that is to hold fetched models";
        return Err(Error::failed(format!("{shown}: there is no cache directory; {advice}")));
    };
    if let Some(found) = find(&cache, &known)? {
        return Ok(found);
    }
    if is_offline(access.offline) {
        let why = "not here and not in the cache, and --offline or FERROYOLO_OFFLINE forbids to fetch it";
        return Err(Error::failed(format!("{shown}: {why}; {}", by_hand(&cache, &known))));
    }
    fs::create_dir_all(&cache).map_err(|error| Error::at(&cache, error))?;
    let lock = Lock::take(&cache, &known, access)?;
    // Another process may have fetched it while this one waited.
    if let Some(found) = find(&cache, &known)? {
        return Ok(found);
    }
    fetch(&cache, &known, &lock, access)
}

/// `$FERROYOLO_CACHE`, else the user's cache directory.
pub fn directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || match std::env::consts::OS {
        "windows" => variable("LOCALAPPDATA"),
        "macos" => variable("HOME").map(|home| home.join("Library/Caches")),
        _ => variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache"))),
    };
    variable("FERROYOLO_CACHE").or_else(|| user().map(|cache| cache.join("ferroyolo")))
}

/// What to do without the network.
fn by_hand(cache: &Path, known: &WellKnown) -> String {
    let (url, cache) = (known.shown_url(), cache.display());
    format!(
        "download {url} ({license}) and put it into {cache}, or give its path",
        license = known.publisher.license
    )
}

/// The model's file in `cache`, if it is there; errors if it is not what it has to be.
fn find(cache: &Path, known: &WellKnown) -> Result<Option<PathBuf>> {
    let places = EXTENSIONS.map(|extension| cache.join(format!("{}.{extension}", known.stem)));
    let Some(place) = places.into_iter().find(|place| place.is_file()) else { return Ok(None) };
    if place.file_name().is_some_and(|name| name == known.file.as_str()) {
        let record = record_path(cache, known);
        let hash = || hash_of(&place);
        if let Some(Mismatch { got, expected, by_record }) = compare(known, &record, hash)? {
            let advice = if by_record {
                let record = record.display();
                format!("delete the file to fetch it again, or, if the change was meant, delete {record}")
            } else {
                "delete the file to fetch it again, or give the path of another one".into()
            };
            let since = if by_record { "recorded when it was first fetched" } else { "published" };
            let place = place.display();
            return Err(Error::failed(format!(
                "{place}: its SHA-256 is {got}, expected {expected}, as {since}; {advice}"
            )));
        }
    }
    Ok(Some(place))
}

/// Where the SHA-256 of the first fetch is kept, in the form of `sha256sum`.
fn record_path(cache: &Path, known: &WellKnown) -> PathBuf {
    cache.join(format!("{}.sha256", known.file))
}

/// A file that is not what it has to be.
struct Mismatch {
    got: String,
    expected: String,
    by_record: bool,
}

/// Compares a file's hash with what is pinned or recorded; without either, it is not asked for.
fn compare(
    known: &WellKnown,
    record: &Path,
    hash: impl FnOnce() -> Result<String>,
) -> Result<Option<Mismatch>> {
    let pinned = known.pinned();
    let by_record = pinned.is_empty();
    let expected = if by_record {
        match fs::read_to_string(record) {
            Ok(text) => vec![read_record(record, &text)?],
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::at(record, error)),
        }
    } else {
        pinned.into_iter().map(str::to_owned).collect()
    };
    let got = hash()?;
    let differs = !expected.contains(&got);
    Ok(differs.then(|| Mismatch { got, expected: expected.join(" or "), by_record }))
}

fn read_record(record: &Path, text: &str) -> Result<String> {
    let hash = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(hash);
    }
    let record = record.display();
    Err(Error::failed(format!("{record}: holds no SHA-256; delete it to record the file's again")))
}

fn hash_of(path: &Path) -> Result<String> {
    let hash = || {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(hex(hasher)),
                Ok(n_bytes) => hasher.update(&chunk[..n_bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    hash().map_err(|error| Error::at(path, error))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches the model into `cache`.
fn fetch(cache: &Path, known: &WellKnown, lock: &Lock, access: Access) -> Result<PathBuf> {
    let url = known.shown_url();
    let limits = Limits { max_bytes: MAX_BYTES, patience: patience()?, total: TOTAL };
    let failed = |error: Error| {
        let (file, reason) = (&known.file, error.chain());
        Error::failed(format!("{file}: can't fetch {url}: {reason}; {}", by_hand(cache, known)))
    };
    if !access.quiet {
        let (publisher, license) = (known.publisher.name, known.publisher.license);
        console::notice(&format!("{url}: fetching; the weights are {publisher}'s, under {license}"));
    }
    let mut body = http::get(&known.url(), limits).map_err(failed)?;
    let mut part = Part::create(cache, known, lock)?;
    let progress = Download::new(body.length(), !access.quiet);
    let mut hasher = Sha256::new();
    while let Some(bytes) = body.next_bytes().map_err(failed)? {
        hasher.update(&bytes);
        part.write(&bytes)?;
        progress.advance(bytes.len());
    }
    drop(progress);
    let got = hex(hasher);
    let record = record_path(cache, known);
    if let Some(Mismatch { got, expected, by_record }) = compare(known, &record, || Ok(got.clone()))? {
        let (since, advice) = if by_record {
            let record = record.display();
            (
                "recorded at an earlier fetch",
                format!("; if the publisher's change is known to be good, delete {record}"),
            )
        } else {
            ("published", String::new())
        };
        return Err(Error::failed(format!(
            "{file}: {url} has the SHA-256 {got}, expected {expected}, as {since}; it was not kept{advice}",
            file = known.file,
        )));
    }
    // What a proxy or a login page sends in place of the model must not be recorded as the model.
    let bytes = fs::read(&part.path).map_err(|error| Error::at(&part.path, error))?;
    Checkpoint::from_bytes(&url, bytes).map_err(|error| failed(error.into()))?;
    let target = cache.join(&known.file);
    if known.pinned().is_empty() {
        write_atomically(&record, format!("{got}  {}\n", known.file).as_bytes())?;
    }
    part.publish(&target)?;
    if !access.quiet {
        console::notice(&format!("saved {}, SHA-256 {got}", target.display()));
    }
    Ok(target)
}

/// A file on its way, which goes away if it does not arrive.
struct Part {
    path: PathBuf,
    file: Option<File>,
}

impl Part {
    /// Begins the file. What an earlier process left behind is overwritten under the lock.
    fn create(cache: &Path, known: &WellKnown, lock: &Lock) -> Result<Self> {
        let path = cache.join(format!(".{}.part", known.file));
        let created = match lock.0 {
            Some(_) => File::create(&path).map(|file| (file, path.clone())),
            // Without the lock others may be at work.
            None => create_beside(&path, "part"),
        };
        let (file, path) = created.map_err(|error| Error::at(&path, error))?;
        Ok(Self { path, file: Some(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(|error| Error::at(&self.path, error))
    }

    /// Gives the file its name.
    fn publish(mut self, target: &Path) -> Result<()> {
        let synced = self.file.take().map_or(Ok(()), |file| file.sync_all());
        synced.and_then(|()| fs::rename(&self.path, target)).map_err(|error| Error::at(target, error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.file.take());
        // After it got its name it is not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// The right to fetch a model, as long as it is held; `None` inside where the file system has no locks.
struct Lock(Option<File>);

impl Lock {
    /// Waits until no other process fetches the model.
    fn take(cache: &Path, known: &WellKnown, access: Access) -> Result<Self> {
        let path = cache.join(format!(".{}.lock", known.file));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| Error::at(&path, error))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                if !access.quiet {
                    console::notice(&format!("{}: another process fetches it; waiting", known.file));
                }
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        Ok(Self(locked.is_ok().then_some(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFLINE: Access = Access { offline: true, quiet: true };

    #[test]
    fn well_known_names_are_found_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name: &str| locate_in(Some(dir.path().to_path_buf()), Path::new(name), OFFLINE);
        let error = find("yolox_nano").unwrap_err().chain();
        assert!(error.contains("yolox_nano.pth") && error.contains("https://"), "{error}");
        fs::write(dir.path().join("yolox_nano.pth"), b"").unwrap();
        assert_eq!(find("yolox_nano").unwrap(), dir.path().join("yolox_nano.pth"));
        fs::write(dir.path().join("yolox_nano.safetensors"), b"").unwrap();
        assert_eq!(find("yolox_nano.pth").unwrap(), dir.path().join("yolox_nano.safetensors"));
        assert!(find("absent/x.pt").unwrap_err().chain().contains("no such file"));
        assert!(find("yolo99").unwrap_err().chain().contains("no well-known model"));
        let nowhere = locate_in(None, Path::new("yolo11n"), OFFLINE).unwrap_err().chain();
        assert!(nowhere.contains("FERROYOLO_CACHE"), "{nowhere}");
    }

    #[test]
    fn a_file_that_is_not_the_pinned_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("yolov8n.pt"), b"abc").unwrap();
        let error = locate_in(Some(dir.path().to_path_buf()), Path::new("yolov8n"), OFFLINE);
        let error = error.unwrap_err().chain();
        // Both hashes are named; the first is FIPS 180's of "abc".
        for text in
            ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "303b7abb", "yolov8n.pt"]
        {
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_record_holds_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let find = || locate_in(Some(dir.path().to_path_buf()), Path::new("yolov9t"), OFFLINE);
        fs::write(path("yolov9t.pt"), b"abc").unwrap();
        assert!(find().is_ok(), "nothing is recorded of a file that was put there by hand");
        let hash = hash_of(&path("yolov9t.pt")).unwrap();
        fs::write(path("yolov9t.pt.sha256"), format!("{}  yolov9t.pt\n", hash.to_uppercase())).unwrap();
        assert!(find().is_ok());
        fs::write(path("yolov9t.pt"), b"abd").unwrap();
        let error = find().unwrap_err().chain();
        assert!(error.contains(&hash) && error.contains("yolov9t.pt.sha256"), "{error}");
        fs::write(path("yolov9t.pt.sha256"), "nonsense").unwrap();
        assert!(find().unwrap_err().chain().contains("holds no SHA-256"));
    }

    #[test]
    fn without_locks_two_write_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let known = WellKnown::parse("yolo11n").unwrap();
        let begin = || Part::create(dir.path(), &known, &Lock(None)).unwrap();
        let (mut first, mut second) = (begin(), begin());
        first.write(b"first").unwrap();
        second.write(b"second, and longer").unwrap();
        let target = dir.path().join(&known.file);
        second.publish(&target).unwrap();
        first.publish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_at_a_time_fetches() {
        let dir = tempfile::tempdir().unwrap();
        let known = WellKnown::parse("yolo11n").unwrap();
        let held = Lock::take(dir.path(), &known, OFFLINE).unwrap();
        let path = dir.path().join(".yolo11n.pt.lock");
        let other = File::options().write(true).open(path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
