//! Decoding and encoding of picture files.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ExtendedColorType, GenericImageView as _, ImageDecoder, ImageError, ImageFormat,
    ImageReader, Limits,
};

use super::Image;
use super::jpeg::{Frame, Headers};
use crate::error::{Error, ErrorKind, Result};

const JPEG_QUALITY: u8 = 95;

/// More pixels than a byte of a JPEG can hold: each block of 64 pixels takes at least one bit in some component, which
/// makes 512, and twice that where two components are coarse along different axes.
const MAX_JPEG_PIXELS_PER_BYTE: u64 = 4096;

/// What a picture may cost before decoding is refused.
///
/// They guard against files made to exhaust memory; an ordinary picture is far below the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest encoded file, in bytes; default 512 MiB.
    pub max_bytes: u64,
    /// Most pixels, width times height; default 2^28 (268 megapixels).
    pub max_pixels: u64,
    /// Most memory for the decoded samples and what is needed beside them, such as the coefficients of a progressive
    /// JPEG, in bytes; default 1 GiB.
    pub max_alloc_bytes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, max_pixels: 1 << 28, max_alloc_bytes: 1 << 30 }
    }
}

pub(super) fn open(path: &Path, limits: &DecodeLimits) -> Result<Image> {
    let at = || path.display().to_string();
    let bytes = read(path, limits.max_bytes)?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Error::limit(at(), format!("file has more than {} bytes", limits.max_bytes)));
    }
    decode(&bytes, limits).map_err(|error| error.with_at(at()))
}

/// Reads up to one byte more than `max_bytes`, so that a file above the limit is noticed.
fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let at = || path.display().to_string();
    let io = |error| Error::io(at(), error);
    let is_regular = |meta: &fs::Metadata| match meta {
        meta if meta.is_dir() => Err(io(io::ErrorKind::IsADirectory.into())),
        meta if !meta.is_file() => Err(Error::new(ErrorKind::Io, at(), "is not a regular file")),
        _ => Ok(()),
    };
    // Before opening, which waits for a writer if it is a pipe, and again for what has been opened.
    is_regular(&fs::metadata(path).map_err(io)?)?;
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    is_regular(&meta)?;
    let mut bytes = Vec::with_capacity(meta.len().min(max_bytes) as usize + 1);
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Image> {
    if bytes.is_empty() {
        return Err(Error::image("image", "file is empty"));
    }
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Error::limit("image", format!("has more than {} bytes", limits.max_bytes)));
    }
    let format = format_of(bytes)?;
    let jpeg = (format == ImageFormat::Jpeg).then(|| Headers::read(bytes));
    // The decoder fills up what is missing with gray, and a network would then see half a picture.
    if jpeg.as_ref().is_some_and(|headers| !headers.is_complete) {
        return Err(Error::image("image", "JPEG data ends too early"));
    }

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(limits.max_alloc_bytes);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(|error| from_image_error(error, format))?;

    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::image("image", format!("picture is {width}x{height}, expected at least 1x1")));
    }
    let n_pixels = u64::from(width) * u64::from(height);
    if n_pixels > limits.max_pixels {
        let max = limits.max_pixels;
        return Err(Error::limit("image", format!("{width}x{height} is more than {max} pixels")));
    }
    if jpeg.is_some() && n_pixels > bytes.len() as u64 * MAX_JPEG_PIXELS_PER_BYTE {
        let got = bytes.len();
        return Err(Error::limit("image", format!("{got} bytes of JPEG can't hold {width}x{height} pixels")));
    }
    // A picture with a damaged Exif block is still a picture.
    let orientation = decoder.orientation().ok();
    let n_bytes = peak_bytes(&decoder, orientation, jpeg.as_ref());
    if n_bytes > limits.max_alloc_bytes {
        let max = limits.max_alloc_bytes;
        return Err(Error::limit(
            "image",
            format!("{width}x{height} needs {n_bytes} bytes, more than {max}"),
        ));
    }

    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| from_image_error(error, format))?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    let (width, height) = picture.dimensions();
    Image::from_rgb8(width as usize, height as usize, rgb8(picture)?)
}

/// The most memory that decoding holds at once: the samples as decoded, and beside them the coefficients from which
/// they come, then a turned copy, then one of three bytes a pixel.
fn peak_bytes(decoder: &impl ImageDecoder, orientation: Option<Orientation>, jpeg: Option<&Headers>) -> u64 {
    let (width, height) = decoder.dimensions();
    let samples = decoder.total_bytes();
    let coefficients = jpeg
        .filter(|headers| headers.keeps_coefficients)
        .and_then(|headers| headers.frame.as_ref())
        .map_or(0, Frame::coefficient_bytes);
    let turned = match orientation {
        None
        | Some(
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical,
        ) => 0,
        _ => samples,
    };
    let is_rgb8 = decoder.color_type() == ColorType::Rgb8;
    let converted = if is_rgb8 { 0 } else { u64::from(width) * u64::from(height) * 3 };
    samples.saturating_add(coefficients.max(turned).max(converted))
}

fn format_of(bytes: &[u8]) -> Result<ImageFormat> {
    let known = "expected JPEG, PNG, WebP, BMP, TIFF or GIF";
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Jpeg
            | ImageFormat::Png
            | ImageFormat::WebP
            | ImageFormat::Bmp
            | ImageFormat::Tiff
            | ImageFormat::Gif),
        ) => Ok(format),
        Ok(other) => Err(Error::unsupported("image", format!("got format {other:?}, {known}"))),
        Err(_) => Err(Error::image("image", format!("not a picture, {known}"))),
    }
}

fn from_image_error(error: ImageError, format: ImageFormat) -> Error {
    let kind = match &error {
        ImageError::Limits(_) => ErrorKind::Limit,
        ImageError::Unsupported(_) => ErrorKind::Unsupported,
        _ => ErrorKind::Image,
    };
    let message = match kind {
        ErrorKind::Limit => format!("{format:?} picture exceeds the limits"),
        ErrorKind::Unsupported => format!("this kind of {format:?} picture is not supported"),
        _ => format!("{format:?} data is damaged or ends too early"),
    };
    Error::new(kind, "image", message).with_source(error)
}

fn rgb8(picture: DynamicImage) -> Result<Vec<u8>> {
    let high = |sample: u16| (sample >> 8) as u8;
    Ok(match picture {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageRgba8(pixels) => pick::<u8, 4>(&pixels, |sample| sample),
        DynamicImage::ImageLuma8(pixels) => pick::<u8, 1>(&pixels, |sample| sample),
        DynamicImage::ImageLumaA8(pixels) => pick::<u8, 2>(&pixels, |sample| sample),
        DynamicImage::ImageRgb16(pixels) => pick::<u16, 3>(&pixels, high),
        DynamicImage::ImageRgba16(pixels) => pick::<u16, 4>(&pixels, high),
        DynamicImage::ImageLuma16(pixels) => pick::<u16, 1>(&pixels, high),
        DynamicImage::ImageLumaA16(pixels) => pick::<u16, 2>(&pixels, high),
        // The range of floating-point samples is anybody's guess.
        other => {
            let color = other.color();
            return Err(Error::unsupported(
                "image",
                format!("got samples of {color:?}, expected 8 or 16-bit integers"),
            ));
        }
    })
}

/// The first three channels of each pixel, or the first one three times where there is no color.
fn pick<T: Copy, const C: usize>(samples: &[T], byte: impl Fn(T) -> u8) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<C>();
    let mut rgb = vec![0; pixels.len() * 3];
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *to = if C < 3 { [byte(from[0]); 3] } else { [byte(from[0]), byte(from[1]), byte(from[2])] };
    }
    rgb
}

pub(super) fn save(picture: &Image, path: &Path) -> Result<()> {
    let at = || path.display().to_string();
    let bytes = encode(picture, path)?;
    // What is not a plain file, such as /dev/stdout, can't be replaced, only written to.
    let replaces = fs::metadata(path).map_or(true, |meta| meta.is_file());
    let written = if replaces { write_and_rename(path, &bytes) } else { fs::write(path, &bytes) };
    written.map_err(|error| Error::io(at(), error))
}

fn encode(picture: &Image, path: &Path) -> Result<Vec<u8>> {
    let at = || path.display().to_string();
    let extension = path.extension().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let format = match extension.as_deref() {
        Some("jpg" | "jpeg") => ImageFormat::Jpeg,
        Some("png") => ImageFormat::Png,
        Some("webp") => ImageFormat::WebP,
        Some("bmp") => ImageFormat::Bmp,
        Some("tif" | "tiff") => ImageFormat::Tiff,
        _ => {
            let got = extension.unwrap_or_default();
            let message = format!("got extension '{got}', expected jpg, jpeg, png, webp, bmp, tif or tiff");
            return Err(Error::argument(at(), message));
        }
    };
    let too_large = || Error::image(at(), format!("{picture:?} is too large for {format:?}"));
    let width = u32::try_from(picture.width()).map_err(|_| too_large())?;
    let height = u32::try_from(picture.height()).map_err(|_| too_large())?;

    let mut bytes = Cursor::new(Vec::new());
    let color = ExtendedColorType::Rgb8;
    let encoded = match format {
        ImageFormat::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode(
            picture.pixels(),
            width,
            height,
            color,
        ),
        _ => image::write_buffer_with_format(&mut bytes, picture.pixels(), width, height, color, format),
    };
    match encoded {
        Ok(()) => Ok(bytes.into_inner()),
        Err(error) => Err(Error::image(at(), format!("can't be written as {format:?}")).with_source(error)),
    }
}

fn write_and_rename(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, partial) = create_beside(path)?;
    let written = file.write_all(bytes).and_then(|()| {
        drop(file);
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Creates a file of a new name in the directory of `path`; the name is short, as that of `path` may be the longest
/// allowed.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let process = std::process::id();
    for attempt in 0.. {
        let partial = path.with_file_name(format!(".{process}-{attempt}.part"));
        match File::create_new(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((file, partial)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A JPEG of three components with the frame header `marker`, whose `data_len` bytes of data mean nothing.
    fn jpeg(marker: u8, [width, height]: [u16; 2], data_len: usize) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8, 0xff, marker, 0, 17, 8];
        bytes.extend(height.to_be_bytes().into_iter().chain(width.to_be_bytes()));
        bytes.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
        bytes.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 0, 0]);
        bytes.resize(bytes.len() + data_len, 0);
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    /// `decoded` as a JPEG whose Exif block says `orientation`.
    fn turned_jpeg(picture: &Image, orientation: u8) -> Vec<u8> {
        let bytes = encode(picture, Path::new("a.jpg")).unwrap();
        let mut exif = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        [&bytes[..2], &exif, &bytes[2..]].concat()
    }

    fn kind(bytes: &[u8], limits: &DecodeLimits) -> Option<ErrorKind> {
        decode(bytes, limits).err().map(|error| error.kind())
    }

    #[test]
    fn a_small_file_of_a_huge_jpeg_is_refused() {
        for marker in [0xc0, 0xc2] {
            let bomb = jpeg(marker, [16383, 16383], 600);
            assert_eq!(kind(&bomb, &DecodeLimits::default()), Some(ErrorKind::Limit), "{marker:x}");
        }
    }

    #[test]
    fn coefficients_count_against_the_limit() {
        // Three bytes a pixel for the samples, six for the coefficients.
        let limits = |max_alloc_bytes| DecodeLimits { max_alloc_bytes, ..DecodeLimits::default() };
        let n_pixels = 160 * 160;
        assert_eq!(kind(&jpeg(0xc2, [160, 160], 600), &limits(n_pixels * 9 - 1)), Some(ErrorKind::Limit));
        assert_ne!(kind(&jpeg(0xc2, [160, 160], 600), &limits(n_pixels * 9)), Some(ErrorKind::Limit));
        assert_ne!(kind(&jpeg(0xc0, [160, 160], 600), &limits(n_pixels * 3)), Some(ErrorKind::Limit));
    }

    #[test]
    fn a_turned_copy_counts_against_the_limit() {
        let picture = Image::from_rgb8(32, 16, vec![90; 32 * 16 * 3]).unwrap();
        let limits = DecodeLimits { max_alloc_bytes: 32 * 16 * 3, ..DecodeLimits::default() };
        for (orientation, expected) in [(1, None), (3, None), (6, Some(ErrorKind::Limit))] {
            assert_eq!(kind(&turned_jpeg(&picture, orientation), &limits), expected, "{orientation}");
        }
        let turned = decode(&turned_jpeg(&picture, 6), &DecodeLimits::default()).unwrap();
        assert_eq!(turned.shape(), [32, 16]);
    }

    #[test]
    fn flat_pictures_are_within_the_limits() {
        let picture = Image::from_rgb8(2048, 2048, vec![255; 2048 * 2048 * 3]).unwrap();
        let bytes = encode(&picture, Path::new("a.jpg")).unwrap();
        assert!(decode(&bytes, &DecodeLimits::default()).is_ok());
        assert!(2048 * 2048 / bytes.len() as u64 * 8 < MAX_JPEG_PIXELS_PER_BYTE, "{}", bytes.len());
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_read() {
        let error = open(Path::new("/dev/zero"), &DecodeLimits::default()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Io, "/dev/zero: is not a regular file")
        );
        let error = open(Path::new("/dev"), &DecodeLimits::default()).unwrap_err();
        assert_eq!(error.to_string(), "/dev: is a directory");
    }

    #[test]
    fn the_longest_name_can_be_saved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("{}.png", "n".repeat(251)));
        let picture = Image::from_rgb8(1, 1, vec![1, 2, 3]).unwrap();
        save(&picture, &path).unwrap();
        assert_eq!(open(&path, &DecodeLimits::default()).unwrap(), picture);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
