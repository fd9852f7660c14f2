//! What `predict` saves: annotated pictures, maps, masks, labels and crops.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroyolo::{Image, Results, Task};

use super::file::write_atomically;
use super::inputs::Inputs;
use super::labels;
use super::unique::{UniqueNames, as_component};
use super::video::VideoWriter;
use crate::args::Predict;
use crate::error::{Error, Result};
use crate::fetch::url;
use crate::input::pipeline::Label;
use crate::input::sources::Sources;
use crate::input::video::{Tools, Video};

/// Extensions that pictures can be saved with; others become PNG.
const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// Runs without a directory of their own go here, the second one to `predict2`, and so on.
const RUNS: &str = "runs";

/// What must not be written over.
pub struct Reads<'a> {
    /// The sources, as far as they are known.
    pub sources: &'a Sources,
    /// The model's file, if it has one.
    pub model: Option<&'a Path>,
    /// What the model is for, on which depends what is saved.
    pub task: Task,
}

/// Saves what was asked for, under names that no two pictures share.
pub struct Saver {
    directory: PathBuf,
    directory_real: PathBuf,
    pictures: bool,
    labels: bool,
    conf: bool,
    crops: bool,
    masks: bool,
    names: UniqueNames,
    inputs: Inputs,
    tools: Arc<Tools>,
    current: Option<Current>,
    n_saved: usize,
    last: PathBuf,
}

/// The video whose frames are being saved.
struct Current {
    video: Arc<Video>,
    stem: String,
    writer: Writer,
    /// Whether it was counted among what is saved, where no annotated video is; else it is when that is whole.
    is_counted: bool,
}

/// How far an annotated video is.
enum Writer {
    NotBegun,
    Open(VideoWriter),
    /// It failed, which has been told.
    Failed,
}

impl Saver {
    /// Makes the directory, if anything is to be saved.
    ///
    /// Errors if saving could overwrite what the run `reads`. `tools` encode videos.
    pub fn new(args: &Predict, reads: &Reads<'_>, tools: Arc<Tools>) -> Result<Option<Self>> {
        let pictures = args.save.is_some() || args.source.is_empty();
        if !(pictures || args.save_txt || args.save_crop || args.save_masks) {
            return Ok(None);
        }
        let directory = match &args.save {
            Some(directory) => {
                fs::create_dir_all(directory).map_err(|error| Error::at(directory, error))?;
                directory.clone()
            }
            None => new_run(Path::new(RUNS))?,
        };
        let directory_real = fs::canonicalize(&directory).map_err(|error| Error::at(&directory, error))?;
        let files = reads.sources.files.iter().map(PathBuf::as_path).chain(reads.model);
        let saver = Self {
            directory,
            directory_real,
            pictures,
            labels: args.save_txt,
            conf: args.save_conf,
            crops: args.save_crop,
            masks: args.save_masks,
            names: UniqueNames::default(),
            inputs: Inputs::new(files, reads.sources.total.is_none()),
            tools,
            current: None,
            n_saved: 0,
            last: PathBuf::new(),
        };
        let written = |source: &&PathBuf| saver.writes_to(source, reads.task);
        if let Some(source) = reads.sources.directories.iter().find(written) {
            let (directory, source) = (saver.directory.display(), named(source).display());
            return Err(Error::Usage(format!(
                "--save {directory}: {source} holds source pictures, which could be overwritten"
            )));
        }
        if saver.labels {
            make_directory(&saver.directory.join("labels"))?;
        }
        Ok(Some(saver))
    }

    /// Tells of the file that `--json` writes, so that nothing that is saved replaces it.
    pub fn keep_json(&mut self, path: &Path) {
        self.inputs.keep_json(path);
    }

    /// Turns to what `label` names, before it is saved; the error is that of the video before, which ends here.
    pub fn turn_to(&mut self, label: &Label) -> Result<()> {
        let Some(place) = &label.place else { return self.finish() };
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.video, &place.video)) {
            return Ok(());
        }
        let ended = self.finish();
        let stem = self.names.take(&stem_of(&label.path));
        let (video, writer) = (Arc::clone(&place.video), Writer::NotBegun);
        self.current = Some(Current { video, stem, writer, is_counted: false });
        ended
    }

    /// Saves what is wanted of the picture, or of the frame, that was turned to; a frame adds its number to the name.
    pub fn save(&mut self, label: &Label, image: &Image, results: &Results) -> Result<()> {
        let stem = match (&label.place, &self.current) {
            (Some(place), Some(current)) => {
                let stem = format!("{}_{}", current.stem, place.number);
                let has_map = results.class_map.is_some() || results.depth.is_some();
                // Names that no file gets need not be remembered.
                if self.labels || self.crops || self.masks || has_map { self.names.take(&stem) } else { stem }
            }
            _ => self.names.take(&stem_of(&label.path)),
        };
        if self.pictures {
            if let Some(place) = &label.place {
                self.save_frame(&label.path, place.number, image, results)?;
            } else {
                let target = self.directory.join(format!("{stem}.{}", saved_extension(&label.path)));
                self.refuse_own(&label.path)?;
                self.inputs.refuse(&label.path, &target)?;
                results.plot(image).save(&target).map_err(|error| Error::at(&target, error))?;
                self.last = target;
            }
            if let Some(map) = &results.class_map {
                self.save_map(label, "classes", &stem, map.to_png())?;
            }
            if let Some(map) = &results.depth {
                self.save_map(label, "depth", &stem, map.to_png())?;
            }
        }
        if self.labels {
            let target = self.directory.join("labels").join(format!("{stem}.txt"));
            self.inputs.refuse(&label.path, &target)?;
            write_atomically(&target, labels::lines(results, self.conf).as_bytes())?;
        }
        if self.crops {
            self.save_crops(label, &stem, image, results)?;
        }
        if let Some(masks) = results.masks.as_ref().filter(|_| self.masks) {
            for idx in 0..masks.len() {
                self.save_map(label, "masks", &format!("{stem}_{}", idx + 1), masks.to_png(idx))?;
            }
        }
        match &mut self.current {
            Some(current) => {
                let is_new = !self.pictures && !std::mem::replace(&mut current.is_counted, true);
                self.n_saved += usize::from(is_new);
            }
            None => self.n_saved += 1,
        }
        Ok(())
    }

    /// Ends the video whose frames were saved last, if there is one.
    pub fn finish(&mut self) -> Result<()> {
        if let Some(Current { writer: Writer::Open(writer), .. }) = self.current.take() {
            self.last = writer.finish()?;
            self.n_saved += 1;
        }
        Ok(())
    }

    /// Adds a frame to the annotated video. After a failure, which is told once, there is none.
    fn save_frame(&mut self, path: &Path, number: u64, image: &Image, results: &Results) -> Result<()> {
        let Some(Current { video, stem, writer, .. }) = &self.current else { return Ok(()) };
        let written = match writer {
            Writer::Failed => return Ok(()),
            Writer::Open(_) => Ok(None),
            Writer::NotBegun => {
                let target = self.directory.join(format!("{stem}.mp4"));
                let rate = video.rate.with_stride(video.stride);
                let refused = self.refuse_own(path).and_then(|()| self.inputs.refuse(path, &target));
                refused
                    .and_then(|()| VideoWriter::create(&self.tools, &target, image.shape(), &rate))
                    .map(Some)
            }
        };
        let Some(current) = &mut self.current else { return Ok(()) };
        let written = written.and_then(|begun| {
            if let Some(writer) = begun {
                current.writer = Writer::Open(writer);
            }
            match &mut current.writer {
                Writer::Open(writer) => writer.write(&results.plot(image), number),
                Writer::NotBegun | Writer::Failed => Ok(()),
            }
        });
        if written.is_err() {
            current.writer = Writer::Failed;
        }
        written
    }

    /// Errors if what `label` names was replaced by what was saved before; only sources from stdin can be.
    pub fn refuse_replaced(&self, label: &Label) -> Result<()> {
        self.inputs.refuse_replaced(&label.path)
    }

    /// Errors if the source at `path`, which was known only late, lies where pictures are saved.
    fn refuse_own(&self, path: &Path) -> Result<()> {
        if self.is_own(path.parent().unwrap_or(Path::new(""))) && path.is_file() {
            let (path, directory) = (path.display(), self.directory.display());
            return Err(Error::failed(format!("{path}: not saved, {directory} holds the picture itself")));
        }
        Ok(())
    }

    /// One sentence about what was saved, if anything was.
    pub fn told(&self) -> Option<String> {
        match self.n_saved {
            0 => None,
            1 if self.pictures => Some(format!("saved {}", self.last.display())),
            n => Some(format!("saved results of {n} source(s) in {}", self.directory.display())),
        }
    }

    fn save_map(
        &mut self,
        label: &Label,
        kind: &str,
        stem: &str,
        png: ferroyolo::Result<Vec<u8>>,
    ) -> Result<()> {
        let directory = self.directory.join(kind);
        make_directory(&directory)?;
        let target = directory.join(format!("{stem}.png"));
        self.inputs.refuse(&label.path, &target)?;
        write_atomically(&target, &png.map_err(|error| Error::at(&target, error))?)
    }

    fn save_crops(&mut self, label: &Label, stem: &str, image: &Image, results: &Results) -> Result<()> {
        for (idx, found) in results.boxes.iter().enumerate() {
            let Some(crop) = crop(image, found.xyxy) else { continue };
            let directory = self.directory.join("crops").join(as_component(&results.name(found.class)));
            make_directory(&directory)?;
            let number = if idx == 0 { String::new() } else { format!("_{}", idx + 1) };
            let target = directory.join(format!("{stem}{number}.jpg"));
            self.inputs.refuse(&label.path, &target)?;
            crop.save(&target).map_err(|error| Error::at(&target, error))?;
        }
        Ok(())
    }

    fn is_own(&self, directory: &Path) -> bool {
        real(directory).is_ok_and(|directory| directory == self.directory_real)
    }

    /// Whether pictures are written to `directory` with a model for `task`.
    fn writes_to(&self, directory: &Path, task: Task) -> bool {
        if self.pictures && self.is_own(directory) {
            return true;
        }
        let kinds = [
            ("masks", self.masks),
            ("crops", self.crops),
            ("classes", self.pictures && task == Task::Semantic),
            ("depth", self.pictures && task == Task::Depth),
        ];
        let Ok(directory) = real(directory) else { return false };
        kinds.into_iter().filter(|(_, is_written)| *is_written).any(|(kind, _)| {
            // It may be a link itself. Crops have a folder for each class.
            real(&self.directory.join(kind))
                .is_ok_and(|own| directory == own || (kind == "crops" && directory.starts_with(&own)))
        })
    }
}

/// The path of `directory` without links.
fn real(directory: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(named(directory))
}

/// The parent of a file that is called by its name alone is called nothing.
fn named(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() { Path::new(".") } else { directory }
}

fn make_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(|error| Error::at(directory, error))
}

/// Makes `predict` in `runs`, or the first of `predict2`, `predict3`, ... that does not exist yet.
fn new_run(runs: &Path) -> Result<PathBuf> {
    make_directory(runs)?;
    for number in 1usize.. {
        let number = if number == 1 { String::new() } else { number.to_string() };
        let directory = runs.join(format!("predict{number}"));
        match fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::at(&directory, error)),
        }
    }
    Err(Error::failed(format!("{}: has no free name", runs.display())))
}

/// What files about the picture, video or URL are called.
fn stem_of(path: &Path) -> String {
    match path.to_str().filter(|text| url::kind(text).is_some()) {
        Some(url) => url::file_stem(url),
        None => path.file_stem().unwrap_or(OsStr::new("image")).to_string_lossy().into_owned(),
    }
}

fn saved_extension(path: &Path) -> String {
    let of_url = path.to_str().filter(|text| url::kind(text).is_some()).map(url::path_of);
    let path = of_url.as_deref().map_or(path, Path::new);
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    if EXTENSIONS.contains(&extension.as_str()) { extension } else { "png".into() }
}

/// The pixels that the box touches, if there are any.
fn crop(image: &Image, [x1, y1, x2, y2]: [f32; 4]) -> Option<Image> {
    // Casts saturate, and turn what is not a number into 0.
    let from = |value: f32, side: usize| (value.floor().max(0.0) as usize).min(side);
    let to = |value: f32, side: usize| (value.ceil().max(0.0) as usize).min(side);
    let (left, right) = (from(x1, image.width()), to(x2, image.width()));
    let (top, bottom) = (from(y1, image.height()), to(y2, image.height()));
    if left >= right || top >= bottom {
        return None;
    }
    let rows = image.pixels().chunks_exact(image.width() * 3).take(bottom).skip(top);
    let pixels = rows.flat_map(|row| &row[left * 3..right * 3]).copied().collect();
    Image::from_rgb8(right - left, bottom - top, pixels).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_get_new_directories() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert_eq!(new_run(&runs).unwrap(), runs.join("predict"));
        assert_eq!(new_run(&runs).unwrap(), runs.join("predict2"));
        fs::write(runs.join("predict3"), b"").unwrap();
        assert_eq!(new_run(&runs).unwrap(), runs.join("predict4"));
    }

    #[test]
    fn pictures_keep_a_format_that_can_be_written() {
        for (path, extension) in [
            ("a.JPG", "jpg"),
            ("a.webp", "webp"),
            ("a.gif", "png"),
            ("a", "png"),
            ("https://a/b.jpg?c", "jpg"),
            ("https://a/b", "png"),
        ] {
            assert_eq!(saved_extension(Path::new(path)), extension);
        }
    }

    #[test]
    fn crops_lie_inside_the_picture() {
        let image = Image::from_rgb8(3, 2, (0..18).collect()).unwrap();
        let check = |xyxy, expected: Option<(usize, usize, u8)>| {
            let crop = crop(&image, xyxy);
            assert_eq!(
                crop.map(|crop| (crop.width(), crop.height(), crop.pixels()[0])),
                expected,
                "{xyxy:?}"
            );
        };
        check([0.0, 0.0, 3.0, 2.0], Some((3, 2, 0)));
        check([1.2, 1.0, 1.8, 1.1], Some((1, 1, 12)));
        check([-5.0, -5.0, 99.0, 99.0], Some((3, 2, 0)));
        check([2.0, 1.0, 2.0, 1.0], None);
        check([5.0, 5.0, 9.0, 9.0], None);
        check([f32::NAN; 4], None);
    }
}
