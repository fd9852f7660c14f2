//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names that are tried for a temporary file; a process that is killed leaves one behind.
const MAX_ATTEMPTS: usize = 10_000;

/// Writes `bytes` to `path`, so that a reader sees the old file or the new one, never half of it.
///
/// Devices and pipes, which can't be replaced, are written to directly.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    // A link keeps pointing where it did; what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let written = match fs::metadata(&target) {
        Ok(meta) if !meta.is_file() => File::create(&target).and_then(|mut file| file.write_all(bytes)),
        _ => replace(&target, bytes),
    };
    written.map_err(|error| Error::at(path, error))
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = create_beside(target, "tmp")?;
    let done = file.write_all(bytes).and_then(|()| {
        drop(file);
        fs::rename(&temporary, target)
    });
    if done.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Errors if writing to `target`, given as `flag`, would overwrite one of `inputs`.
pub fn refuse_to_overwrite<'a>(
    flag: &str,
    target: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    // Devices and pipes keep nothing that could be lost.
    if target.is_file()
        && let Some(input) = inputs.into_iter().find(|input| is_same_file(input, target))
    {
        let (target, input) = (target.display(), input.display());
        return Err(Error::Usage(format!("{flag} {target}: would overwrite the input {input}")));
    }
    Ok(())
}

/// What a file has in common with no other, by whatever name it is found.
#[cfg(unix)]
pub type Identity = (u64, u64);

/// What a file has in common with no other, by whatever link it is found.
#[cfg(not(unix))]
pub type Identity = PathBuf;

/// The identity of the file at `path`, at the end of all links.
pub fn identity(path: &Path) -> io::Result<Identity> {
    #[cfg(unix)]
    return {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
    };
    #[cfg(not(unix))]
    fs::canonicalize(path)
}

/// Whether both paths lead to one file that exists.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

/// Creates a hidden file of a new name with `extension` in the directory of `target`.
///
/// The name is short, as that of `target` may be the longest allowed. It is nobody else's, even where processes in
/// several containers have one number and one directory.
pub fn create_beside(target: &Path, extension: &str) -> io::Result<(File, PathBuf)> {
    target.file_name().ok_or_else(|| io::Error::other("not the name of a file"))?;
    for attempt in 0..MAX_ATTEMPTS {
        let temporary = target.with_file_name(format!(".{}-{attempt}.{extension}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (file, temporary)),
        }
    }
    Err(io::Error::other("no free name for a temporary file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        write_atomically(&path, b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn names_beside_a_file_are_new() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.bin");
        let names = [(); 3].map(|()| create_beside(&target, "part").unwrap().1);
        assert!(names[0] != names[1] && names[1] != names[2] && names[2] != names[0], "{names:?}");
        assert!(names.iter().all(|name| name.is_file() && name.extension().unwrap() == "part"));
    }

    #[test]
    fn inputs_are_recognised_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), b"").unwrap();
        fs::write(path("b"), b"").unwrap();
        let mut names = vec![path("a"), path("./a")];
        if cfg!(unix) {
            fs::hard_link(path("a"), path("c")).unwrap();
            names.push(path("c"));
        }
        for name in names {
            let error = refuse_to_overwrite("--json", &name, [path("b").as_path(), &path("a")]).unwrap_err();
            assert_eq!(error.exit_status(), 2);
        }
        for name in ["b", "absent", ""] {
            assert!(refuse_to_overwrite("--json", &path(name), [path("a").as_path()]).is_ok(), "{name}");
        }
    }

    #[test]
    fn failures_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/a.bin");
        let error = write_atomically(&path, b"one").unwrap_err().chain();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(write_atomically(dir.path(), b"one").is_err());
    }
}
