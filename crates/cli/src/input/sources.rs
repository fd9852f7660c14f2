//! From `--source` to the pictures it names.

use std::io::{BufReader, stdin};
use std::path::PathBuf;

use ferroyolo::image::source::{expand, read_lines};

use super::pipeline::Item;
use crate::error::Error;

/// Shown in place of a path for the picture that is built in.
pub const SAMPLE_NAME: &str = "sample.png";

/// The picture that is built in.
pub const SAMPLE: &[u8] = include_bytes!("../../assets/sample.png");

/// The pictures of some sources.
pub struct Sources {
    /// The pictures, in the order of the sources.
    pub items: Box<dyn Iterator<Item = Item> + Send>,
    /// Their number, unless some are read from stdin.
    pub total: Option<usize>,
    /// The files among them, as far as they are known beforehand.
    pub files: Vec<PathBuf>,
    /// The directories that hold files among them, as far as they are known beforehand.
    pub directories: Vec<PathBuf>,
}

/// Looks up what `sources` name; without any, that is the sample picture.
///
/// Files, directories and patterns are looked up now, `-` while the pictures are taken.
pub fn find(sources: &[PathBuf]) -> Sources {
    if sources.is_empty() {
        let sample = Item::Memory(SAMPLE_NAME, SAMPLE);
        return Sources {
            items: Box::new(std::iter::once(sample)),
            total: Some(1),
            files: Vec::new(),
            directories: Vec::new(),
        };
    }
    let mut items: Box<dyn Iterator<Item = Item> + Send> = Box::new(std::iter::empty());
    let mut total = Some(0);
    let mut files = Vec::new();
    let mut directories = Vec::new();
    for source in sources {
        if source.as_os_str() == "-" {
            let lines = std::iter::once_with(|| read_lines(BufReader::new(stdin()))).flatten();
            items = Box::new(items.chain(lines.map(to_item)));
            total = None;
        } else {
            let found: Vec<_> = expand([source]).map(to_item).collect();
            total = total.map(|n| n + found.len());
            for item in &found {
                let Item::File(path) = item else { continue };
                files.push(path.clone());
                if let Some(directory) = path.parent()
                    && directories.last().is_none_or(|last| last != directory)
                {
                    directories.push(directory.to_path_buf());
                }
            }
            items = Box::new(items.chain(found));
        }
    }
    Sources { items, total, files, directories }
}

fn to_item(found: ferroyolo::Result<PathBuf>) -> Item {
    match found {
        Ok(path) => Item::File(path),
        Err(error) => Item::Broken(error.at().to_owned(), Error::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_stands_in_for_no_source() {
        let sources = find(&[]);
        assert_eq!(sources.total, Some(1));
        assert!(matches!(sources.items.last(), Some(Item::Memory(SAMPLE_NAME, _))));
        assert!(ferroyolo::Image::decode(SAMPLE).is_ok());
    }

    #[test]
    fn what_is_missing_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.png");
        std::fs::write(&file, b"").unwrap();
        let absent = dir.path().join("absent.png");
        let sources = find(&[absent.clone(), file.clone()]);
        assert_eq!(sources.total, Some(2));
        assert_eq!(sources.directories, [dir.path()]);
        assert_eq!(sources.files, [file.as_path()]);
        let items: Vec<_> = sources.items.collect();
        assert!(matches!(&items[0], Item::Broken(name, _) if *name == absent.display().to_string()));
        assert!(matches!(&items[1], Item::File(path) if *path == file));
    }
}
