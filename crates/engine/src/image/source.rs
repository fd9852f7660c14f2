//! From what a user names (files, directories, patterns, lists) to the paths of pictures.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, Read};
use std::path::{Component, Path, PathBuf};
use std::{fs, io, vec};

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Result};

/// Extensions by which pictures are recognised in directories and patterns, in lower case.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"];

/// Longest line of a list; a longer one is no path but a file of another kind.
const MAX_LINE_BYTES: u64 = 64 << 10;

// As in a shell, `*` stays within one directory. `glob` panics at names that are not UTF-8 when it passes over hidden
// files itself, so that is done here.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

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
/// if its name looks like a pattern. Directories and patterns are looked up when the iteration reaches them, and give
/// regular files only, hidden ones only where a pattern names the dot; names that are not UTF-8 match no pattern. A
/// source that is not there, is no valid pattern or holds no picture gives an error in its place, which names it.
pub fn expand<I>(sources: I) -> Paths
where
    I: IntoIterator,
    I::Item: Into<PathBuf>,
{
    expand_to(sources, is_picture_path)
}

/// As [`expand`], with the files that `is_wanted` in place of pictures, for example videos too.
pub fn expand_to<I>(sources: I, is_wanted: fn(&Path) -> bool) -> Paths
where
    I: IntoIterator,
    I::Item: Into<PathBuf>,
{
    Paths { sources: sources.into_iter().map(Into::into).collect(), current: Current::None, is_wanted }
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
    is_wanted: fn(&Path) -> bool,
}

#[derive(Debug)]
enum Current {
    None,
    Directory(vec::IntoIter<PathBuf>),
    Pattern { pattern: String, dotted: Vec<Pattern>, paths: Box<glob::Paths>, found: bool },
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
                Current::Pattern { pattern, dotted, paths, found } => {
                    if let Some(item) = next_match(paths, dotted, self.is_wanted) {
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
            match begin(&source, self.is_wanted) {
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

fn begin(source: &Path, is_wanted: fn(&Path) -> bool) -> Result<Begun> {
    let at = || source.display().to_string();
    match fs::metadata(source) {
        Ok(meta) if meta.is_dir() => {
            let paths = wanted_in(source, is_wanted).map_err(|error| Error::io(at(), error))?;
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
                    dotted: dotted_parts(pattern),
                    paths: Box::new(paths),
                    found: false,
                }))
            }
            _ => Err(Error::io(at(), error)),
        },
    }
}

fn wanted_in(directory: &Path, is_wanted: fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && is_wanted(&path) && may_be_read(&path) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn next_match(
    paths: &mut glob::Paths,
    dotted: &[Pattern],
    is_wanted: fn(&Path) -> bool,
) -> Option<Result<PathBuf>> {
    loop {
        match paths.next()? {
            Ok(path) if is_wanted(&path) && !is_hidden(&path, dotted) && may_be_read(&path) => {
                return Some(Ok(path));
            }
            Err(error) if !is_hidden(error.path(), dotted) => {
                let at = error.path().display().to_string();
                return Some(Err(Error::io(at, error.into())));
            }
            _ => {}
        }
    }
}

/// Whether `path` is a regular file, or something broken whose error is to be told, such as a dangling link.
///
/// Opening a pipe named like a picture would wait for a writer.
fn may_be_read(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |meta| meta.is_file())
}

/// The parts of a pattern that begin with a dot, and so match hidden names.
fn dotted_parts(pattern: &str) -> Vec<Pattern> {
    let parts = pattern.split(std::path::is_separator).filter(|part| part.starts_with('.'));
    parts.filter_map(|part| Pattern::new(part).ok()).collect()
}

/// Whether a hidden file or directory is in `path` that no part of the pattern names.
fn is_hidden(path: &Path, dotted: &[Pattern]) -> bool {
    path.components().any(|part| match part {
        Component::Normal(name) if name.as_encoded_bytes().starts_with(b".") => {
            !dotted.iter().any(|known| known.matches(&name.to_string_lossy()))
        }
        _ => false,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that `source` in `directory` leads to; `!` stands for an error.
    fn check(directory: &Path, source: &str, expected: &[&str]) {
        let found: Vec<_> = expand([directory.join(source)])
            .map(|item| match item {
                Ok(path) => path.strip_prefix(directory).unwrap().display().to_string(),
                Err(_) => "!".into(),
            })
            .collect();
        assert_eq!(found, expected, "{source}");
    }

    fn directory_of(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::Builder::new().prefix("source").tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        directory
    }

    #[test]
    fn other_files_can_be_wanted() {
        let directory = directory_of(&["a.jpg", "b.mp4", "c.txt"]);
        let is_wanted = |path: &Path| path.extension().is_some_and(|extension| extension == "mp4");
        for source in ["", "*"] {
            let found: Vec<_> = expand_to([directory.path().join(source)], is_wanted).collect();
            assert!(matches!(&found[..], [Ok(path)] if path.ends_with("b.mp4")), "{found:?}");
        }
    }

    #[test]
    fn hidden_files_must_be_named() {
        let directory = directory_of(&["a.jpg", ".b.jpg", ".c/d.jpg", ".c/.e.jpg", "f/.g/h.jpg", "f/i.png"]);
        let check = |source: &str, expected: &[&str]| check(directory.path(), source, expected);
        check("", &["a.jpg"]);
        check("*", &["a.jpg"]);
        check("*.jpg", &["a.jpg"]);
        check("[.]b.jpg", &["!"]);
        check(".*.jpg", &[".b.jpg"]);
        check(".c/*", &[".c/d.jpg"]);
        check(".c/.?.jpg", &[".c/.e.jpg"]);
        check("*/d.jpg", &["!"]);
        check("**/*.jpg", &["a.jpg"]);
        check("f/../*.jpg", &["f/../a.jpg"]);
        check("f/.g/*.jpg", &["f/.g/h.jpg"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_not_utf8_harm_no_pattern() {
        use std::os::unix::ffi::OsStrExt as _;
        let directory = directory_of(&["a.jpg", "b/c.jpg"]);
        for parent in ["", "b"] {
            fs::write(directory.path().join(parent).join(OsStr::from_bytes(b"x\xff.txt")), b"").unwrap();
        }
        check(directory.path(), "*.jpg", &["a.jpg"]);
        check(directory.path(), "**/*.jpg", &["a.jpg", "b/c.jpg"]);
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_and_dangling_links_are_taken() {
        let directory = directory_of(&["a.jpg", "d.jpg/text"]);
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("absent", at("b.jpg")).unwrap();
        std::os::unix::fs::symlink("a.jpg", at("c.jpg")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("e.jpg")).unwrap();
        check(directory.path(), "", &["a.jpg", "b.jpg", "c.jpg"]);
        check(directory.path(), "*.jpg", &["a.jpg", "b.jpg", "c.jpg"]);
    }
}
