//! Which pictures a data set has, and where their labels lie.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// File extensions that are taken for pictures, in lower case. Some can't be decoded; those pictures are then errors.
pub const PICTURE_EXTENSIONS: [&str; 12] =
    ["bmp", "dng", "heic", "jp2", "jpeg", "jpeg2000", "jpg", "mpo", "png", "tif", "tiff", "webp"];

/// Folders below a folder of pictures that are followed.
const MAX_DEPTH: usize = 32;

/// Bytes that a list of pictures may have.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Adds the pictures at `place`, seen from `root`: a folder with all below it, a text file that lists them, or a
/// picture.
pub fn find(root: &Path, place: &str, pictures: &mut Vec<PathBuf>) -> Result<()> {
    let path = clean(&root.join(place));
    let meta = fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
    if meta.is_dir() {
        return find_below(&path, 0, pictures);
    }
    if is_picture(&path) {
        pictures.push(path);
        return Ok(());
    }
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt")) {
        return Err(Error::dataset(
            &path,
            "is neither a folder, nor a picture, nor a .txt that lists pictures",
        ));
    }
    if !meta.is_file() {
        return Err(Error::dataset(&path, "is not a regular file"));
    }
    if meta.len() > MAX_LIST_BYTES {
        return Err(Error::dataset(&path, format!("has {} bytes, at most {MAX_LIST_BYTES}", meta.len())));
    }
    let text = fs::read_to_string(&path).map_err(|error| Error::io(&path, error))?;
    let here = path.parent().unwrap_or(Path::new(""));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // What is written from the list's own folder begins with a dot; all else is seen from the data set's.
        let base = if line.starts_with("./") { here } else { root };
        pictures.push(clean(&base.join(line)));
    }
    Ok(())
}

fn find_below(folder: &Path, depth: usize, pictures: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::dataset(folder, format!("lies more than {MAX_DEPTH} folders deep")));
    }
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        let is_hidden = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with('.'));
        if is_hidden {
            continue;
        }
        // A link that leads nowhere is found out when it is opened.
        if fs::metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            find_below(&path, depth + 1, pictures)?;
        } else if is_picture(&path) {
            pictures.push(path);
        }
    }
    Ok(())
}

/// Whether the name is that of a picture.
pub fn is_picture(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| PICTURE_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()))
}

/// The file that holds the labels of a picture.
///
/// The last folder called `images` becomes `labels`, the extension `txt`. Without such a folder labels lie beside
/// the pictures.
#[must_use]
pub fn label_path(picture: &Path) -> PathBuf {
    beside_images(picture, "labels").with_extension("txt")
}

/// `picture` with its last folder called `images` replaced by `other`, which may be several folders.
pub fn beside_images(picture: &Path, other: &str) -> PathBuf {
    let parts: Vec<_> = picture.components().collect();
    let folders = &parts[..parts.len().saturating_sub(1)];
    let images = folders.iter().rposition(|part| part.as_os_str() == "images");
    let replaced = |(idx, part): (usize, &Component<'_>)| {
        if Some(idx) == images { PathBuf::from(other) } else { part.into() }
    };
    parts.iter().enumerate().map(replaced).collect()
}

/// The path without `.` in it.
fn clean(path: &Path) -> PathBuf {
    let cleaned: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    if cleaned.as_os_str().is_empty() { PathBuf::from(".") } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_beside_the_images() {
        for (picture, labels) in [
            ("images/a.jpg", "labels/a.txt"),
            ("/d/images/val/a.b.png", "/d/labels/val/a.b.txt"),
            ("images/x/images/a.jpg", "images/x/labels/a.txt"),
            ("pictures/a.jpg", "pictures/a.txt"),
            ("my_images/a.jpg", "my_images/a.txt"),
            ("images", "images.txt"),
        ] {
            assert_eq!(label_path(Path::new(picture)), Path::new(labels));
        }
    }

    #[test]
    fn hidden_files_are_no_pictures() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.jpg", "b.jpg", "c.JPEG", "d.txt", "e"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let mut found = Vec::new();
        find(dir.path(), ".", &mut found).unwrap();
        found.sort();
        assert_eq!(found, [dir.path().join("b.jpg"), dir.path().join("c.JPEG")]);
    }

    /// Whoever opens a pipe waits for its other end.
    #[cfg(unix)]
    #[test]
    fn lists_are_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("list.txt");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let error = find(dir.path(), "list.txt", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().ends_with("list.txt: is not a regular file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn circles_of_folders_end() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        let mut found = Vec::new();
        assert!(find(dir.path(), "", &mut found).is_err());
    }
}
