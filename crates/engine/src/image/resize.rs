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
    columns: Columns,
    lines: [Line; 2],
    /// Weights of the two lines, as many as samples.
    row_weights: [Vec<i16>; 2],
}

/// How each pixel of a row is made from two adjacent ones of the source row.
#[derive(Clone, Debug, Default)]
struct Columns {
    /// Index of the left pixel's first byte, not falling.
    offsets: Vec<usize>,
    /// Weights of the left and the right pixel, three times each: once for a sample.
    weights: [Vec<i16>; 2],
    /// Room for the left and the right pixels of a row, and one byte more.
    pixels: [Vec<u8>; 2],
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
                self.columns.prepare(widths);
            }
            for (line, weights) in self.lines.iter_mut().zip(&mut self.row_weights) {
                line.source_y = None;
                line.samples.resize(widths[1] * 3, 0);
                weights.resize(widths[1] * 3, 0);
            }
        }
        Rows { tables: self, image, copies, ratio_y: ratio(image.height(), scaled_hw[0]) }
    }
}

impl Columns {
    fn prepare(&mut self, [source_w, result_w]: [usize; 2]) {
        self.offsets.clear();
        self.weights.iter_mut().for_each(Vec::clear);
        for (left, pair) in columns(source_w, result_w) {
            self.offsets.push(left * 3);
            for (all, weight) in self.weights.iter_mut().zip(pair) {
                all.extend([weight; 3]);
            }
        }
        self.pixels.iter_mut().for_each(|pixels| pixels.resize(result_w * 3 + 1, 0));
    }

    fn scale(&mut self, row: &[u8], out: &mut [i16]) {
        if let &[r, g, b] = row {
            let pixel = [r, g, b].map(|sample| i16::from(sample) << (WEIGHT_BITS - DROPPED_BITS));
            out.as_chunks_mut::<3>().0.fill(pixel);
            return;
        }

        // Pixels are collected first, so that the arithmetic runs over plain arrays. Four bytes are moved for each;
        // the fourth is overwritten by the next pixel.
        let [left, right] = &mut self.pixels;
        for (x, &offset) in self.offsets.iter().enumerate() {
            let to = x * 3..x * 3 + 4;
            if let Some(pair) = row.get(offset..offset + 7) {
                left[to.clone()].copy_from_slice(&pair[..4]);
                right[to].copy_from_slice(&pair[3..]);
            } else {
                let pair = &row[offset..offset + 6];
                left[to.start..to.start + 3].copy_from_slice(&pair[..3]);
                right[to.start..to.start + 3].copy_from_slice(&pair[3..]);
            }
        }
        let [left_weights, right_weights] = &self.weights;
        let pairs = left.iter().zip(left_weights).zip(right.iter().zip(right_weights));
        for (to, ((&left, &left_weight), (&right, &right_weight))) in out.iter_mut().zip(pairs) {
            let sum = i32::from(left) * i32::from(left_weight) + i32::from(right) * i32::from(right_weight);
            *to = (sum >> DROPPED_BITS) as i16;
        }
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

        let ([above, below], pair) = row_pair(y, self.image.height(), self.ratio_y);
        let lines = &mut self.tables.lines;
        if lines[0].source_y != Some(above) {
            lines.swap(0, 1);
        }
        for (line, source_y) in lines.iter_mut().zip([above, below]) {
            if line.source_y != Some(source_y) {
                line.source_y = Some(source_y);
                self.tables.columns.scale(source_row(self.image, source_y), &mut line.samples);
            }
        }
        // The weights of a row are all the same. As arrays they meet the processor's 16-bit multiplication, which the
        // compiler passes over for a constant that it can widen once.
        for (all, weight) in self.tables.row_weights.iter_mut().zip(pair) {
            all.fill(weight);
        }
        let lines = self.tables.lines.each_ref().map(|line| line.samples.as_slice());
        blend(lines, self.tables.row_weights.each_ref().map(Vec::as_slice), divisor, out);
    }
}

fn source_row(image: &Image, y: usize) -> &[u8] {
    &image.pixels()[y * image.width() * 3..][..image.width() * 3]
}

/// Source pixels per pixel of the result, by way of its rounded inverse.
fn ratio(source: usize, result: usize) -> f64 {
    1.0 / (result as f64 / source as f64)
}

/// For each column of the result: the left one of the two source columns that it is made of, and their weights. Of a
/// source of one column, only the left one counts.
pub(super) fn columns(source_w: usize, result_w: usize) -> impl Iterator<Item = (usize, [i16; 2])> {
    let one = 1 << WEIGHT_BITS;
    let ratio = ratio(source_w, result_w);
    (0..result_w).map(move |x| {
        let (left, fraction) = split(x, ratio);
        match usize::try_from(left) {
            Err(_) => (0, [one, 0]),
            Ok(left) if left + 1 < source_w => (left, weights(fraction)),
            // Only the last pixel counts; it is the right one of a pair, so that no pair leaves the row.
            Ok(_) if source_w > 1 => (source_w - 2, [0, one]),
            Ok(_) => (0, [one, 0]),
        }
    })
}

/// For each row of the result: the two source rows that it is made of, and their weights.
#[cfg(feature = "gpu")]
pub(super) fn rows(source_h: usize, result_h: usize) -> impl Iterator<Item = ([usize; 2], [i16; 2])> {
    let ratio = ratio(source_h, result_h);
    (0..result_h).map(move |y| row_pair(y, source_h, ratio))
}

fn row_pair(y: usize, source_h: usize, ratio: f64) -> ([usize; 2], [i16; 2]) {
    let (above, fraction) = split(y, ratio);
    let last = source_h as isize - 1;
    // Beyond the edges both rows are the outermost one, but keep their two weights.
    ([above, above + 1].map(|y| y.clamp(0, last) as usize), weights(fraction))
}

/// The source position of the center of pixel `at`: whole part, which may be -1, and fraction.
fn split(at: usize, ratio: f64) -> (isize, f32) {
    let position = ((at as f64 + 0.5) * ratio - 0.5) as f32;
    let whole = position.floor();
    (whole as isize, position - whole)
}

fn weights(fraction: f32) -> [i16; 2] {
    let scale = (1 << WEIGHT_BITS) as f32;
    [1.0 - fraction, fraction].map(|weight| (weight * scale).round_ties_even() as i16)
}

/// `lines` and `weights` are those of the source rows above and below; there is one weight a sample.
fn blend(lines: [&[i16]; 2], weights: [&[i16]; 2], divisor: f32, out: &mut [f32]) {
    let high = |sample: i16, weight: i16| ((i32::from(sample) * i32::from(weight)) >> 16) as i16;
    let above = lines[0].iter().zip(weights[0]).map(|(&sample, &weight)| high(sample, weight));
    let below = lines[1].iter().zip(weights[1]).map(|(&sample, &weight)| high(sample, weight));
    for ((to, above), below) in out.iter_mut().zip(above).zip(below) {
        *to = f32::from((above + below + 2) >> 2) / divisor;
    }
}
