//! Class maps: the labels of semantic segmentation, a PNG for each picture.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::files;
use crate::error::{Error, Result};

/// Folder of the class maps where the data set names none.
const DEFAULT_FOLDER: &str = "masks";

/// The value of pixels that count for nothing.
pub const IGNORED: u8 = 255;

/// Pixels that a class map may have.
const MAX_PIXELS: usize = 1 << 28;

/// The class of every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    /// Height and width in pixels.
    pub hw: [usize; 2],
    /// Index of the class of each pixel, rows from the top; [`IGNORED`] where there is none. Of a single class, 1 where
    /// it is and 0 elsewhere.
    pub classes: Vec<u8>,
}

/// Number of values in the class maps of a data set, from 0 on.
///
/// Each is a class, but where there is a single one: maps then have 1 where it is, and 0 elsewhere.
#[must_use]
pub fn n_map_values(n_classes: usize) -> usize {
    if n_classes == 1 { 2 } else { n_classes }
}

/// The file that holds the class map of a picture.
///
/// The last folder called `images` becomes `masks`, or `masks_dir` of the data set; the extension becomes `png`.
#[must_use]
pub fn mask_path(picture: &Path, masks_dir: Option<&str>) -> PathBuf {
    files::beside_images(picture, masks_dir.unwrap_or(DEFAULT_FOLDER)).with_extension("png")
}

impl ClassMap {
    /// Reads a PNG of one channel with up to 8 bits, or with a palette, whose indices count and not its colours.
    ///
    /// Errors with `ErrorKind::Io` if there is no such file, and with `ErrorKind::Label` if it is no such PNG or holds
    /// a value that is neither one of a data set of `n_classes` ([`n_map_values`]) nor [`IGNORED`].
    pub fn read(path: &Path, n_classes: usize) -> Result<Self> {
        let broken = |error: png::DecodingError| Error::label(path, "is no readable PNG").with_source(error);
        let meta = fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if !meta.is_file() {
            return Err(Error::label(path, "is not a regular file"));
        }
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let limits = Limits { bytes: 2 * MAX_PIXELS };
        let mut decoder = Decoder::new_with_limits(BufReader::new(file), limits);
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(broken)?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
        if !matches!(color, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen {
            let message = format!("is {color:?} of {depth:?} bits, expected one channel of at most 8 bits");
            return Err(Error::label(path, message));
        }
        if width.checked_mul(height).is_none_or(|n| n > MAX_PIXELS) {
            return Err(Error::label(
                path,
                format!("has {width}x{height} pixels, at most {MAX_PIXELS} in all"),
            ));
        }
        let len = reader.output_buffer_size().ok_or_else(|| Error::label(path, "is too large"))?;
        let mut packed = vec![0; len];
        let frame = reader.next_frame(&mut packed).map_err(broken)?;
        let classes: Vec<u8> = packed
            .chunks_exact(frame.line_size)
            .take(height)
            .flat_map(|row| unpack(row, depth, width))
            .collect();
        if let Some(at) = classes
            .iter()
            .position(|&class| class != IGNORED && usize::from(class) >= n_map_values(n_classes))
        {
            let (class, x, y) = (classes[at], at % width, at / width);
            let known = match n_classes {
                1 => "the maps of a single class have 0 and 1".to_owned(),
                _ => format!("the data set has classes 0 to {}", n_classes.saturating_sub(1)),
            };
            return Err(Error::label(path, format!("got class {class} at ({x}, {y}), {known}")));
        }
        Ok(Self { hw: [height, width], classes })
    }

    /// The map in another size, each pixel from the one that its upper left corner lies in.
    ///
    /// OpenCV's `INTER_NEAREST` does the same, by which class maps are scaled elsewhere.
    #[must_use]
    pub fn resized(&self, hw: [usize; 2]) -> Self {
        let from = |at: usize, axis: usize| {
            let at = at * self.hw[axis] / hw[axis].max(1);
            at.min(self.hw[axis].saturating_sub(1))
        };
        let columns: Vec<usize> = (0..hw[1]).map(|x| from(x, 1)).collect();
        let rows = (0..hw[0]).map(|y| &self.classes[from(y, 0) * self.hw[1]..][..self.hw[1]]);
        let classes = rows.flat_map(|row| columns.iter().map(|&x| row[x])).collect();
        Self { hw, classes }
    }
}

/// The `width` values of a row, which are packed from the high bits of each byte on.
fn unpack(row: &[u8], depth: BitDepth, width: usize) -> impl Iterator<Item = u8> + '_ {
    let bits = match depth {
        BitDepth::One => 1,
        BitDepth::Two => 2,
        BitDepth::Four => 4,
        BitDepth::Eight | BitDepth::Sixteen => 8,
    };
    let per_byte = 8 / bits;
    let mask = u8::MAX >> (8 - bits);
    (0..width).map(move |x| (row[x / per_byte] >> (8 - bits - bits * (x % per_byte))) & mask)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes a PNG of 3x2 pixels and reads it as a map of 3 classes.
    fn read(color: ColorType, depth: BitDepth, data: &[u8]) -> Result<ClassMap> {
        read_of(3, color, depth, data)
    }

    fn read_of(n_classes: usize, color: ColorType, depth: BitDepth, data: &[u8]) -> Result<ClassMap> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 3, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![9; 12]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        ClassMap::read(&path, n_classes)
    }

    #[test]
    fn a_single_class_has_two_values() {
        let read = |data: &[u8]| read_of(1, ColorType::Grayscale, BitDepth::Eight, data);
        assert_eq!(read(&[0, 1, 255, 0, 1, 1]).unwrap().classes, [0, 1, 255, 0, 1, 1]);
        let told = read(&[0, 1, 2, 0, 0, 0]).unwrap_err().to_string();
        assert!(told.ends_with("got class 2 at (2, 0), the maps of a single class have 0 and 1"), "{told}");
    }

    #[test]
    fn values_are_classes() {
        let expected = ClassMap { hw: [2, 3], classes: vec![0, 1, 2, 2, 1, 0] };
        assert_eq!(read(ColorType::Grayscale, BitDepth::Eight, &[0, 1, 2, 2, 1, 0]).unwrap(), expected);
        assert_eq!(read(ColorType::Grayscale, BitDepth::Four, &[0x01, 0x20, 0x21, 0x00]).unwrap(), expected);
        assert_eq!(read(ColorType::Indexed, BitDepth::Two, &[0b0001_1000, 0b1001_0000]).unwrap(), expected);
        let ignored = read(ColorType::Grayscale, BitDepth::Eight, &[255; 6]).unwrap();
        assert_eq!(ignored.classes, [IGNORED; 6]);
    }

    #[test]
    fn other_pictures_are_errors() {
        let told = |color, depth, data: &[u8]| read(color, depth, data).unwrap_err().to_string();
        assert!(told(ColorType::Rgb, BitDepth::Eight, &[0; 18]).contains("expected one channel"));
        assert!(told(ColorType::Grayscale, BitDepth::Sixteen, &[0; 12]).contains("expected one channel"));
        let told = told(ColorType::Grayscale, BitDepth::Eight, &[0, 1, 2, 0, 3, 0]);
        assert!(told.ends_with("a.png: got class 3 at (1, 1), the data set has classes 0 to 2"), "{told}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        assert!(ClassMap::read(&path, 3).is_err());
        fs::write(&path, b"\x89PNG\r\n\x1a\nnot really").unwrap();
        assert!(ClassMap::read(&path, 3).unwrap_err().to_string().ends_with("is no readable PNG"));
        assert!(ClassMap::read(dir.path(), 3).unwrap_err().to_string().ends_with("is not a regular file"));
    }

    #[test]
    fn sizes_change_by_the_nearest_pixel() {
        let map = ClassMap { hw: [2, 3], classes: vec![0, 1, 2, 3, 4, 5] };
        assert_eq!(map.resized([2, 3]), map);
        assert_eq!(map.resized([1, 1]).classes, [0]);
        assert_eq!(map.resized([2, 2]).classes, [0, 1, 3, 4]);
        assert_eq!(map.resized([4, 3]).classes, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(map.resized([2, 6]).classes, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }

    #[test]
    fn maps_lie_beside_the_images() {
        let picture = Path::new("/d/images/val/a.jpg");
        assert_eq!(mask_path(picture, None), Path::new("/d/masks/val/a.png"));
        assert_eq!(mask_path(picture, Some("annot/fine")), Path::new("/d/annot/fine/val/a.png"));
    }
}
