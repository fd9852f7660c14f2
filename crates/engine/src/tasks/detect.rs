//! Decoding of detection heads.

use ferroyolo_kernels::{
    Activation, Arena, Context, View, dfl, dfl_planar, max_over_channels, sigmoid, store_planar,
};

use super::extra;
#[cfg(feature = "gpu")]
use super::found::Row;
use super::nms::Candidate;
use crate::graph::{Plan, ValueId};
use crate::modules::{Branch, DetectHead, Extra, Level, Regression};

/// Slack on a threshold that is compared before the sigmoid, so that rounding there can't drop a box.
const LOGIT_SLACK: f32 = 1e-3;

/// Pairs of anchor and class that are held before the worse ones are dropped.
const MAX_PAIRS: usize = 1 << 16;

/// What a box has to reach to become a candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    /// Scores have to be larger than this.
    pub conf: f32,
    /// Class indices to keep; all if absent.
    pub classes: Option<&'a [usize]>,
    /// Every class that passes, instead of the best one only.
    pub multi_label: bool,
}

impl Filter<'_> {
    /// Whether a finished detection is reported.
    pub(crate) fn passes(&self, found: &Candidate) -> bool {
        found.score > self.conf
            && self.keeps(found.class as usize)
            && found.xyxy.iter().all(|edge| edge.is_finite())
    }

    /// What a logit has to exceed for its score to be looked at.
    pub(crate) fn threshold(&self) -> f32 {
        logit(self.conf) - LOGIT_SLACK
    }

    pub(crate) fn keeps(&self, class: usize) -> bool {
        self.classes.is_none_or(|classes| classes.contains(&class))
    }
}

/// Working memory of the decoder, kept from picture to picture.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Largest class logit of each anchor.
    best: Vec<f32>,
    /// Anchors in the course of being ranked.
    ranked: Vec<(f32, u32)>,
    pairs: Vec<Pair>,
}

/// A logit, and the rank of its anchor and its class.
type Pair = (f32, (u32, u32));

/// One branch of a head on one plan: where its outputs lie.
pub(crate) struct Decoder<'a> {
    head: &'a DetectHead,
    levels: Vec<LevelViews>,
    n_anchors: usize,
}

/// The outputs of one level in the arena.
struct LevelViews {
    boxes: View,
    classes: View,
    objectness: Option<View>,
    extra: Option<View>,
    stride: f32,
    first_anchor: usize,
}

impl<'a> Decoder<'a> {
    /// The decoder of `branch`, or `None` if the plan does not compute it.
    pub(crate) fn new(head: &'a DetectHead, branch: &Branch, plan: &Plan) -> Option<Self> {
        let view = |value: ValueId| plan.views[value.0];
        let mut levels = Vec::with_capacity(branch.levels.len());
        let mut n_anchors = 0;
        let optional = |value: Option<ValueId>| match value {
            Some(value) => view(value).map(Some),
            None => Some(None),
        };
        for (level, &stride) in branch.levels.iter().zip(&head.strides) {
            let &Level { boxes, classes, objectness, extra } = level;
            let (boxes, classes) = (view(boxes)?, view(classes)?);
            let (objectness, extra) = (optional(objectness)?, optional(extra)?);
            let (stride, first_anchor) = (stride as f32, n_anchors);
            levels.push(LevelViews { boxes, classes, objectness, extra, stride, first_anchor });
            n_anchors += boxes.pixels();
        }
        Some(Self { head, levels, n_anchors })
    }

    /// Cells of all levels.
    pub(crate) fn n_anchors(&self) -> usize {
        self.n_anchors
    }

    /// Values of an anchor in the raw output: box, scores, and what comes with the box.
    pub(crate) fn n_values(&self) -> usize {
        4 + self.head.n_classes + self.head.extra.len()
    }

    /// Writes one image's `[n_values, anchors]`: center x, center y, width, height in pixels of the input, then the
    /// score of each class, then mask coefficients, keypoints in pixels of the input, or the angle in radians.
    pub(crate) fn write_raw(&self, context: Context<'_>, arena: &Arena, image: usize, out: &mut [f32]) {
        let anchors = self.n_anchors;
        let (boxes_out, rest) = out.split_at_mut(4 * anchors);
        let (scores_out, extra_out) = rest.split_at_mut(self.head.n_classes * anchors);
        for level in &self.levels {
            let first = level.first_anchor;
            store_planar(
                context,
                arena,
                level.classes,
                image,
                scores_out,
                anchors,
                first,
                Activation::Sigmoid,
            );
            match self.head.regression {
                Regression::Distances { reg_max: 1 } | Regression::CenterSize => {
                    store_planar(
                        context,
                        arena,
                        level.boxes,
                        image,
                        boxes_out,
                        anchors,
                        first,
                        Activation::None,
                    );
                }
                Regression::Distances { reg_max } => {
                    dfl_planar(context, arena, level.boxes, image, reg_max, boxes_out, anchors, first);
                }
            }
            let cells = first..first + level.boxes.pixels();
            if let Some(objectness) = level.objectness {
                let data = arena.as_slice();
                for (cell, anchor) in cells.clone().enumerate() {
                    let w = objectness.w;
                    let score = sigmoid(data[objectness.index(image, cell / w, cell % w)]);
                    for row in scores_out.chunks_exact_mut(anchors) {
                        row[anchor] *= score;
                    }
                }
            }
            let (rows01, rows23) = boxes_out.split_at_mut(2 * anchors);
            let (row0, row1) = rows01.split_at_mut(anchors);
            let (row2, row3) = rows23.split_at_mut(anchors);
            let rows = [row0, row1, row2, row3].map(|row| &mut row[cells.clone()]);
            self.write_extra(context, arena, level, image, extra_out);
            let angles = matches!(self.head.extra, Extra::Angle { .. }).then(|| &extra_out[cells.clone()]);
            level.boxes_to_pixels(self.head.regression, rows, angles);
        }
    }

    /// Writes what comes with the boxes of one level to its anchors in rows of all anchors.
    fn write_extra(
        &self,
        context: Context<'_>,
        arena: &Arena,
        level: &LevelViews,
        image: usize,
        out: &mut [f32],
    ) {
        let Some(view) = level.extra else { return };
        let (anchors, first) = (self.n_anchors, level.first_anchor);
        let cells = first..first + view.pixels();
        store_planar(context, arena, view, image, out, anchors, first, Activation::None);
        for (channel, row) in out.chunks_exact_mut(anchors).enumerate() {
            let activation = extra::activation(self.head.extra, channel);
            if activation != Activation::None {
                let one = view.channels(channel, 1);
                store_planar(context, arena, one, image, row, anchors, first, activation);
            }
            extra::decode_row(self.head.extra, channel, &mut row[cells.clone()], view.w, level.stride);
        }
    }

    /// What comes with the box of one anchor: mask coefficients, keypoints (x and y in pixels of the input, then the
    /// visibility where there is one), or the angle in radians. `out` is cleared first.
    pub(crate) fn extra(&self, arena: &Arena, image: usize, anchor: usize, out: &mut Vec<f32>) {
        out.clear();
        let (level, cell) = self.locate(anchor);
        if let Some(view) = &level.extra {
            out.extend_from_slice(pixel(arena, view, image, cell));
            self.decode_extra(level, cell, out);
        }
    }

    /// Finishes the raw values that come with the box of one cell.
    fn decode_extra(&self, level: &LevelViews, cell: usize, values: &mut [f32]) {
        let w = level.boxes.w;
        extra::decode_cell(self.head.extra, values, [(cell % w) as f32, (cell / w) as f32], level.stride);
    }

    /// The box of a row that a graphics processor found, as [`Decoder::candidates`] and [`Decoder::top_k`] give it.
    #[cfg(feature = "gpu")]
    pub(crate) fn candidate(&self, row: &Row<'_>) -> Candidate {
        let (level, cell) = self.locate(row.anchor);
        let objectness = level.objectness.map_or(1.0, |_| sigmoid(row.objectness));
        Candidate {
            xyxy: self.corners(level, cell, row.sides, row.extra),
            score: sigmoid(row.logit) * objectness,
            class: row.class,
            anchor: row.anchor as u32,
        }
    }

    /// As [`Decoder::extra`], of a row that a graphics processor found.
    #[cfg(feature = "gpu")]
    pub(crate) fn extra_of(&self, row: &Row<'_>, out: &mut Vec<f32>) {
        let (level, cell) = self.locate(row.anchor);
        out.clear();
        out.extend_from_slice(row.extra);
        self.decode_extra(level, cell, out);
    }

    /// Collects one image's boxes that pass the filter, as corners in pixels of the input.
    pub(crate) fn candidates(
        &self,
        context: Context<'_>,
        arena: &Arena,
        image: usize,
        filter: &Filter<'_>,
        scratch: &mut Scratch,
        candidates: &mut Vec<Candidate>,
    ) {
        let threshold = filter.threshold();
        self.best_logits(context, arena, image, &mut scratch.best);
        for level in &self.levels {
            for cell in 0..level.boxes.pixels() {
                let anchor = level.first_anchor + cell;
                if scratch.best[anchor] <= threshold {
                    continue;
                }
                let objectness = level.objectness(arena, image, cell);
                let logits = level.logits(arena, image, cell);
                let mut xyxy = None;
                let mut push = |class: usize, score: f32| {
                    if score > filter.conf && filter.keeps(class) {
                        let xyxy =
                            *xyxy.get_or_insert_with(|| self.corners_in(context, arena, level, image, cell));
                        candidates.push(Candidate {
                            xyxy,
                            score,
                            class: class as u32,
                            anchor: anchor as u32,
                        });
                    }
                };
                if filter.multi_label {
                    for (class, &logit) in logits.iter().enumerate().filter(|(_, logit)| **logit > threshold)
                    {
                        push(class, sigmoid(logit) * objectness);
                    }
                } else if let Some(class) = logits.iter().position(|&logit| logit == scratch.best[anchor]) {
                    push(class, sigmoid(logits[class]) * objectness);
                }
            }
        }
    }

    /// The best `k` boxes of a one-to-one branch by falling score: corners in pixels of the input, score and class.
    ///
    /// First the `k` anchors with the best class are taken, then the best `k` of all their classes, so one anchor can
    /// appear for several.
    pub(crate) fn top_k(
        &self,
        context: Context<'_>,
        arena: &Arena,
        image: usize,
        scratch: &mut Scratch,
        mut emit: impl FnMut(usize, Candidate),
    ) {
        let k = self.k();
        let Scratch { best, ranked, pairs } = scratch;
        self.best_logits(context, arena, image, best);
        ranked.clear();
        ranked.extend(best.iter().zip(0..).map(|(&logit, anchor)| (logit, anchor)));
        keep_largest(ranked, k);
        let logits = |&(_, anchor): &(f32, u32)| {
            let (level, cell) = self.locate(anchor as usize);
            level.logits(arena, image, cell)
        };
        best_pairs(ranked.iter().map(logits), k, pairs);
        for (row, &(logit, (rank, class))) in pairs.iter().enumerate() {
            let anchor = ranked[rank as usize].1;
            let (level, cell) = self.locate(anchor as usize);
            let xyxy = self.corners_in(context, arena, level, image, cell);
            let score = sigmoid(logit) * level.objectness(arena, image, cell);
            emit(row, Candidate { xyxy, score, class, anchor });
        }
    }

    /// Boxes that [`Decoder::top_k`] gives.
    pub(crate) fn k(&self) -> usize {
        self.head.max_det.min(self.n_anchors)
    }

    fn best_logits(&self, context: Context<'_>, arena: &Arena, image: usize, best: &mut Vec<f32>) {
        best.resize(self.n_anchors, f32::NEG_INFINITY);
        for level in &self.levels {
            let out = &mut best[level.first_anchor..][..level.classes.pixels()];
            max_over_channels(context, arena, level.classes, image, out);
        }
    }

    fn locate(&self, anchor: usize) -> (&LevelViews, usize) {
        let level = self.levels.partition_point(|level| level.first_anchor <= anchor) - 1;
        (&self.levels[level], anchor - self.levels[level].first_anchor)
    }

    /// The corners of one cell's box, as [`Decoder::corners`], from the raw maps.
    fn corners_in(
        &self,
        context: Context<'_>,
        arena: &Arena,
        level: &LevelViews,
        image: usize,
        cell: usize,
    ) -> [f32; 4] {
        let raw = pixel(arena, &level.boxes, image, cell);
        let sides = match self.head.regression {
            Regression::Distances { reg_max } if reg_max > 1 => dfl(context, raw, reg_max),
            Regression::Distances { .. } | Regression::CenterSize => [raw[0], raw[1], raw[2], raw[3]],
        };
        let extra = level.extra.as_ref().map_or(&[][..], |view| pixel(arena, view, image, cell));
        self.corners(level, cell, sides, extra)
    }

    /// The corners of one cell's box, in pixels of the input; of a turned box those that it has before it is turned
    /// around its center.
    ///
    /// `sides` are what [`Regression`] names, distributions as their means. `extra` are the raw values that come with
    /// the box.
    fn corners(&self, level: &LevelViews, cell: usize, sides: [f32; 4], extra: &[f32]) -> [f32; 4] {
        let (x, y) = ((cell % level.boxes.w) as f32, (cell / level.boxes.w) as f32);
        match self.head.regression {
            Regression::Distances { .. } => {
                let [l, t, r, b] = sides;
                let (x, y) = (x + 0.5, y + 0.5);
                let edges = match (self.head.extra, extra) {
                    (Extra::Angle { raw }, &[angle, ..]) => {
                        let angle = extra::angle(angle, raw);
                        let [dx, dy] = extra::turned_center([l, t, r, b], angle);
                        let (w, h) = ((l + r) / 2.0, (t + b) / 2.0);
                        [x + dx - w, y + dy - h, x + dx + w, y + dy + h]
                    }
                    _ => [x - l, y - t, x + r, y + b],
                };
                edges.map(|edge| edge * level.stride)
            }
            Regression::CenterSize => {
                let [dx, dy, log_w, log_h] = sides;
                let (cx, cy) = ((dx + x) * level.stride, (dy + y) * level.stride);
                let (w, h) = (log_w.exp() * level.stride, log_h.exp() * level.stride);
                [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
            }
        }
    }
}

impl LevelViews {
    fn logits<'a>(&self, arena: &'a Arena, image: usize, cell: usize) -> &'a [f32] {
        pixel(arena, &self.classes, image, cell)
    }

    /// The objectness score of a cell; one for heads that have none.
    fn objectness(&self, arena: &Arena, image: usize, cell: usize) -> f32 {
        self.objectness.map_or(1.0, |view| sigmoid(pixel(arena, &view, image, cell)[0]))
    }

    /// Turns rows of regression values into rows of center x, center y, width and height in pixels. Turned boxes have
    /// `angles` in radians.
    fn boxes_to_pixels(
        &self,
        regression: Regression,
        [row0, row1, row2, row3]: [&mut [f32]; 4],
        angles: Option<&[f32]>,
    ) {
        let (w, stride) = (self.boxes.w, self.stride);
        let rows = row0.chunks_mut(w).zip(row1.chunks_mut(w)).zip(row2.chunks_mut(w).zip(row3.chunks_mut(w)));
        for (y, ((row0, row1), (row2, row3))) in rows.enumerate() {
            let y = y as f32;
            for (x, ((v0, v1), (v2, v3))) in
                row0.iter_mut().zip(row1).zip(row2.iter_mut().zip(row3)).enumerate()
            {
                let x = x as f32;
                let [cx, cy, bw, bh] = match regression {
                    Regression::Distances { .. } => {
                        let [l, t, r, b] = [*v0, *v1, *v2, *v3];
                        let [dx, dy] = match angles {
                            Some(angles) => {
                                extra::turned_center([l, t, r, b], angles[y as usize * w + x as usize])
                            }
                            None => [(r - l) / 2.0, (b - t) / 2.0],
                        };
                        [x + 0.5 + dx, y + 0.5 + dy, l + r, t + b]
                    }
                    Regression::CenterSize => [*v0 + x, *v1 + y, v2.exp(), v3.exp()],
                };
                [*v0, *v1, *v2, *v3] = [cx * stride, cy * stride, bw * stride, bh * stride];
            }
        }
    }
}

/// All channels of one pixel.
fn pixel<'a>(arena: &'a Arena, view: &View, image: usize, cell: usize) -> &'a [f32] {
    &arena.as_slice()[view.index(image, cell / view.w, cell % view.w)..][..view.c]
}

/// The logit whose sigmoid is `score`.
fn logit(score: f32) -> f32 {
    (score / (1.0 - score)).ln()
}

/// The best `k` pairs of an anchor, by its place in `anchors`, and a class; `anchors` gives the logits of each.
fn best_pairs<'a>(anchors: impl Iterator<Item = &'a [f32]>, k: usize, pairs: &mut Vec<Pair>) {
    pairs.clear();
    for (rank, logits) in (0..).zip(anchors) {
        pairs.extend(logits.iter().zip(0..).map(|(&logit, class)| (logit, (rank, class))));
        // Anchors times classes may be more than memory holds.
        if pairs.len() > MAX_PAIRS.max(2 * k) {
            keep_largest(pairs, k);
        }
    }
    keep_largest(pairs, k);
}

/// Keeps the `k` largest, sorted by falling value, equal ones by key. NaN counts as smallest.
fn keep_largest<K: Copy + Ord>(items: &mut Vec<(f32, K)>, k: usize) {
    let by_value = |a: &(f32, K), b: &(f32, K)| {
        // Adding zero turns -0 into 0, which is the same value.
        let number = |value: f32| if value.is_nan() { f32::NEG_INFINITY } else { value + 0.0 };
        number(b.0).total_cmp(&number(a.0)).then(a.1.cmp(&b.1))
    };
    if k < items.len() {
        items.select_nth_unstable_by(k, by_value);
        items.truncate(k);
    }
    items.sort_unstable_by(by_value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_come_first_and_nan_last() {
        let mut items = vec![(1.0, 0), (f32::NAN, 1), (3.0, 2), (3.0, 3), (2.0, 4)];
        keep_largest(&mut items, 3);
        assert_eq!(items, [(3.0, 2), (3.0, 3), (2.0, 4)]);
        keep_largest(&mut items, 9);
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn pairs_of_many_classes_are_dropped_on_the_way() {
        let (n_anchors, n_classes, k) = (60, 20_000, 90);
        let logits: Vec<f32> = (0..n_anchors * n_classes).map(|idx| (idx * 7919 % 4099) as f32).collect();
        let mut all: Vec<Pair> = Vec::new();
        for (idx, &logit) in logits.iter().enumerate() {
            all.push((logit, ((idx / n_classes) as u32, (idx % n_classes) as u32)));
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut pairs = Vec::new();
        best_pairs(logits.chunks(n_classes), k, &mut pairs);
        assert_eq!(pairs, all[..k]);
        assert!(pairs.capacity() < 4 * MAX_PAIRS, "{}", pairs.capacity());
    }

    #[test]
    fn logit_inverts_the_sigmoid() {
        for score in [0.001, 0.25, 0.5, 0.9] {
            assert!((sigmoid(logit(score)) - score).abs() < 1e-6, "{score}");
        }
        assert_eq!(logit(0.0), f32::NEG_INFINITY);
        assert_eq!(logit(1.0), f32::INFINITY);
    }
}
