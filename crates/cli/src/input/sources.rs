//! From `--source` to the pictures it names.

use std::fs::File;
use std::io::{BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroyolo::Task;
use ferroyolo::image::source::{expand_to, is_picture_path, read_lines};

use super::pipeline::Item;
use super::video::{Frames, Input, Tools, is_video_path};
use crate::error::Error;
use crate::fetch::offline_error;
use crate::fetch::url::{self, Kind};

/// Shown in place of a path for the picture that is built in.
pub const SAMPLE_NAME: &str = "sample.png";

/// The picture that is built in.
pub const SAMPLE: &[u8] = include_bytes!("../../assets/sample.png");

/// The same for the picture of a single object.
const OBJECT_NAME: &str = "object.png";

/// The picture that is built in for models that say what a whole picture shows.
const OBJECT: &[u8] = include_bytes!("../../assets/object.png");

/// Bytes of a packet of a transport stream (ISO/IEC 13818-1).
const PACKET: usize = 188;

/// The first byte of each.
const SYNC: u8 = 0x47;

/// The pictures of some sources.
pub struct Sources {
    /// The pictures, in the order of the sources.
    pub items: Box<dyn Iterator<Item = Item> + Send>,
    /// Their number, unless some are read from stdin; a video counts as one.
    pub total: Option<usize>,
    /// Whether there are videos, streams or cameras among them, as far as that is known beforehand.
    pub has_video: bool,
    /// The files among them, as far as they are known beforehand.
    pub files: Vec<PathBuf>,
    /// The directories that hold files among them, as far as they are known beforehand.
    pub directories: Vec<PathBuf>,
}

/// How sources are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Runs the programs that decode videos.
    pub tools: Arc<Tools>,
    /// Every so many frames of a video one is taken.
    pub vid_stride: u64,
    /// Whether the network is not to be used.
    pub is_offline: bool,
}

/// Looks up what `sources` name; without any, that is the sample picture for `task`.
///
/// Files, directories and patterns are looked up now, `-` while the pictures are taken. URLs and videos are opened when
/// their turn comes.
pub fn find(sources: &[PathBuf], task: Task, reading: &Reading) -> Sources {
    if sources.is_empty() {
        let sample = match task {
            Task::Classify => Item::Memory(OBJECT_NAME, OBJECT),
            _ => Item::Memory(SAMPLE_NAME, SAMPLE),
        };
        return Sources {
            items: Box::new(std::iter::once(sample)),
            total: Some(1),
            has_video: false,
            files: Vec::new(),
            directories: Vec::new(),
        };
    }
    let mut items: Box<dyn Iterator<Item = Named> + Send> = Box::new(std::iter::empty());
    let mut total = Some(0);
    let mut has_video = false;
    let mut files = Vec::new();
    let mut directories = Vec::new();
    for source in sources {
        if source.as_os_str() == "-" {
            let lines = std::iter::once_with(|| read_lines(BufReader::new(stdin()))).flatten();
            let reading = reading.clone();
            items = Box::new(items.chain(lines.map(move |line| line_to_named(line, &reading))));
            total = None;
            continue;
        }
        let found: Vec<_> = match elsewhere(source, reading) {
            Some(named) => vec![named],
            None => expand_to([source], is_picture_or_video).map(found_to_named).collect(),
        };
        total = total.map(|n| n + found.len());
        for named in &found {
            has_video |= matches!(named, Named::Video(..));
            let (Named::Item(Item::File(path)) | Named::Video(Input::File(path), _)) = named else {
                continue;
            };
            files.push(path.clone());
            if let Some(directory) = path.parent()
                && directories.last().is_none_or(|last| last != directory)
            {
                directories.push(directory.to_path_buf());
            }
        }
        items = Box::new(items.chain(found));
    }
    let (tools, stride) = (Arc::clone(&reading.tools), reading.vid_stride);
    let open = move |named| -> Box<dyn Iterator<Item = Item> + Send> {
        match named {
            Named::Item(item) => Box::new(std::iter::once(item)),
            Named::Video(input, name) => Box::new(Frames::new(input, name, stride, Arc::clone(&tools))),
        }
    };
    Sources { items: Box::new(items.flat_map(open)), total, has_video, files, directories }
}

/// What a source names.
enum Named {
    Item(Item),
    /// A video, and what to call it.
    Video(Input, String),
}

/// Whether a file that no source names itself is one of those that are meant.
fn is_picture_or_video(path: &Path) -> bool {
    is_picture_path(path) || (is_video_path(path) && !is_typescript(path))
}

/// Whether a file is named like a transport stream but begins unlike one; `.ts` is TypeScript's extension as well.
fn is_typescript(path: &Path) -> bool {
    let is_named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ts"));
    // Opening a pipe would wait for a writer; and what can't be read is to be told later.
    if !is_named || !path.is_file() {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PACKET as u64 + 1).read_to_end(&mut head));
    read.is_ok() && (head.first() != Some(&SYNC) || head.get(PACKET).is_some_and(|&byte| byte != SYNC))
}

fn found_to_named(found: ferroyolo::Result<PathBuf>) -> Named {
    match found {
        Ok(path) if is_video_path(&path) => {
            let name = path.display().to_string();
            Named::Video(Input::File(path), name)
        }
        Ok(path) => Named::Item(Item::File(path)),
        Err(error) => Named::Item(Item::Broken(error.at().to_owned(), Error::from(error))),
    }
}

fn line_to_named(line: ferroyolo::Result<PathBuf>, reading: &Reading) -> Named {
    match line {
        Ok(path) => elsewhere(&path, reading).unwrap_or_else(|| found_to_named(Ok(path))),
        error => found_to_named(error),
    }
}

/// A source that is not in the file system: a URL or a camera.
fn elsewhere(source: &Path, reading: &Reading) -> Option<Named> {
    if let Some(camera) = Input::camera(source) {
        return Some(Named::Video(camera, source.display().to_string()));
    }
    let text = source.to_str()?;
    let kind = url::kind(text)?;
    let shown = url::without_password(text);
    Some(match kind {
        _ if reading.is_offline => Named::Item(Item::Broken(shown.clone(), offline_error(&shown))),
        Kind::Picture => Named::Item(Item::Url(text.into())),
        Kind::Video => Named::Video(Input::Url(text.into()), shown),
        Kind::Unknown => {
            let reason =
                format!("{shown}: URLs of this kind are not read; http, https and streams such as rtsp are");
            Named::Item(Item::Broken(shown, Error::failed(reason)))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::input::video::Children;

    fn reading(is_offline: bool) -> Reading {
        let tools = Arc::new(Tools::new(Children::default(), Duration::from_secs(1)));
        Reading { tools, vid_stride: 1, is_offline }
    }

    #[test]
    fn the_sample_stands_in_for_no_source() {
        for (task, name) in [(Task::Pose, SAMPLE_NAME), (Task::Classify, OBJECT_NAME)] {
            let sources = find(&[], task, &reading(false));
            assert_eq!(sources.total, Some(1));
            let Some(Item::Memory(found, bytes)) = sources.items.last() else {
                panic!("no picture for {task}")
            };
            assert_eq!(found, name);
            assert!(ferroyolo::Image::decode(bytes).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_missing_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.png");
        std::fs::write(&file, b"").unwrap();
        let absent = dir.path().join("absent.png");
        let sources = find(&[absent.clone(), file.clone()], Task::Detect, &reading(false));
        assert_eq!(sources.total, Some(2));
        assert_eq!(sources.directories, [dir.path()]);
        assert_eq!(sources.files, [file.as_path()]);
        let items: Vec<_> = sources.items.collect();
        assert!(matches!(&items[0], Item::Broken(name, _) if *name == absent.display().to_string()));
        assert!(matches!(&items[1], Item::File(path) if *path == file));
    }

    #[test]
    fn typescript_in_a_directory_is_no_video() {
        let dir = tempfile::tempdir().unwrap();
        let packets = [[&[SYNC][..], &[0; PACKET - 1]].concat(), vec![SYNC, 0]].concat();
        let mut torn = packets.clone();
        torn[PACKET] = b'x';
        for (name, bytes) in
            [("code.ts", &b"export const n = 1;\n"[..]), ("short.TS", &packets[..9]), ("clip.ts", &packets)]
        {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        for (name, bytes) in [("empty.ts", &[][..]), ("torn.ts", &torn)] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let files = |source: PathBuf| find(&[source], Task::Detect, &reading(false)).files;
        let expected = ["clip.ts", "short.TS"].map(|name| dir.path().join(name));
        assert_eq!(files(dir.path().to_path_buf()), expected);
        assert_eq!(files(dir.path().join("*.ts")), expected[..1]);
        // By its own name it is taken as what it is called.
        assert_eq!(files(dir.path().join("code.ts")), [dir.path().join("code.ts")]);
    }

    #[test]
    fn urls_are_not_looked_up_as_files() {
        let sources = ["http://a.invalid/b.jpg", "ftp://a.invalid/b.jpg"].map(PathBuf::from);
        let items: Vec<_> = find(&sources, Task::Detect, &reading(false)).items.collect();
        assert!(matches!(&items[0], Item::Url(url) if url == "http://a.invalid/b.jpg"));
        assert!(matches!(&items[1], Item::Broken(name, _) if name == "ftp://a.invalid/b.jpg"));
        let items: Vec<_> = find(&sources[..1], Task::Detect, &reading(true)).items.collect();
        assert!(matches!(&items[0], Item::Broken(_, error) if error.chain().contains("--offline")));
        assert!(find(&["http://a.invalid/b.mp4".into()], Task::Detect, &reading(false)).has_video);
    }
}
