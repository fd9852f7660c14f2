//! Masks of objects: prototypes combined by each box's coefficients.
//!
//! A mask is where the combination, scaled up bilinearly, is positive inside the box. Scaling comes before cropping,
//! so what lies outside a box counts for the pixels at its edge. Only boxes that survived are computed, and of each
//! only the pixels inside.

use std::ops::Range;

use super::scale::{Axis, Dense, Ends, MapView, Rows, Scaled};
use crate::error::{Error, Result};
use crate::image::Letterbox;
use crate::results::Mask;

/// Bytes that the masks of one picture may take.
const MAX_MASK_BYTES: usize = 1 << 31;

/// Values that are multiplied side by side; a power of two that fits every instruction set.
const LANES: usize = 8;

/// Which pixels a mask has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaskSize {
    /// Those of the network's input, padding included.
    Input,
    /// Those of the picture.
    Picture,
}

/// Combines prototypes to masks; keeps its memory from mask to mask.
#[derive(Debug, Default)]
pub(crate) struct MaskScratch {
    logits: Vec<f32>,
    n_bytes: usize,
}

impl MaskScratch {
    /// Begins with the masks of another picture.
    pub(crate) fn start(&mut self) {
        self.n_bytes = 0;
    }

    /// The mask of one box, or `None` if it has no pixel.
    ///
    /// `xyxy` are the box's corners in pixels of the frame that `size` names. Errors with `ErrorKind::Limit` if the
    /// masks of a picture take too much memory.
    pub(crate) fn mask(
        &mut self,
        prototypes: &MapView<'_>,
        coefficients: &[f32],
        xyxy: [f32; 4],
        letterbox: &Letterbox,
        size: MaskSize,
    ) -> Result<Option<Mask>> {
        let frame_hw = match size {
            MaskSize::Input => letterbox.net_hw(),
            MaskSize::Picture => letterbox.image_hw(),
        };
        let [ys, xs] = covered(xyxy, frame_hw);
        if ys.is_empty() || xs.is_empty() {
            return Ok(None);
        }
        self.n_bytes = self.n_bytes.saturating_add(ys.len().saturating_mul(xs.len()));
        if self.n_bytes > MAX_MASK_BYTES {
            let gib = MAX_MASK_BYTES >> 30;
            return Err(Error::limit(
                "masks",
                format!("those of one picture take more than {gib} GiB; ask for fewer or smaller ones"),
            ));
        }

        let [rows, columns] = match size {
            MaskSize::Input => [0, 1]
                .map(|axis| Way::to_input(prototypes.hw[axis], frame_hw[axis], [&ys, &xs][axis].clone())),
            MaskSize::Picture => {
                let steps = steps(prototypes.hw, letterbox);
                let window = letterbox.window();
                [0, 1].map(|axis| {
                    let wanted = [&ys, &xs][axis].clone();
                    let inner = [window.top_left[axis], window.hw[axis]];
                    Way::to_picture(prototypes.hw[axis], steps, inner, frame_hw[axis], wanted)
                })
            }
        };
        combine(prototypes, coefficients, [&rows.source, &columns.source], &mut self.logits);
        let source = Dense { data: &self.logits, row_stride: columns.source.len() };
        let scaled = Scaled::new(source, &rows.first, &columns.first, 1);
        let pixels = match (&rows.second, &columns.second) {
            (Some(rows), Some(columns)) => paint(Scaled::new(scaled, rows, columns, 1), ys.len(), xs.len()),
            _ => paint(scaled, ys.len(), xs.len()),
        };
        pixels.map(|pixels| Mask::new([xs.start, ys.start], xs.len(), pixels)).transpose()
    }
}

/// Marks the positive pixels; nothing if there is none.
fn paint(mut logits: impl Rows, height: usize, width: usize) -> Option<Vec<u8>> {
    let mut pixels = Vec::with_capacity(height * width);
    for y in 0..height {
        pixels.extend(logits.row(y).iter().map(|&logit| u8::from(logit > 0.0)));
    }
    // Whole rows are looked at without leaving early, which the compiler turns into vector code.
    let is_empty = pixels.chunks(width).all(|row| row.iter().fold(0, |any, pixel| any | pixel) == 0);
    (!is_empty).then_some(pixels)
}

/// Rows and columns of the pixels that lie in a box: not left of or above its edges, but left of and above the others.
fn covered([x1, y1, x2, y2]: [f32; 4], [height, width]: [usize; 2]) -> [Range<usize>; 2] {
    // Casts saturate, and turn what is not a number into 0.
    let range = |from: f32, to: f32, side: usize| {
        let to = (to.ceil() as usize).min(side);
        (from.ceil() as usize).min(to)..to
    };
    [range(y1, y2, height), range(x1, x2, width)]
}

/// How finely prototypes are scaled up before the padding is cut off: once, twice and so on up to the input's size,
/// as little as lets the cut fall between pixels.
fn steps(prototype_hw: [usize; 2], letterbox: &Letterbox) -> Steps {
    let stride = (letterbox.net_hw()[0] / prototype_hw[0].max(1)).max(1);
    let window = letterbox.window();
    let edges = [window.top_left, window.hw];
    let mut coarse = stride;
    while coarse > 1
        && !(stride.is_multiple_of(coarse) && edges.iter().flatten().all(|edge| edge % coarse == 0))
    {
        coarse -= 1;
    }
    Steps { factor: stride / coarse, coarse }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Steps {
    /// How much larger than the prototypes.
    factor: usize,
    /// How much smaller than the input.
    coarse: usize,
}

/// One axis of the way from prototypes to a mask.
struct Way {
    /// The prototype values that are needed.
    source: Range<usize>,
    first: Axis,
    second: Option<Axis>,
}

impl Way {
    fn to_input(prototypes: usize, input: usize, wanted: Range<usize>) -> Self {
        let first = Axis::new(prototypes, input, Ends::Edges, wanted);
        let source = first.source();
        Self { first: first.shifted(source.start as isize), source, second: None }
    }

    /// `start` and `len` say what of the input is picture.
    fn to_picture(
        prototypes: usize,
        Steps { factor, coarse }: Steps,
        [start, len]: [usize; 2],
        picture: usize,
        wanted: Range<usize>,
    ) -> Self {
        let start = start / coarse;
        let second = Axis::new(len / coarse, picture, Ends::Edges, wanted);
        let needed = second.source();
        let second = second.shifted(needed.start as isize);
        if factor == 1 {
            let source = needed.start + start..needed.end + start;
            return Self { source, first: second, second: None };
        }
        let needed = needed.start + start..needed.end + start;
        let first = Axis::new(prototypes, prototypes * factor, Ends::Edges, needed);
        let source = first.source();
        Self { first: first.shifted(source.start as isize), source, second: Some(second) }
    }
}

/// Writes the sum of the prototypes, weighted by `coefficients`, for each pixel of a part.
fn combine(
    prototypes: &MapView<'_>,
    coefficients: &[f32],
    [rows, columns]: [&Range<usize>; 2],
    out: &mut Vec<f32>,
) {
    out.clear();
    out.reserve(rows.len() * columns.len());
    for y in rows.clone() {
        out.extend(columns.clone().map(|x| dot(coefficients, prototypes.pixel(y, x))));
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a_runs, a_rest), (b_runs, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a_runs.iter().zip(b_runs) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7)) + rest
}
