//! Bilinear scaling of 8-bit pictures in fixed point, row by row.
//!
//! The arithmetic is that of OpenCV's `INTER_LINEAR` for 8-bit samples, to the bit: weights are rounded to 11 bits,
//! rows are first interpolated horizontally and shortened by four bits, and then vertically, where each product is
//! shortened by sixteen bits before the sum is rounded.

use super::Image;

/// Bits of a weight; the two weights of a pixel add up to about `1 << WEIGHT_BITS`.
const WEIGHT_BITS: u32 = 11;

/// Bits dropped between the two passes, so that horizontal results fit 16 bits.
const DROPPED_BITS: u32 = 4;

/// Reusable tables and row buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Resizer {
    /// Widths of the source and of the result that `columns` is for.
    widths: [usize; 2],
    columns: Vec<Column>,
    lines: [Line; 2],
}

/// How one pixel of the result is made from two adjacent ones of the source row.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// Index of the left pixel's first byte.
    offset: usize,
    weights: [i32; 2],
}

/// A horizontally scaled source row.
#[derive(Clone, Debug, Default)]
struct Line {
    source_y: Option<usize>,
    samples: Vec<i16>,
}

impl Resizer {
    /// Begins to scale `image` to `scaled_hw`; both are at least one pixel wide and high.
    pub(super) fn start<'a>(&'a mut self, image: &'a Image, scaled_hw: [usize; 2]) -> Rows<'a> {
        let copies = image.shape() == scaled_hw;
        let widths = [image.width(), scaled_hw[1]];
        if !copies {
            if self.widths != widths {
                self.widths = widths;
                self.columns.clear();
                let (source_w, ratio) = (widths[0], ratio(widths[0], widths[1]));
                self.columns.extend((0..widths[1]).map(|x| column(x, ratio, source_w)));
            }
            for line in &mut self.lines {
                line.source_y = None;
                line.samples.resize(widths[1] * 3, 0);
            }
        }
        Rows { tables: self, image, copies, ratio_y: ratio(image.height(), scaled_hw[0]) }
    }
}

/// The rows of a scaled picture, best asked for in order.
pub(super) struct Rows<'a> {
    tables: &'a mut Resizer,
    image: &'a Image,
    copies: bool,
    ratio_y: f64,
}

impl Rows<'_> {
    /// Computes row `y` and writes its samples, divided by `divisor`, to `out` of three values a pixel.
    pub(super) fn row(&mut self, y: usize, divisor: f32, out: &mut [f32]) {
        if self.copies {
            let row = source_row(self.image, y);
            for (to, &from) in out.iter_mut().zip(row) {
                *to = f32::from(from) / divisor;
            }
            return;
        }

        let (above, fraction) = split(y, self.ratio_y);
        let last = self.image.height() as isize - 1;
        // Beyond the edges both rows are the outermost one, but keep their two weights.
        let [above, below] = [above, above + 1].map(|y| y.clamp(0, last) as usize);
        let lines = &mut self.tables.lines;
        if lines[0].source_y != Some(above) {
            lines.swap(0, 1);
        }
        for (line, source_y) in lines.iter_mut().zip([above, below]) {
            if line.source_y != Some(source_y) {
                line.source_y = Some(source_y);
                scale_row(source_row(self.image, source_y), &self.tables.columns, &mut line.samples);
            }
        }
        let [above, below] = &self.tables.lines;
        blend(&above.samples, &below.samples, weights(fraction), divisor, out);
    }
}

fn source_row(image: &Image, y: usize) -> &[u8] {
    &image.pixels()[y * image.width() * 3..][..image.width() * 3]
}

/// Source pixels per pixel of the result, by way of its rounded inverse.
fn ratio(source: usize, result: usize) -> f64 {
    1.0 / (result as f64 / source as f64)
}

/// The source position of the center of pixel `at`: whole part, which may be -1, and fraction.
fn split(at: usize, ratio: f64) -> (isize, f32) {
    let position = ((at as f64 + 0.5) * ratio - 0.5) as f32;
    let whole = position.floor();
    (whole as isize, position - whole)
}

fn weights(fraction: f32) -> [i32; 2] {
    let scale = (1 << WEIGHT_BITS) as f32;
    [1.0 - fraction, fraction].map(|weight| (weight * scale).round_ties_even() as i32)
}

fn column(x: usize, ratio: f64, source_w: usize) -> Column {
    let one = 1 << WEIGHT_BITS;
    let (left, fraction) = split(x, ratio);
    if left < 0 {
        return Column { offset: 0, weights: [one, 0] };
    }
    let left = left as usize;
    if left + 1 < source_w {
        Column { offset: left * 3, weights: weights(fraction) }
    } else {
        // Only the last pixel counts; it is reached as the right one of a pair, so that no pair leaves the row.
        Column { offset: source_w.saturating_sub(2) * 3, weights: [0, one] }
    }
}

fn scale_row(row: &[u8], columns: &[Column], out: &mut [i16]) {
    let pixels = out.as_chunks_mut::<3>().0;
    if let &[r, g, b] = row {
        let pixel = [r, g, b].map(|sample| i16::from(sample) << (WEIGHT_BITS - DROPPED_BITS));
        pixels.fill(pixel);
        return;
    }
    for (to, &Column { offset, weights: [left, right] }) in pixels.iter_mut().zip(columns) {
        let pair = &row[offset..offset + 6];
        for (channel, to) in to.iter_mut().enumerate() {
            let sum = i32::from(pair[channel]) * left + i32::from(pair[channel + 3]) * right;
            *to = (sum >> DROPPED_BITS) as i16;
        }
    }
}

fn blend(above: &[i16], below: &[i16], weights: [i32; 2], divisor: f32, out: &mut [f32]) {
    let [upper, lower] = weights.map(|weight| weight as i16);
    for ((to, &above), &below) in out.iter_mut().zip(above).zip(below) {
        let high = |sample: i16, weight: i16| ((i32::from(sample) * i32::from(weight)) >> 16) as i16;
        let sample = (high(above, upper) + high(below, lower) + 2) >> 2;
        *to = f32::from(sample) / divisor;
    }
}
