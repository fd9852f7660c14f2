//! What a run reads, so that nothing of it is written over.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::file::{Identity, identity};
use crate::error::{Error, Result};

/// The files that a run reads, by whatever name they are found.
///
/// Those that are named on stdin are not known before their turn comes. For them it is remembered, by hashes, which files
/// were replaced, so that one of these is not taken for the picture that it was.
#[derive(Debug, Default)]
pub struct Inputs {
    known: HashMap<Identity, PathBuf>,
    json: Option<Identity>,
    replaced: HashSet<u64>,
    has_late: bool,
}

impl Inputs {
    /// The `files` of a run; `has_late` says whether there are others that are known only later.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>, has_late: bool) -> Self {
        let known = files.into_iter().filter_map(|path| Some((identity(path).ok()?, path.to_path_buf())));
        Self { known: known.collect(), json: None, replaced: HashSet::new(), has_late }
    }

    /// Adds the file that `--json` writes, which exists by now: it is not to be written over either.
    pub fn keep_json(&mut self, path: &Path) {
        self.json = identity(path).ok();
    }

    /// Errors if `target`, to which something about `path` is to be written, is a file that the run reads, or
    /// that of `--json`.
    ///
    /// Else it counts as written from here on.
    pub fn refuse(&mut self, path: &Path, target: &Path) -> Result<()> {
        // What is not there can't be lost.
        let Ok(found) = identity(target) else { return Ok(()) };
        let what = match self.known.get(&found) {
            _ if identity(path).is_ok_and(|own| own == found) => "the source itself".into(),
            Some(input) => format!("the input {}", input.display()),
            None if self.json.as_ref() == Some(&found) => "the file of --json".into(),
            None => {
                if self.has_late {
                    self.replaced.extend(key(target));
                }
                return Ok(());
            }
        };
        Err(Error::failed(format!("{}: not saved, {} is {what}", path.display(), target.display())))
    }

    /// Errors if the file at `path` was replaced by this run before its turn came.
    pub fn refuse_replaced(&self, path: &Path) -> Result<()> {
        if self.replaced.is_empty() || !key(path).is_some_and(|key| self.replaced.contains(&key)) {
            return Ok(());
        }
        let path = path.display();
        Err(Error::failed(format!("{path}: was overwritten by what is saved about an earlier source")))
    }
}

/// A file that exists, by the one path that leads to it without links.
fn key(path: &Path) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    fs::canonicalize(path).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_found_by_any_name_and_both_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name), b"").unwrap();
        }
        let files = [path("a"), path("b"), path("absent")];
        let mut inputs = Inputs::new(files.iter().map(PathBuf::as_path), false);
        let mut names = vec![path("b"), path("./b")];
        if cfg!(unix) {
            fs::hard_link(path("b"), path("hard")).unwrap();
            names.push(path("hard"));
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("b"), path("soft")).unwrap();
            names.push(path("soft"));
        }
        for target in names {
            let error = inputs.refuse(&path("a"), &target).unwrap_err().chain();
            assert!(error.contains(&format!("the input {}", path("b").display())), "{error}");
            assert!(error.contains(&target.display().to_string()), "{error}");
            let error = inputs.refuse(&path("b"), &target).unwrap_err().chain();
            assert!(error.ends_with("is the source itself"), "{error}");
        }
        for target in ["c", "absent", "nowhere/a"] {
            inputs.refuse(&path("a"), &path(target)).unwrap();
        }
        inputs.refuse_replaced(&path("c")).unwrap();
    }

    #[test]
    fn what_was_replaced_is_known_when_its_turn_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            fs::write(path(name), b"").unwrap();
        }
        let mut inputs = Inputs::new([], true);
        inputs.refuse(&path("a"), &path("b")).unwrap();
        inputs.refuse(&path("a"), &path("new")).unwrap();
        fs::write(path("new"), b"").unwrap();
        let error = inputs.refuse_replaced(&path("./b")).unwrap_err().chain();
        assert!(error.contains("overwritten"), "{error}");
        for name in ["a", "new", "absent"] {
            inputs.refuse_replaced(&path(name)).unwrap();
        }
    }
}
