//! Bilinear scaling of maps in one or two stages, row by row.
//!
//! Maps come out of a network at a fraction of the input's size, are scaled up to the input, freed of its padding and
//! scaled once more to the picture. Rows are made one after the other, so a large picture takes no memory here.

use std::ops::Range;

use ferroyolo_kernels::{Arena, View};

/// One axis of a bilinear scaling: for each value of the result, the two source values and the share of the second.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    taps: Vec<Tap>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    low: usize,
    high: usize,
    /// How much of `high`, 0 to 1; the rest is of `low`.
    share: f32,
}

/// How the ends of source and result correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Their outer edges meet: positions are centers of pixels (`align_corners` false).
    Edges,
    /// The centers of their outermost pixels meet (`align_corners` true).
    Centers,
}

impl Axis {
    /// Scales `from` values to `to`, of which only those in `wanted` are computed.
    pub(crate) fn new(from: usize, to: usize, ends: Ends, wanted: Range<usize>) -> Self {
        let last = from.saturating_sub(1);
        let at = |idx: usize| match ends {
            Ends::Edges => ((idx as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0),
            Ends::Centers if to > 1 => idx as f32 * (last as f32 / (to - 1) as f32),
            Ends::Centers => 0.0,
        };
        let tap = |idx| {
            let at = at(idx);
            let low = (at as usize).min(last);
            Tap { low, high: (low + 1).min(last), share: (at - low as f32).clamp(0.0, 1.0) }
        };
        Self { taps: wanted.map(tap).collect() }
    }

    /// The source values that are looked at.
    pub(crate) fn source(&self) -> Range<usize> {
        match (self.taps.first(), self.taps.last()) {
            (Some(first), Some(last)) => first.low..last.high + 1,
            _ => 0..0,
        }
    }

    /// The same axis for a source that begins `offset` values later, or earlier if it is negative.
    pub(crate) fn shifted(mut self, offset: isize) -> Self {
        for tap in &mut self.taps {
            tap.low = tap.low.saturating_add_signed(-offset);
            tap.high = tap.high.saturating_add_signed(-offset);
        }
        self
    }

    /// The two source values that a value is made of, and the share of each.
    #[cfg(feature = "gpu")]
    pub(crate) fn sources(&self, idx: usize) -> [(usize, f32); 2] {
        let Tap { low, high, share } = self.taps[idx];
        [(low, 1.0 - share), (high, share)]
    }

    /// Number of values computed.
    pub(crate) fn len(&self) -> usize {
        self.taps.len()
    }
}

/// Rows of pixels of a fixed number of values.
pub(crate) trait Rows {
    /// Row `y`. Cheapest if asked for in order.
    fn row(&mut self, y: usize) -> &[f32];
}

/// A map as a network leaves it: channels innermost, in an image of an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapView<'a> {
    /// Values from the first pixel on.
    pub data: &'a [f32],
    pub hw: [usize; 2],
    pub channels: usize,
    /// Values from one pixel to the next.
    pub pixel_stride: usize,
    /// Values from one row to the next.
    pub row_stride: usize,
}

impl<'a> MapView<'a> {
    pub(crate) fn new(arena: &'a Arena, view: &View, image: usize) -> Self {
        Self {
            data: &arena.as_slice()[view.index(image, 0, 0)..],
            hw: [view.h, view.w],
            channels: view.c,
            pixel_stride: view.pixel_stride,
            row_stride: view.row_stride,
        }
    }

    /// All channels of a pixel.
    pub(crate) fn pixel(&self, y: usize, x: usize) -> &'a [f32] {
        &self.data[y * self.row_stride + x * self.pixel_stride..][..self.channels]
    }
}

/// The rows of a map without what lies between its pixels.
pub(crate) struct Compact<'a> {
    map: MapView<'a>,
    row: Vec<f32>,
}

impl<'a> Compact<'a> {
    pub(crate) fn new(map: MapView<'a>) -> Self {
        Self { map, row: Vec::with_capacity(map.hw[1] * map.channels) }
    }
}

impl Rows for Compact<'_> {
    fn row(&mut self, y: usize) -> &[f32] {
        self.row.clear();
        (0..self.map.hw[1]).for_each(|x| self.row.extend_from_slice(self.map.pixel(y, x)));
        &self.row
    }
}

/// A dense map, row after row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dense<'a> {
    pub data: &'a [f32],
    /// Values from one row to the next.
    pub row_stride: usize,
}

impl Rows for Dense<'_> {
    fn row(&mut self, y: usize) -> &[f32] {
        &self.data[y * self.row_stride..][..self.row_stride]
    }
}

/// The rows of a scaled map.
pub(crate) struct Scaled<'a, S> {
    source: S,
    rows: &'a Axis,
    columns: &'a Axis,
    /// Values per pixel.
    channels: usize,
    lines: [Line; 2],
    out: Vec<f32>,
}

/// A source row, scaled across.
#[derive(Debug, Default)]
struct Line {
    y: Option<usize>,
    values: Vec<f32>,
}

impl<'a, S: Rows> Scaled<'a, S> {
    /// Scales `source`, whose pixels have `channels` values.
    pub(crate) fn new(source: S, rows: &'a Axis, columns: &'a Axis, channels: usize) -> Self {
        let line = || Line { y: None, values: vec![0.0; columns.len() * channels] };
        let out = vec![0.0; columns.len() * channels];
        Self { source, rows, columns, channels, lines: [line(), line()], out }
    }
}

impl<S: Rows> Rows for Scaled<'_, S> {
    fn row(&mut self, y: usize) -> &[f32] {
        let Tap { low, high, share } = self.rows.taps[y];
        if self.lines[0].y != Some(low) {
            self.lines.swap(0, 1);
        }
        // The last row has no other below it; then one line serves as both.
        let wanted = if low == high { 1 } else { 2 };
        for (line, y) in self.lines.iter_mut().zip([low, high]).take(wanted) {
            if line.y != Some(y) {
                line.y = Some(y);
                across(self.source.row(y), self.columns, self.channels, &mut line.values);
            }
        }
        let [above, below] = &self.lines;
        if low == high {
            return &above.values;
        }
        for ((to, above), below) in self.out.iter_mut().zip(&above.values).zip(&below.values) {
            *to = above + (below - above) * share;
        }
        &self.out
    }
}

fn across(row: &[f32], columns: &Axis, channels: usize, out: &mut [f32]) {
    if channels == 1 {
        for (to, tap) in out.iter_mut().zip(&columns.taps) {
            let (low, high) = (row[tap.low], row[tap.high]);
            *to = low + (high - low) * tap.share;
        }
        return;
    }
    for (to, tap) in out.chunks_exact_mut(channels).zip(&columns.taps) {
        let low = &row[tap.low * channels..][..channels];
        let high = &row[tap.high * channels..][..channels];
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = low + (high - low) * tap.share;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaled(map: &[f32], [h, w]: [usize; 2], to: [usize; 2], ends: Ends) -> Vec<f32> {
        let rows = Axis::new(h, to[0], ends, 0..to[0]);
        let columns = Axis::new(w, to[1], ends, 0..to[1]);
        let channels = map.len() / (h * w);
        let source = Dense { data: map, row_stride: w * channels };
        let mut scaled = Scaled::new(source, &rows, &columns, channels);
        (0..to[0]).flat_map(|y| scaled.row(y).to_vec()).collect()
    }

    fn check(map: &[f32], hw: [usize; 2], to: [usize; 2], ends: Ends, expected: &[f32]) {
        let got = scaled(map, hw, to, ends);
        let close = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6);
        assert!(close && got.len() == expected.len(), "{got:?} is not {expected:?}");
    }

    #[test]
    fn pixels_are_areas_or_points() {
        check(&[0.0, 4.0], [1, 2], [1, 4], Ends::Edges, &[0.0, 1.0, 3.0, 4.0]);
        check(&[0.0, 3.0], [1, 2], [1, 4], Ends::Centers, &[0.0, 1.0, 2.0, 3.0]);
        check(&[0.0, 2.0, 4.0, 6.0], [2, 2], [1, 1], Ends::Edges, &[3.0]);
        check(&[0.0, 2.0, 4.0, 6.0], [2, 2], [1, 1], Ends::Centers, &[0.0]);
        check(&[1.0, 5.0], [2, 1], [4, 1], Ends::Edges, &[1.0, 2.0, 4.0, 5.0]);
        check(&[7.0], [1, 1], [2, 3], Ends::Edges, &[7.0; 6]);
        check(&[0.0, 10.0, 4.0, 30.0], [1, 2], [1, 2], Ends::Edges, &[0.0, 10.0, 4.0, 30.0]);
    }

    #[test]
    fn a_part_equals_the_whole() {
        let map: Vec<f32> = (0..35).map(|value| (value * value % 17) as f32).collect();
        let whole = scaled(&map, [5, 7], [20, 28], Ends::Edges);
        let rows = Axis::new(5, 20, Ends::Edges, 9..14);
        let columns = Axis::new(7, 28, Ends::Edges, 11..23);
        let (ys, xs) = (rows.source(), columns.source());
        let part: Vec<f32> = ys.clone().flat_map(|y| map[y * 7..][xs.clone()].to_vec()).collect();
        let (rows, columns) = (rows.shifted(ys.start as isize), columns.shifted(xs.start as isize));
        let source = Dense { data: &part, row_stride: xs.len() };
        let mut scaled = Scaled::new(source, &rows, &columns, 1);
        for y in 9..14 {
            assert_eq!(scaled.row(y - 9), &whole[y * 28 + 11..y * 28 + 23]);
        }
    }

    proptest! {
        #[test]
        fn results_stay_between_the_extremes(
            hw in prop::array::uniform2(1usize..9),
            to in prop::array::uniform2(1usize..30),
            centers in any::<bool>(),
            seed in prop::collection::vec(-5.0f32..5.0, 64),
        ) {
            let map = &seed[..hw[0] * hw[1]];
            let ends = if centers { Ends::Centers } else { Ends::Edges };
            let got = scaled(map, hw, to, ends);
            let low = map.iter().copied().fold(f32::INFINITY, f32::min) - 1e-5;
            let high = map.iter().copied().fold(f32::NEG_INFINITY, f32::max) + 1e-5;
            prop_assert!(got.iter().all(|value| (low..=high).contains(value)));
            if hw == to {
                prop_assert_eq!(&got[..], map);
            }
        }
    }
}
