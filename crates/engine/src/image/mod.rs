//! Pictures: reading and writing them, finding them on disk, and fitting them to a network's input.

mod codec;
mod crop;
pub(crate) mod gray;
mod jpeg;
mod letterbox;
mod resize;
pub mod source;

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

pub use codec::DecodeLimits;
pub use crop::{CenterCrop, Normalization};
pub use letterbox::{Color, InputSpec, Letterbox, LetterboxScratch, Placement};

/// A picture of 8-bit RGB pixels, at least one pixel wide and high.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// Takes `width * height` pixels of three bytes (red, green, blue), rows from the top.
    ///
    /// Errors with `ErrorKind::Shape` if a side is zero or `pixels` has another length.
    pub fn from_rgb8(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::shape("image", format!("got {width}x{height}, expected at least 1x1")));
        }
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if expected != Some(pixels.len()) {
            let got = pixels.len();
            return Err(Error::shape("image", format!("got {got} bytes, expected {width} * {height} * 3")));
        }
        Ok(Self { width, height, pixels })
    }

    /// Reads and decodes the file at `path` within the default [`DecodeLimits`].
    ///
    /// The format (JPEG, PNG, WebP, BMP, TIFF, GIF) is told by the content, not by the name. The picture is turned
    /// as its Exif orientation says. Gray becomes three equal channels, CMYK is converted, of 16-bit samples the high
    /// byte is kept, alpha is dropped without blending (all as OpenCV's `imread` does), and of an animation the first
    /// frame is taken.
    ///
    /// Errors name the path: `ErrorKind::Io` if it is no regular file or can't be read, `Image` if it is no picture or
    /// ends too early, `Unsupported` for a kind of picture that is not read, `Limit` if it is too large. Damage within
    /// the data of a JPEG is not always an error: what can't be decoded of it is gray.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        codec::open(path.as_ref(), &DecodeLimits::default())
    }

    /// As [`Image::open`], within the given limits.
    pub fn open_with(path: impl AsRef<Path>, limits: &DecodeLimits) -> Result<Self> {
        codec::open(path.as_ref(), limits)
    }

    /// Decodes an encoded picture within the default [`DecodeLimits`]; see [`Image::open`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, &DecodeLimits::default())
    }

    /// As [`Image::decode`], within the given limits.
    pub fn decode_with(bytes: &[u8], limits: &DecodeLimits) -> Result<Self> {
        codec::decode(bytes, limits)
    }

    /// Writes the picture to `path`, in the format of its extension: `jpg` or `jpeg` (quality 95), `png`, `webp`
    /// (lossless), `bmp`, `tif` or `tiff`.
    ///
    /// The file appears complete or not at all: it is written under another name in the same directory and then
    /// renamed. Errors with `ErrorKind::Argument` for an unknown extension, `Image` if the format can't hold the
    /// picture, and `Io` if it can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        codec::save(self, path.as_ref())
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// The pixels, three bytes each (red, green, blue), rows from the top without gaps.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels, writable.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Gives the pixels away.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Errors unless an input of `net_hw` pixels of three values fits into `len` values, a row every `row_stride` of them.
fn check_rows(at: &str, [net_h, net_w]: [usize; 2], len: usize, row_stride: usize) -> Result<()> {
    let end = net_w.checked_mul(3).filter(|&width| width <= row_stride).and_then(|width| {
        let last = net_h.checked_sub(1)?.checked_mul(row_stride)?;
        last.checked_add(width)
    });
    if end.is_some_and(|end| end <= len) {
        return Ok(());
    }
    let message = format!("got {len} values in rows of {row_stride}, expected {net_h}x{net_w}x3");
    Err(Error::shape(at, message))
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn length_must_match() {
        assert!(Image::from_rgb8(2, 3, vec![0; 18]).is_ok());
        for (width, height, len) in [(2, 3, 17), (0, 3, 0), (3, 0, 0), (usize::MAX, 2, 6)] {
            let error = Image::from_rgb8(width, height, vec![0; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Shape);
        }
    }
}
