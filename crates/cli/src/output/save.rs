//! What `predict` saves: annotated pictures, maps, masks, labels and crops.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ferroyolo::{Image, Results};

use super::file::write_atomically;
use super::labels;
use super::unique::{UniqueNames, as_component};
use crate::args::Predict;
use crate::error::{Error, Result};

/// Extensions that pictures can be saved with; others become PNG.
const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// Runs without a directory of their own go here, the second one to `predict2`, and so on.
const RUNS: &str = "runs";

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
    n_saved: usize,
    last: PathBuf,
}

impl Saver {
    /// Makes the directory, if anything is to be saved.
    ///
    /// Pictures lie in `source_directories`; errors if saving could overwrite them.
    pub fn new(args: &Predict, source_directories: &[PathBuf]) -> Result<Option<Self>> {
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
        let saver = Self {
            directory,
            directory_real,
            pictures,
            labels: args.save_txt,
            conf: args.save_conf,
            crops: args.save_crop,
            masks: args.save_masks,
            names: UniqueNames::default(),
            n_saved: 0,
            last: PathBuf::new(),
        };
        if pictures && source_directories.iter().any(|directory| saver.is_own(directory)) {
            let directory = saver.directory.display();
            return Err(Error::Usage(format!(
                "--save {directory}: holds source pictures, which could be overwritten"
            )));
        }
        if saver.labels {
            make_directory(&saver.directory.join("labels"))?;
        }
        Ok(Some(saver))
    }

    /// Saves what is wanted of one picture.
    pub fn save(&mut self, path: &Path, image: &Image, results: &Results) -> Result<()> {
        let stem = path.file_stem().unwrap_or(OsStr::new("image")).to_string_lossy();
        let stem = self.names.take(&stem);
        if self.pictures {
            // Sources from stdin are known only now.
            if self.is_own(path.parent().unwrap_or(Path::new(""))) && path.is_file() {
                let directory = self.directory.display();
                return Err(Error::failed(format!(
                    "{}: not saved, {directory} holds the picture itself",
                    path.display()
                )));
            }
            let target = self.directory.join(format!("{stem}.{}", saved_extension(path)));
            results.plot(image).save(&target).map_err(|error| Error::at(&target, error))?;
            self.last = target;
            if let Some(map) = &results.class_map {
                self.save_map("classes", &stem, map.to_png())?;
            }
            if let Some(map) = &results.depth {
                self.save_map("depth", &stem, map.to_png())?;
            }
        }
        if self.labels {
            let target = self.directory.join("labels").join(format!("{stem}.txt"));
            write_atomically(&target, labels::lines(results, self.conf).as_bytes())?;
        }
        if self.crops {
            self.save_crops(&stem, image, results)?;
        }
        if let Some(masks) = results.masks.as_ref().filter(|_| self.masks) {
            for idx in 0..masks.len() {
                self.save_map("masks", &format!("{stem}_{}", idx + 1), masks.to_png(idx))?;
            }
        }
        self.n_saved += 1;
        Ok(())
    }

    /// One sentence about what was saved, if anything was.
    pub fn told(&self) -> Option<String> {
        match self.n_saved {
            0 => None,
            1 if self.pictures => Some(format!("saved {}", self.last.display())),
            n => Some(format!("saved results of {n} image(s) in {}", self.directory.display())),
        }
    }

    fn save_map(&self, kind: &str, stem: &str, png: ferroyolo::Result<Vec<u8>>) -> Result<()> {
        let directory = self.directory.join(kind);
        make_directory(&directory)?;
        let target = directory.join(format!("{stem}.png"));
        write_atomically(&target, &png.map_err(|error| Error::at(&target, error))?)
    }

    fn save_crops(&self, stem: &str, image: &Image, results: &Results) -> Result<()> {
        for (idx, found) in results.boxes.iter().enumerate() {
            let Some(crop) = crop(image, found.xyxy) else { continue };
            let directory = self.directory.join("crops").join(as_component(&results.name(found.class)));
            make_directory(&directory)?;
            let number = if idx == 0 { String::new() } else { format!("_{}", idx + 1) };
            let target = directory.join(format!("{stem}{number}.jpg"));
            crop.save(&target).map_err(|error| Error::at(&target, error))?;
        }
        Ok(())
    }

    fn is_own(&self, directory: &Path) -> bool {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        fs::canonicalize(directory).is_ok_and(|directory| directory == self.directory_real)
    }
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

fn saved_extension(path: &Path) -> String {
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
        for (path, extension) in [("a.JPG", "jpg"), ("a.webp", "webp"), ("a.gif", "png"), ("a", "png")] {
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
