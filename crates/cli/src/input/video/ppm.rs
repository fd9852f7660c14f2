//! Pictures in a row as ffmpeg writes them: binary PPM with 8 bits.

use std::io::{self, BufRead, Read};

use ferroyolo::Image;

/// Most pixels of a frame: as of a picture.
const MAX_PIXELS: usize = 1 << 28;

/// Bytes of a number in the head.
const MAX_DIGITS: usize = 9;

/// The next picture; `None` at an end between two pictures.
pub fn read(from: &mut impl BufRead) -> io::Result<Option<Image>> {
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut magic = [0; 2];
    from.read_exact(&mut magic)?;
    if magic != *b"P6" {
        return Err(bad("no picture begins where one is expected"));
    }
    let [width, height, depth] = [number(from)?, number(from)?, number(from)?];
    if depth != 255 {
        return Err(bad("the picture has not 8 bits a sample"));
    }
    let n_pixels = width.checked_mul(height).filter(|&n_pixels| n_pixels <= MAX_PIXELS);
    let n_bytes = n_pixels.ok_or_else(|| bad("the frame is too large"))? * 3;
    let mut pixels = Vec::with_capacity(n_bytes);
    if from.take(n_bytes as u64).read_to_end(&mut pixels)? < n_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Image::from_rgb8(width, height, pixels).map(Some).map_err(io::Error::other)
}

/// A number after white space, and the one byte of white space behind it.
fn number(from: &mut impl BufRead) -> io::Result<usize> {
    let mut value = 0;
    let mut n_digits = 0;
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        match byte[0] {
            digit @ b'0'..=b'9' if n_digits < MAX_DIGITS => {
                value = value * 10 + usize::from(digit - b'0');
                n_digits += 1;
            }
            b' ' | b'\n' if n_digits == 0 => {}
            b' ' | b'\n' => return Ok(value),
            _ => return Err(bad("the picture's head makes no sense")),
        }
    }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_follow_each_other() {
        let mut bytes: &[u8] = b"P6\n2 1\n255\nabcdefP6\n1 1\n255\n\n\n\n";
        let first = read(&mut bytes).unwrap().unwrap();
        assert_eq!((first.width(), first.height(), first.pixels()), (2, 1, &b"abcdef"[..]));
        assert_eq!(read(&mut bytes).unwrap().unwrap().pixels(), b"\n\n\n");
        assert!(read(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for bytes in [
            &b"P5\n1 1\n255\nabc"[..],
            b"P",
            b"P6\n1 1\n65535\nabc",
            b"P6\n1 1\n255\nab",
            b"P6\n0 1\n255\n",
            b"P6\n999999999 999999999\n255\n",
            b"P6\n9999999999 1\n255\n",
            b"P6\n-1 1\n255\n",
            b"P6\n1 1",
        ] {
            assert!(read(&mut { bytes }).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
