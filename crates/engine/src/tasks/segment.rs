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
    /// Those of the prototypes: nothing is scaled.
    Prototypes,
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
        let Some(Area { ys, xs, rows, columns }) = self.area(prototypes.hw, xyxy, letterbox, size)? else {
            return Ok(None);
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

    /// The pixels that lie in a box, and how they are made of `prototype_hw` cells; `None` if there is no pixel.
    ///
    /// Errors as [`MaskScratch::mask`].
    pub(super) fn area(
        &mut self,
        prototype_hw: [usize; 2],
        xyxy: [f32; 4],
        letterbox: &Letterbox,
        size: MaskSize,
    ) -> Result<Option<Area>> {
        let frame_hw = match size {
            MaskSize::Input => letterbox.net_hw(),
            MaskSize::Picture => letterbox.image_hw(),
            MaskSize::Prototypes => prototype_hw,
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
            MaskSize::Input | MaskSize::Prototypes => {
                [0, 1].map(|axis| Way::to_input(prototype_hw[axis], frame_hw[axis], [&ys, &xs][axis].clone()))
            }
            MaskSize::Picture => {
                let steps = steps(prototype_hw, letterbox);
                let window = letterbox.window();
                [0, 1].map(|axis| {
                    let wanted = [&ys, &xs][axis].clone();
                    let inner = [window.top_left[axis], window.hw[axis]];
                    Way::to_picture(prototype_hw[axis], steps, inner, frame_hw[axis], wanted)
                })
            }
        };
        Ok(Some(Area { ys, xs, rows, columns }))
    }
}

/// The pixels of a mask.
pub(super) struct Area {
    pub ys: Range<usize>,
    pub xs: Range<usize>,
    pub rows: Way,
    pub columns: Way,
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
pub(super) struct Way {
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

#[cfg(feature = "gpu")]
impl Way {
    /// For each value the first of three prototype values next to each other, and their shares.
    pub(super) fn taps(&self) -> impl Iterator<Item = (usize, [f32; 3])> {
        let n = self.second.as_ref().unwrap_or(&self.first).len();
        (0..n).map(|idx| {
            let sources = match &self.second {
                None => {
                    let [low, high] = self.first.sources(idx);
                    [low, high, (high.0, 0.0), (high.0, 0.0)]
                }
                Some(second) => {
                    let [[a, b], [c, d]] = second.sources(idx).map(|(between, share)| {
                        self.first.sources(between).map(|(source, part)| (source, share * part))
                    });
                    [a, b, c, d]
                }
            };
            let first = sources[0].0;
            let mut shares = [0.0; 3];
            for (source, share) in sources {
                // The first step makes a map larger, so its values move on by one source value at most.
                shares[source - first] += share;
            }
            (self.source.start + first, shares)
        })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::image::Placement;

    const CHANNELS: usize = 11;
    const PROTO_HW: [usize; 2] = [10, 12];

    /// Pseudo-random values from -1 to 1 in steps of a thousandth.
    fn values(n: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            (f64::from((state >> 16) % 2001) / 1000.0 - 1.0) as f32
        };
        (0..n).map(|_| next()).collect()
    }

    fn view(data: &[f32]) -> MapView<'_> {
        let row_stride = PROTO_HW[1] * CHANNELS;
        MapView { data, hw: PROTO_HW, channels: CHANNELS, pixel_stride: CHANNELS, row_stride }
    }

    fn letterbox(image_hw: [usize; 2]) -> Letterbox {
        Letterbox::new(image_hw, PROTO_HW.map(|side| 4 * side), Placement::Center).unwrap()
    }

    /// Number of pixels and FNV hash of a whole frame.
    fn digest(mask: Option<&Mask>, [height, width]: [usize; 2]) -> (usize, u64) {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| [x, y]));
        let contains = |[x, y]: [usize; 2]| mask.is_some_and(|mask| mask.contains(x, y));
        pixels.map(contains).fold((0, 0xcbf2_9ce4_8422_2325), |(n, hash), is_on| {
            (n + usize::from(is_on), (hash ^ u64::from(is_on)).wrapping_mul(0x100_0000_01b3))
        })
    }

    /// Masks of both sizes as the reference implementation makes them of the same prototypes.
    #[test]
    fn masks_are_those_of_the_reference() {
        let all = [-5.0, -5.0, 1000.0, 1000.0];
        let part = [7.3, 5.0, 25.0, 30.01];
        let cases = [
            ([40, 48], all, (1022, 0x7792_0f87_1bd9_a1f3), (1022, 0x7792_0f87_1bd9_a1f3)),
            ([40, 48], part, (203, 0xe4f1_c6fe_594c_9bcc), (203, 0xe4f1_c6fe_594c_9bcc)),
            ([30, 45], all, (1022, 0x7792_0f87_1bd9_a1f3), (716, 0x3b15_f94d_fcff_512f)),
            ([30, 45], part, (203, 0xe4f1_c6fe_594c_9bcc), (194, 0xa583_cf1e_1a1c_af5d)),
            ([80, 96], all, (1022, 0x7792_0f87_1bd9_a1f3), (4080, 0xba1d_788e_66a1_c739)),
            ([80, 96], part, (203, 0xe4f1_c6fe_594c_9bcc), (852, 0x8cc8_11d8_7608_293f)),
            ([100, 31], all, (1022, 0x7792_0f87_1bd9_a1f3), (1722, 0xd9d2_5943_274e_f657)),
            ([100, 31], part, (203, 0xe4f1_c6fe_594c_9bcc), (301, 0x9237_21a3_681b_cf34)),
            ([23, 90], all, (1022, 0x7792_0f87_1bd9_a1f3), (1142, 0xd02a_84eb_091f_e74d)),
            ([23, 90], part, (203, 0xe4f1_c6fe_594c_9bcc), (377, 0x758a_33b6_d609_d246)),
            ([1, 5], all, (1022, 0x7792_0f87_1bd9_a1f3), (2, 0xd810_d2ae_a7df_6215)),
            ([1, 5], part, (203, 0xe4f1_c6fe_594c_9bcc), (0, 0xe4bc_4fd9_252b_e94f)),
        ];
        let data = values((PROTO_HW[0] * PROTO_HW[1] + 1) * CHANNELS, 7);
        let (prototypes, coefficients) = data.split_at(PROTO_HW[0] * PROTO_HW[1] * CHANNELS);
        let mut scratch = MaskScratch::default();
        for (image_hw, xyxy, input, picture) in cases {
            let letterbox = letterbox(image_hw);
            let mut mask =
                |xyxy, size| scratch.mask(&view(prototypes), coefficients, xyxy, &letterbox, size).unwrap();
            let got = mask(xyxy, MaskSize::Input);
            assert_eq!(digest(got.as_ref(), letterbox.net_hw()), input, "{image_hw:?} {xyxy:?}");
            let got = mask(letterbox.map_box(xyxy), MaskSize::Picture);
            assert_eq!(digest(got.as_ref(), image_hw), picture, "{image_hw:?} {xyxy:?}");
            assert_eq!(got.is_none(), picture.0 == 0);
        }
    }

    #[test]
    fn what_is_not_a_number_is_no_object() {
        let mut data = values(PROTO_HW[0] * PROTO_HW[1] * CHANNELS, 1);
        let letterbox = letterbox([40, 48]);
        let mut scratch = MaskScratch::default();
        let mut mask = |data: &[f32], coefficients: &[f32], xyxy| {
            scratch.mask(&view(data), coefficients, xyxy, &letterbox, MaskSize::Input).unwrap()
        };
        let all = [0.0, 0.0, 48.0, 40.0];
        assert!(mask(&data, &[f32::NAN; CHANNELS], all).is_none());
        assert!(mask(&data, &[1.0; CHANNELS], [f32::NAN; 4]).is_none());
        assert!(mask(&data, &[1.0; CHANNELS], [30.0, 5.0, 20.0, 9.0]).is_none());
        data.fill(f32::NAN);
        assert!(mask(&data, &[1.0; CHANNELS], all).is_none());
    }

    #[test]
    fn the_memory_of_masks_is_limited() {
        let data = vec![1.0; PROTO_HW[0] * PROTO_HW[1] * CHANNELS];
        let letterbox = letterbox([20_000, 20_000]);
        let mut scratch = MaskScratch { n_bytes: MAX_MASK_BYTES - 100, ..MaskScratch::default() };
        let mut mask = |side: f32| {
            let xyxy = [0.0, 0.0, side, side];
            scratch.mask(&view(&data), &[1.0; CHANNELS], xyxy, &letterbox, MaskSize::Picture)
        };
        assert_eq!(mask(10.0).unwrap().map(|mask| mask.area()), Some(100));
        assert_eq!(mask(1.0).unwrap_err().kind(), ErrorKind::Limit);
    }

    #[test]
    fn padding_is_cut_where_it_falls_between_pixels() {
        let check = |image_hw: [usize; 2], factor: usize| {
            let letterbox = Letterbox::new(image_hw, [640, 640], Placement::Center).unwrap();
            assert_eq!(steps([160, 160], &letterbox).factor, factor, "{image_hw:?}");
        };
        check([480, 640], 1);
        check([337, 120], 2);
        check([589, 677], 4);
    }

    proptest! {
        /// A box's mask is the part of the whole picture's mask that lies in the box.
        #[test]
        fn cropping_commutes(
            image_hw in prop::array::uniform2(1usize..60),
            (x1, y1, x2, y2) in (-9.0f32..60.0, -9.0f32..60.0, -9.0f32..60.0, -9.0f32..60.0),
            seed in any::<u32>(),
            picture: bool,
        ) {
            let size = if picture { MaskSize::Picture } else { MaskSize::Input };
            let data = values((PROTO_HW[0] * PROTO_HW[1] + 1) * CHANNELS, seed);
            let (prototypes, coefficients) = data.split_at(PROTO_HW[0] * PROTO_HW[1] * CHANNELS);
            let letterbox = letterbox(image_hw);
            let mut scratch = MaskScratch::default();
            let mut mask = |xyxy| scratch.mask(&view(prototypes), coefficients, xyxy, &letterbox, size).unwrap();
            let (whole, part) = (mask([0.0, 0.0, 1e4, 1e4]), mask([x1, y1, x2, y2]));
            let [height, width] = if picture { image_hw } else { letterbox.net_hw() };
            for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                let (fx, fy) = (x as f32, y as f32);
                let inside = fx >= x1 && fx < x2 && fy >= y1 && fy < y2;
                let expected = inside && whole.as_ref().is_some_and(|mask| mask.contains(x, y));
                prop_assert_eq!(part.as_ref().is_some_and(|mask| mask.contains(x, y)), expected);
            }
        }
    }
}
