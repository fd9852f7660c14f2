//! Data sets for classification: a folder for each class.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use crate::error::{Error, Result};

/// One split of a data set for classification: `ROOT/SPLIT/CLASS/PICTURE`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassFolders {
    /// Names of the class folders, sorted; their position is the index of the class.
    pub names: Vec<String>,
    /// The pictures with the index of their class, class by class, sorted.
    pub pictures: Vec<(PathBuf, usize)>,
}

impl ClassFolders {
    /// Looks up the class folders of `split` below `root`, and their pictures.
    ///
    /// Errors with `ErrorKind::Io` if a folder can't be read, and with `ErrorKind::Dataset` if the split is absent,
    /// has no class folders, or no pictures.
    pub fn open(root: &Path, split: &str) -> Result<Self> {
        let folder = root.join(split);
        if !folder.is_dir() {
            // Anything that can't be read is told as such.
            let found = subfolders(root)?;
            let message = format!("has no folder {split:?}, it has [{}]", found.join(", "));
            return Err(Error::dataset(root, message));
        }
        let names = subfolders(&folder)?;
        if names.is_empty() {
            return Err(Error::dataset(&folder, "has no folders, expected one for each class"));
        }
        let mut pictures = Vec::new();
        for (class, name) in names.iter().enumerate() {
            let mut of_class = Vec::new();
            files::find(&folder, name, &mut of_class)?;
            of_class.sort();
            pictures.extend(of_class.into_iter().map(|path| (path, class)));
        }
        if pictures.is_empty() {
            return Err(Error::dataset(&folder, "has no pictures in its class folders"));
        }
        Ok(Self { names, pictures })
    }
}

/// Names of the folders in `folder`, sorted, without hidden ones.
fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().and_then(OsStr::to_str);
        let name =
            name.ok_or_else(|| Error::dataset(&path, "is no text and can't be the name of a class"))?;
        if !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_folders() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["val/dog", "val/cat", "val/empty", "val/.hidden", "train"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in
            ["val/dog/b.jpg", "val/dog/a.png", "val/cat/c.jpg", "val/cat/notes.txt", "val/.hidden/x.jpg"]
        {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let found = ClassFolders::open(dir.path(), "val").unwrap();
        assert_eq!(found.names, ["cat", "dog", "empty"]);
        let names: Vec<_> =
            found.pictures.iter().map(|(path, class)| (path.file_name().unwrap(), *class)).collect();
        assert_eq!(names, [(OsStr::new("c.jpg"), 0), (OsStr::new("a.png"), 1), (OsStr::new("b.jpg"), 1)]);
        let told = |split: &str| ClassFolders::open(dir.path(), split).unwrap_err().to_string();
        assert!(told("test").ends_with("has no folder \"test\", it has [train, val]"));
        assert!(told("train").ends_with("has no folders, expected one for each class"));
        fs::create_dir_all(dir.path().join("train/cat")).unwrap();
        assert!(told("train").ends_with("has no pictures in its class folders"));
        assert!(ClassFolders::open(&dir.path().join("absent"), "val").is_err());
    }
}
