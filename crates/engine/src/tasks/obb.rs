//! Rotated boxes: suppression of those that are alike.
//!
//! Boxes are `[x, y, w, h, angle]`: center, width and height in pixels, and the angle in radians by which the width is
//! turned clockwise from the right, as seen with y downwards.

use super::nms::{CLASS_OFFSET, NmsOptions, best_first, by_score};
use super::prob_iou::{Bound, Gaussian, prob_iou};

/// Groups that the boxes are kept in. Classes share a group only if there are more of them.
const N_GROUPS: usize = 128;

/// Boxes whose places are compared side by side.
const LANES: usize = 16;

/// A rotated box that a network proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RotatedCandidate {
    pub xywhr: [f32; 5],
    /// How sure the network is, 0 to 1.
    pub score: f32,
    /// Index of the class.
    pub class: u32,
    /// Index of the anchor that it comes from.
    pub anchor: u32,
}

/// Returns the indices of the rotated boxes to keep, by falling score.
///
/// A box goes if one of higher rank is alike by `options.iou` or more, whether or not that one goes itself. Equal
/// scores are ordered by anchor, then by class. What is not finite is never kept and suppresses nothing.
pub(crate) fn nms_rotated(candidates: &[RotatedCandidate], options: &NmsOptions) -> Vec<usize> {
    let is_finite = |found: &RotatedCandidate| {
        found.score.is_finite() && found.xywhr.iter().all(|value| value.is_finite())
    };
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&idx| is_finite(&candidates[idx])).collect();
    let key = |idx: usize| {
        let found = &candidates[idx];
        (found.score, found.anchor, found.class)
    };
    best_first(&mut order, options.max_candidates, |a, b| by_score(key(a), key(b)));
    let offset = if options.agnostic { 0.0 } else { CLASS_OFFSET };
    let mut seen = SeenBoxes::new(options.iou);
    let mut kept = Vec::new();
    for idx in order {
        if kept.len() >= options.max_det {
            break;
        }
        let RotatedCandidate { xywhr, class, .. } = candidates[idx];
        let found = Gaussian::new(xywhr, class as f32 * offset);
        if !seen.suppress(&found) {
            kept.push(idx);
        }
        seen.insert(found, class);
    }
    kept
}

/// The boxes seen so far, whether kept or not, as far as they are told apart without the full formula.
struct SeenBoxes {
    iou: f32,
    bound: Bound,
    /// Boxes for which no bound holds.
    irregular: Vec<Gaussian>,
    groups: Vec<Group>,
}

impl SeenBoxes {
    fn new(iou: f32) -> Self {
        let groups = (0..N_GROUPS).map(|_| Group::default()).collect();
        Self { iou, bound: Bound::new(iou), irregular: Vec::new(), groups }
    }

    /// Whether any box is alike.
    fn suppress(&self, found: &Gaussian) -> bool {
        let is_alike = |other: &Gaussian| prob_iou(other, found) >= self.iou;
        if self.irregular.iter().any(is_alike) {
            return true;
        }
        if !found.is_regular() {
            return self.groups.iter().flat_map(|group| &group.boxes).any(is_alike);
        }
        let is_alike = |other: &Gaussian| self.bound.may_hold(other, found) && is_alike(other);
        self.groups.iter().any(|group| group.near(found, &self.bound).any(is_alike))
    }

    fn insert(&mut self, found: Gaussian, class: u32) {
        if found.is_regular() {
            self.groups[class as usize % N_GROUPS].insert(found);
        } else {
            self.irregular.push(found);
        }
    }
}

/// Regular boxes, in all likelihood of one class, and the room that they take.
#[derive(Default)]
struct Group {
    boxes: Vec<Gaussian>,
    /// The same boxes' places and traces, [`LANES`] at a time; what is left over at the end is nowhere.
    runs: Vec<Run>,
    /// Ranges of places.
    x: Range,
    y: Range,
    max_trace: f32,
}

/// As many boxes as are compared at once.
#[derive(Clone, Copy)]
struct Run {
    x: [f32; LANES],
    y: [f32; LANES],
    trace: [f32; LANES],
}

impl Group {
    fn insert(&mut self, found: Gaussian) {
        let lane = self.boxes.len() % LANES;
        if lane == 0 {
            self.runs.push(Run { x: [f32::INFINITY; LANES], y: [f32::INFINITY; LANES], trace: [0.0; LANES] });
        }
        if let Some(run) = self.runs.last_mut() {
            (run.x[lane], run.y[lane], run.trace[lane]) = (found.x, found.y, found.trace());
        }
        self.x.extend(found.x);
        self.y.extend(found.y);
        self.max_trace = self.max_trace.max(found.trace());
        self.boxes.push(found);
    }

    /// The boxes in runs of which one at least is near enough to be alike.
    fn near<'a>(&'a self, found: &'a Gaussian, bound: &'a Bound) -> impl Iterator<Item = &'a Gaussian> {
        let (x, y, trace) = (found.x, found.y, found.trace());
        let (dx, dy) = (self.x.distance(x), self.y.distance(y));
        // No box of the group has a smaller distance or a larger reach, rounding included.
        let is_near = dx * dx + dy * dy <= bound.reach2(trace, self.max_trace);
        let runs = if is_near { self.runs.as_slice() } else { &[] };
        let is_near = move |run: &Run| {
            let mut any = false;
            for lane in 0..LANES {
                let (dx, dy) = (run.x[lane] - x, run.y[lane] - y);
                any |= dx * dx + dy * dy <= bound.reach2(trace, run.trace[lane]);
            }
            any
        };
        runs.iter()
            .zip(self.boxes.chunks(LANES))
            .filter(move |(run, _)| is_near(run))
            .flat_map(|(_, boxes)| boxes)
    }
}

/// The smallest and the largest of some numbers.
struct Range {
    low: f32,
    high: f32,
}

impl Default for Range {
    fn default() -> Self {
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY }
    }
}

impl Range {
    fn extend(&mut self, value: f32) {
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
    }

    /// How far outside a number lies; nothing is near an empty range.
    fn distance(&self, value: f32) -> f32 {
        (self.low - value).max(value - self.high).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(xywhr: [f32; 5], score: f32, anchor: u32) -> RotatedCandidate {
        RotatedCandidate { xywhr, score, class: 0, anchor }
    }

    fn alike(a: [f32; 5], b: [f32; 5]) -> f32 {
        prob_iou(&Gaussian::new(a, 0.0), &Gaussian::new(b, 0.0))
    }

    /// The definition, without looking at distances first.
    fn naive(candidates: &[RotatedCandidate], options: &NmsOptions) -> Vec<usize> {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&candidates[a], &candidates[b]);
            b.score.partial_cmp(&a.score).unwrap().then((a.anchor, a.class).cmp(&(b.anchor, b.class)))
        });
        let gaussian = |idx: usize| {
            let offset = if options.agnostic { 0.0 } else { candidates[idx].class as f32 * 7680.0 };
            Gaussian::new(candidates[idx].xywhr, offset)
        };
        let is_kept = |rank: &usize| {
            let found = gaussian(order[*rank]);
            // A likeness that is not a number suppresses nothing.
            !order[..*rank].iter().any(|&other| prob_iou(&gaussian(other), &found) >= options.iou)
        };
        (0..order.len()).filter(is_kept).map(|rank| order[rank]).take(options.max_det).collect()
    }

    #[test]
    fn a_suppressed_box_still_suppresses() {
        let at = |x: f32, score| found([x, 0.0, 100.0, 20.0, 0.0], score, 0);
        let boxes = [at(0.0, 0.9), at(9.0, 0.8), at(18.0, 0.7)];
        let likeness = |a: usize, b: usize| alike(boxes[a].xywhr, boxes[b].xywhr);
        let iou = (likeness(0, 1) + likeness(0, 2)) / 2.0;
        assert!(likeness(1, 2) > iou && likeness(0, 2) < iou);
        assert_eq!(nms_rotated(&boxes, &NmsOptions { iou, ..Default::default() }), [0]);
        assert_eq!(nms_rotated(&boxes[..1], &NmsOptions::default()), [0]);
        assert_eq!(nms_rotated(&[], &NmsOptions::default()), [0usize; 0]);
    }

    #[test]
    fn classes_are_apart_unless_agnostic() {
        let first = found([50.0, 50.0, 30.0, 10.0, 0.1], 0.9, 0);
        let boxes = [first, RotatedCandidate { class: 1, score: 0.8, ..first }];
        assert_eq!(nms_rotated(&boxes, &NmsOptions::default()), [0, 1]);
        assert_eq!(nms_rotated(&boxes, &NmsOptions { agnostic: true, ..Default::default() }), [0]);
        let one = NmsOptions { max_det: 1, ..Default::default() };
        assert_eq!(nms_rotated(&boxes, &one), [0]);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let good = found([50.0, 50.0, 30.0, 10.0, 0.1], 0.5, 3);
        for value in 0..5 {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut other = RotatedCandidate { score: 0.9, ..good };
                other.xywhr[value] = bad;
                assert_eq!(nms_rotated(&[other, good], &NmsOptions::default()), [1]);
            }
        }
        let flat = [found([5.0, 5.0, 0.0, 0.0, 0.0], 0.5, 0); 2];
        assert_eq!(nms_rotated(&flat, &NmsOptions::default()).len(), 1, "points are boxes too");
    }

    /// Boxes close together, of ordinary sizes and of sizes from less than a pixel to needles and giants.
    fn boxes() -> impl Strategy<Value = RotatedCandidate> {
        let any_size = (-3.0f32..4.0).prop_map(|exponent| 10f32.powf(exponent));
        let side = prop_oneof![4 => 20.0f32..60.0, 1 => any_size, 1 => Just(0.0)];
        let class = prop_oneof![0u32..3, 0u32..400];
        ((0.0f32..300.0, 0.0f32..300.0, side.clone(), side, -3.0f32..3.0), 0.0f32..1.0, class).prop_map(
            |((x, y, w, h, r), score, class)| RotatedCandidate { class, ..found([x, y, w, h, r], score, 0) },
        )
    }

    proptest! {
        #[test]
        fn looking_at_distances_changes_nothing(
            boxes in prop::collection::vec(boxes(), 0..200),
            iou in prop_oneof![9 => 0.0f32..1.0, 1 => Just(0.0), 1 => Just(1.0)],
            agnostic: bool,
            max_det in 1usize..50,
        ) {
            let numbered = boxes.into_iter().zip(0..).map(|(found, anchor)| RotatedCandidate { anchor, ..found });
            let boxes: Vec<_> = numbered.collect();
            let options = NmsOptions { iou, agnostic, max_det, ..Default::default() };
            let kept = nms_rotated(&boxes, &options);
            prop_assert_eq!(&kept, &naive(&boxes, &options));
            prop_assert!(kept.windows(2).all(|pair| boxes[pair[0]].score >= boxes[pair[1]].score));
        }
    }
}
