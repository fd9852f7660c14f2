//! Gray PNGs, which hold maps rather than pictures.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};

use crate::error::{Error, Result};

/// The PNG of a gray picture of `shape` (height, width): 8 bits a pixel if all values fit, else 16.
///
/// Errors with `ErrorKind::Image` if a PNG can't hold it.
pub(crate) fn encode_png([height, width]: [usize; 2], values: &[u16]) -> Result<Vec<u8>> {
    let (bytes, color): (Vec<u8>, _) = match values.iter().map(|&value| u8::try_from(value)).collect() {
        Ok(bytes) => (bytes, ExtendedColorType::L8),
        Err(_) => (values.iter().flat_map(|value| value.to_ne_bytes()).collect(), ExtendedColorType::L16),
    };
    write([height, width], &bytes, color)
}

/// As [`encode_png`], always with 16 bits.
pub(crate) fn encode_png16(shape: [usize; 2], values: &[u16]) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    write(shape, &bytes, ExtendedColorType::L16)
}

fn write([height, width]: [usize; 2], bytes: &[u8], color: ExtendedColorType) -> Result<Vec<u8>> {
    let fail = || Error::image("png", format!("a map of {width}x{height} can't be written"));
    let side = |side: usize| u32::try_from(side).map_err(|_| fail());
    let mut out = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut out, bytes, side(width)?, side(height)?, color, ImageFormat::Png)
        .map_err(|error| fail().with_source(error))?;
    Ok(out.into_inner())
}
