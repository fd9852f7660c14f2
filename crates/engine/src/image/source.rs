//! From what a user names (files, directories, patterns, lists) to the paths of pictures.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::{fs, io, vec};

use glob::MatchOptions;

use crate::error::{Error, Result};

/// Extensions by which pictures are recognised in directories and patterns, in lower case.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"];

/// Longest line of a list; a longer one is no path but a file of another kind.
const MAX_LINE_BYTES: u64 = 64 << 10;

// As in a shell: `*` stays within one directory and passes over hidden files.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether the extension of `path` is one of a picture, in any case.
#[must_use]
pub fn is_picture_path(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// Turns sources into paths of pictures, in the order in which they are named.
///
/// A source is a file (whatever its extension), a directory (the pictures directly in it, by name), or a pattern with
/// `*`, `?`, `[..]` and `**` (the pictures that match, by name). An existing file or directory is taken as itself even
/// if its name looks like a pattern. Directories and patterns are looked up when the iteration reaches them. A source
/// that is not there, is no valid pattern or holds no picture gives an error in its place, which names it.
pub fn expand<I>(sources: I) -> Paths
where
    I: IntoIterator,
    I::Item: Into<PathBuf>,
{
    Paths { sources: sources.into_iter().map(Into::into).collect(), current: Current::None }
}

/// Reads a list of paths, one a line; blank lines are passed over and nothing is expanded.
///
/// Errors with `ErrorKind::Io` when reading fails, and with `Limit` at a line longer than 64 KiB; both end the list.
pub fn read_lines<R: BufRead>(reader: R) -> PathLines<R> {
    PathLines { reader: Some(reader) }
}

/// Iterator over the pictures of some sources; see [`expand`].
#[derive(Debug)]
pub struct Paths {
    sources: VecDeque<PathBuf>,
    current: Current,
}

#[derive(Debug)]
enum Current {
    None,
    Directory(vec::IntoIter<PathBuf>),
    Pattern { pattern: String, paths: Box<glob::Paths>, found: bool },
}

impl Iterator for Paths {
    type Item = Result<PathBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match &mut self.current {
                Current::None => {}
                Current::Directory(paths) => {
                    if let Some(path) = paths.next() {
                        return Some(Ok(path));
                    }
                }
                Current::Pattern { pattern, paths, found } => {
                    if let Some(item) = next_match(paths) {
                        *found = true;
                        return Some(item);
                    }
                    if !*found {
                        let error = Error::argument(pattern.as_str(), "pattern matches no picture");
                        self.current = Current::None;
                        return Some(Err(error));
                    }
                }
            }
            self.current = Current::None;
            let source = self.sources.pop_front()?;
            match begin(&source) {
                Ok(Begun::File) => return Some(Ok(source)),
                Ok(Begun::Many(current)) => self.current = current,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

enum Begun {
    File,
    Many(Current),
}

fn begin(source: &Path) -> Result<Begun> {
    let at = || source.display().to_string();
    match fs::metadata(source) {
        Ok(meta) if meta.is_dir() => {
            let paths = pictures_in(source).map_err(|error| Error::io(at(), error))?;
            if paths.is_empty() {
                return Err(Error::argument(at(), "directory holds no picture"));
            }
            Ok(Begun::Many(Current::Directory(paths.into_iter())))
        }
        Ok(_) => Ok(Begun::File),
        Err(error) => match source.to_str() {
            Some("") => Err(Error::argument("source", "is empty")),
            Some(pattern) if pattern.contains(['*', '?', '[']) => {
                let paths = glob::glob_with(pattern, MATCH)
                    .map_err(|error| Error::argument(at(), "not a valid pattern").with_source(error))?;
                Ok(Begun::Many(Current::Pattern {
                    pattern: pattern.to_owned(),
                    paths: Box::new(paths),
                    found: false,
                }))
            }
            _ => Err(Error::io(at(), error)),
        },
    }
}

fn pictures_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && is_picture_path(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn next_match(paths: &mut glob::Paths) -> Option<Result<PathBuf>> {
    loop {
        match paths.next()? {
            Ok(path) if is_picture_path(&path) && !path.is_dir() => return Some(Ok(path)),
            Ok(_) => {}
            Err(error) => {
                let at = error.path().display().to_string();
                return Some(Err(Error::io(at, error.into())));
            }
        }
    }
}

/// Iterator over the paths of a list; see [`read_lines`].
#[derive(Debug)]
pub struct PathLines<R> {
    reader: Option<R>,
}

impl<R: BufRead> Iterator for PathLines<R> {
    type Item = Result<PathBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            let reader = self.reader.as_mut()?;
            let error = match reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => {
                    self.reader = None;
                    return None;
                }
                Ok(n) if n as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") => {
                    Error::limit("list of sources", format!("line is longer than {MAX_LINE_BYTES} bytes"))
                }
                Ok(_) => {
                    while let Some(b'\n' | b'\r') = line.last() {
                        line.pop();
                    }
                    if line.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    return Some(path_from_bytes(line));
                }
                Err(error) => Error::io("list of sources", error),
            };
            self.reader = None;
            return Some(Err(error));
        }
    }
}

#[cfg(unix)]
fn path_from_bytes(bytes: Vec<u8>) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: Vec<u8>) -> Result<PathBuf> {
    match String::from_utf8(bytes) {
        Ok(path) => Ok(path.into()),
        Err(error) => {
            let at = String::from_utf8_lossy(error.as_bytes()).into_owned();
            Err(Error::argument(at, "path is not UTF-8"))
        }
    }
}
