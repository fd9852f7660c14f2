//! Decoding and encoding of picture files.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, ExtendedColorType, GenericImageView as _, ImageDecoder as _, ImageError, ImageFormat,
    ImageReader, Limits,
};

use super::Image;
use crate::error::{Error, ErrorKind, Result};

const JPEG_QUALITY: u8 = 95;

/// What a picture may cost before decoding is refused.
///
/// They guard against files made to exhaust memory; an ordinary picture is far below the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest encoded file, in bytes; default 512 MiB.
    pub max_bytes: u64,
    /// Most pixels, width times height; default 2^28 (268 megapixels).
    pub max_pixels: u64,
    /// Most memory for the decoded samples, in bytes; default 1 GiB.
    pub max_alloc_bytes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, max_pixels: 1 << 28, max_alloc_bytes: 1 << 30 }
    }
}

pub(super) fn open(path: &Path, limits: &DecodeLimits) -> Result<Image> {
    let at = || path.display().to_string();
    let bytes = read(path, limits.max_bytes).map_err(|error| Error::io(at(), error))?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Error::limit(at(), format!("file has more than {} bytes", limits.max_bytes)));
    }
    decode(&bytes, limits).map_err(|error| error.with_at(at()))
}

/// Reads up to one byte more than `max_bytes`, so that a device or pipe without end is noticed.
fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::with_capacity(meta.len().min(max_bytes) as usize + 1);
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
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
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
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
    // Other sample types are decoded as they are and converted to three bytes a pixel afterwards.
    let n_bytes = decoder.total_bytes().saturating_add(if decoder.color_type().bytes_per_pixel() == 3 {
        0
    } else {
        n_pixels * 3
    });
    if n_bytes > limits.max_alloc_bytes {
        let max = limits.max_alloc_bytes;
        return Err(Error::limit(
            "image",
            format!("{width}x{height} needs {n_bytes} bytes, more than {max}"),
        ));
    }

    // A picture with a damaged Exif block is still a picture.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| from_image_error(error, format))?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    let (width, height) = picture.dimensions();
    Image::from_rgb8(width as usize, height as usize, rgb8(picture)?)
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

/// Whether an end-of-image marker follows the first scan.
///
/// The decoder fills up what is missing with gray, and a network would then see half a picture.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        }
    }
    // Out of step before any scan: what is wrong is told better by the decoder.
    at < bytes.len()
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

/// Creates a new file with a name derived from that of `path`, in the same directory.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let process = std::process::id();
    for attempt in 0.. {
        let partial = path.with_file_name(format!(".{name}.{process}-{attempt}.part"));
        match File::create_new(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((file, partial)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
