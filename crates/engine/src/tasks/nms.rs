//! Non-maximum suppression: of boxes that show the same object, the best one stays.

use std::cmp::Ordering;

/// Distance in pixels by which the classes are moved apart, so that their boxes do not meet.
pub(crate) const CLASS_OFFSET: f32 = 7680.0;

/// Cells that one box may cover in the grid; larger boxes are kept in a list of their own.
const MAX_CELLS: usize = 16;

/// Kept boxes up to which comparing with each of them is faster than looking them up in the grid.
const MIN_GRID_BOXES: usize = 64;

/// A box that a network proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Corners `[x1, y1, x2, y2]` in pixels of the input.
    pub xyxy: [f32; 4],
    /// How sure the network is, 0 to 1.
    pub score: f32,
    /// Index of the class.
    pub class: u32,
    /// Index of the anchor that it comes from.
    pub anchor: u32,
}

/// What counts as the same object, and how many to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NmsOptions {
    /// Boxes that overlap a kept one by more than this (intersection over union) are suppressed.
    pub iou: f32,
    /// Boxes to keep at most.
    pub max_det: usize,
    /// Whether boxes of different classes suppress each other.
    pub agnostic: bool,
    /// Candidates to look at at most, those with the highest scores.
    pub max_candidates: usize,
}

impl Default for NmsOptions {
    fn default() -> Self {
        Self { iou: 0.7, max_det: 300, agnostic: false, max_candidates: 30_000 }
    }
}

/// Returns the indices of the candidates to keep, by falling score.
///
/// Equal scores are ordered by anchor, then by class, so the result does not depend on the order of the candidates.
/// Candidates with a score or corner that is not finite are never kept and suppress nothing. Classes are kept apart by
/// an offset that is added to the corners in `f32`; like the reference this coarsens the corners of high classes a
/// little.
pub(crate) fn nms(candidates: &[Candidate], options: &NmsOptions) -> Vec<usize> {
    let is_finite =
        |found: &Candidate| found.score.is_finite() && found.xyxy.iter().all(|edge| edge.is_finite());
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&idx| is_finite(&candidates[idx])).collect();
    best_first(&mut order, options.max_candidates, |a, b| rank(&candidates[a], &candidates[b]));

    let offset = if options.agnostic { 0.0 } else { CLASS_OFFSET };
    let boxes = order.iter().map(|&idx| {
        let Candidate { xyxy, class, .. } = candidates[idx];
        Rect::new(xyxy.map(|edge| edge + class as f32 * offset))
    });
    let boxes: Vec<Rect> = boxes.collect();
    let mut kept = KeptBoxes::new(&boxes, options.iou);
    let mut result = Vec::new();
    for (idx, found) in order.into_iter().zip(&boxes) {
        if result.len() >= options.max_det {
            break;
        }
        if !kept.suppress(found) {
            kept.insert(found);
            result.push(idx);
        }
    }
    result
}

/// Sorts indices by `by_rank` and keeps the first `max`.
pub(crate) fn best_first(order: &mut Vec<usize>, max: usize, by_rank: impl Fn(usize, usize) -> Ordering) {
    let by_rank = |&a: &usize, &b: &usize| by_rank(a, b);
    if order.len() > max {
        if max > 0 {
            order.select_nth_unstable_by(max - 1, by_rank);
        }
        order.truncate(max);
    }
    order.sort_unstable_by(by_rank);
}

/// Orders by falling score, then by anchor, then by class.
pub(crate) fn by_score(a: (f32, u32, u32), b: (f32, u32, u32)) -> Ordering {
    // Adding zero turns -0 into 0, which is the same score.
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then((a.1, a.2).cmp(&(b.1, b.2)))
}

/// The order in which candidates are looked at.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    let key = |found: &Candidate| (found.score, found.anchor, found.class);
    let by_corner = |(a, b): (&f32, &f32)| a.total_cmp(b);
    let by_corners = || a.xyxy.iter().zip(&b.xyxy).map(by_corner).fold(Ordering::Equal, Ordering::then);
    by_score(key(a), key(b)).then_with(by_corners)
}

#[derive(Clone, Copy, Debug)]
struct Rect {
    xyxy: [f32; 4],
    area: f32,
}

impl Rect {
    fn new(xyxy: [f32; 4]) -> Self {
        let [x1, y1, x2, y2] = xyxy;
        Self { xyxy, area: (x2 - x1) * (y2 - y1) }
    }

    /// Whether the intersection over union is larger than `iou`, which is at least 0.
    fn overlaps(&self, other: &Self, iou: f32) -> bool {
        let ([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) = (self.xyxy, other.xyxy);
        let width = (ax2.min(bx2) - ax1.max(bx1)).max(0.0);
        let height = (ay2.min(by2) - ay1.max(by1)).max(0.0);
        let intersection = width * height;
        // Most pairs do not meet, and a division takes longer than all the rest.
        intersection > 0.0 && intersection / (self.area + other.area - intersection) > iou
    }
}

/// The boxes kept so far, to be found by place.
///
/// They are entered in a grid of square cells that is folded into a table of fixed size. Two boxes that intersect
/// cover a common cell, so only boxes from the cells of a candidate need to be compared with it; those that are there
/// by the folding alone fail the comparison.
struct KeptBoxes {
    iou: f32,
    boxes: Vec<Rect>,
    /// Boxes that cover too many cells, and all boxes as long as there are few.
    everywhere: Vec<u32>,
    cells_per_pixel: f32,
    /// For each slot of the table its last entry, `NONE` if it is empty.
    slots: Vec<u32>,
    /// Box and the slot's entry before it.
    entries: Vec<(u32, u32)>,
}

const NONE: u32 = u32::MAX;

impl KeptBoxes {
    fn new(candidates: &[Rect], iou: f32) -> Self {
        // Twice the mean side, so that a typical box covers one to four cells.
        let sides =
            candidates.iter().map(|found| f64::from(found.area.abs()).sqrt()).filter(|side| side.is_finite());
        let mean = sides.sum::<f64>() / candidates.len().max(1) as f64;
        let cell = (2.0 * mean).clamp(1.0, 1e6);
        Self {
            iou: iou.max(0.0),
            boxes: Vec::new(),
            everywhere: Vec::new(),
            cells_per_pixel: (1.0 / cell) as f32,
            slots: vec![NONE; (2 * candidates.len()).next_power_of_two().clamp(64, 1 << 15)],
            entries: Vec::new(),
        }
    }

    fn suppress(&self, found: &Rect) -> bool {
        let overlaps = |idx: u32| self.boxes[idx as usize].overlaps(found, self.iou);
        if self.boxes.len() <= MIN_GRID_BOXES {
            return self.boxes.iter().any(|kept| kept.overlaps(found, self.iou));
        }
        let Some(cells) = self.cells(found) else {
            return self.boxes.iter().any(|kept| kept.overlaps(found, self.iou));
        };
        let in_slot = |slot: usize| {
            let mut entry = self.slots[slot];
            while let Some(&(kept, before)) = self.entries.get(entry as usize) {
                if overlaps(kept) {
                    return true;
                }
                entry = before;
            }
            false
        };
        self.everywhere.iter().any(|&kept| overlaps(kept)) || cells.slots(self.slots.len()).any(in_slot)
    }

    fn insert(&mut self, found: &Rect) {
        let idx = self.boxes.len() as u32;
        self.boxes.push(*found);
        match self.cells(found) {
            None => self.everywhere.push(idx),
            Some(cells) => {
                for slot in cells.slots(self.slots.len()) {
                    let entry = self.entries.len() as u32;
                    self.entries.push((idx, self.slots[slot]));
                    self.slots[slot] = entry;
                }
            }
        }
    }

    /// The cells that a box covers, unless they are too many.
    ///
    /// Scaling and rounding down keep the order of coordinates, so a point of two boxes has its cell in both ranges.
    fn cells(&self, found: &Rect) -> Option<Cells> {
        let [x1, y1, x2, y2] = found.xyxy.map(|edge| (edge * self.cells_per_pixel).floor() as i64);
        let count =
            |from: i64, to: i64| usize::try_from(to.saturating_sub(from).saturating_add(1)).unwrap_or(0);
        let n_cells = count(x1, x2).saturating_mul(count(y1, y2));
        (n_cells <= MAX_CELLS).then_some(Cells { x: [x1, x2], y: [y1, y2] })
    }
}

/// Ranges of cells in both directions, with their ends.
#[derive(Clone, Copy)]
struct Cells {
    x: [i64; 2],
    y: [i64; 2],
}

impl Cells {
    fn slots(self, n_slots: usize) -> impl Iterator<Item = usize> {
        let hash = move |x: i64, y: i64| {
            let mixed = (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ (y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
            (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as usize & (n_slots - 1)
        };
        (self.y[0]..=self.y[1]).flat_map(move |y| (self.x[0]..=self.x[1]).map(move |x| hash(x, y)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: a candidate is kept unless it overlaps a kept one of higher rank.
    fn naive(candidates: &[Candidate], options: &NmsOptions) -> Vec<usize> {
        let finite = |c: &Candidate| c.score.is_finite() && c.xyxy.iter().all(|edge| edge.is_finite());
        let mut order: Vec<usize> = (0..candidates.len()).filter(|&idx| finite(&candidates[idx])).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&candidates[a], &candidates[b]);
            b.score.partial_cmp(&a.score).unwrap().then((a.anchor, a.class).cmp(&(b.anchor, b.class)))
        });
        order.truncate(options.max_candidates);
        let rect = |idx: usize| {
            let offset = if options.agnostic { 0.0 } else { candidates[idx].class as f32 * 7680.0 };
            candidates[idx].xyxy.map(|edge| edge + offset)
        };
        let mut kept: Vec<usize> = Vec::new();
        for idx in order {
            if kept.iter().all(|&other| {
                iou(rect(other), rect(idx)).is_nan() || iou(rect(other), rect(idx)) <= options.iou
            }) {
                kept.push(idx);
            }
        }
        kept.truncate(options.max_det);
        kept
    }

    fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
        let area = |[x1, y1, x2, y2]: [f32; 4]| (x2 - x1) * (y2 - y1);
        let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
        let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
        width * height / (area(a) + area(b) - width * height)
    }

    fn candidate(x: f32, y: f32, side: f32, score: f32) -> Candidate {
        Candidate { xyxy: [x, y, x + side, y + side], score, class: 0, anchor: 0 }
    }

    #[test]
    fn the_better_of_two_stays() {
        let boxes = [candidate(0.0, 0.0, 10.0, 0.5), candidate(1.0, 0.0, 10.0, 0.9)];
        assert_eq!(nms(&boxes, &NmsOptions { iou: 0.8, ..Default::default() }), [1]);
        assert_eq!(nms(&boxes, &NmsOptions { iou: 0.82, ..Default::default() }), [1, 0]);
        assert_eq!(nms(&[], &NmsOptions::default()), [0usize; 0]);
    }

    #[test]
    fn classes_are_apart_unless_agnostic() {
        let boxes = [candidate(0.0, 0.0, 9.0, 0.5), Candidate { class: 3, ..candidate(0.0, 0.0, 9.0, 0.4) }];
        assert_eq!(nms(&boxes, &NmsOptions::default()), [0, 1]);
        assert_eq!(nms(&boxes, &NmsOptions { agnostic: true, ..Default::default() }), [0]);
    }

    #[test]
    fn equal_scores_go_by_anchor_then_class() {
        let at = |anchor, class| Candidate { anchor, class, ..candidate(0.0, 0.0, 5.0, 0.5) };
        let boxes = [at(2, 0), at(1, 1), at(1, 0)];
        assert_eq!(nms(&boxes, &NmsOptions { iou: 1.0, ..Default::default() }), [2, 1, 0]);
        assert_eq!(nms(&boxes, &NmsOptions { agnostic: true, ..Default::default() }), [2]);
    }

    #[test]
    fn limits_hold() {
        let boxes: Vec<_> = (0..50).map(|n| candidate(20.0 * n as f32, 0.0, 10.0, n as f32 / 50.0)).collect();
        assert_eq!(nms(&boxes, &NmsOptions { max_det: 2, ..Default::default() }), [49, 48]);
        assert_eq!(nms(&boxes, &NmsOptions { max_candidates: 3, ..Default::default() }), [49, 48, 47]);
        assert!(nms(&boxes, &NmsOptions { max_candidates: 0, ..Default::default() }).is_empty());
        assert!(nms(&boxes, &NmsOptions { max_det: 0, ..Default::default() }).is_empty());
    }

    #[test]
    fn what_is_not_finite_is_never_kept() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut boxes = vec![candidate(0.0, 0.0, 10.0, value), candidate(0.0, 0.0, 10.0, 0.5)];
            for corner in 0..4 {
                let mut bad = candidate(0.0, 0.0, 10.0, 0.9);
                bad.xyxy[corner] = value;
                boxes.push(bad);
            }
            assert_eq!(nms(&boxes, &NmsOptions::default()), [1]);
        }
    }

    #[test]
    fn degenerate_and_huge_boxes_are_compared_by_the_same_formula() {
        let max = f32::MAX;
        let corners = [
            [5.0, 5.0, 5.0, 5.0],
            [5.0, 5.0, 5.0, 9.0],
            [9.0, 9.0, 1.0, 1.0],
            [-max, -max, max, max],
            [0.0, 0.0, max, 1.0],
            [0.0, 0.0, 10.0, 10.0],
        ];
        let found =
            |(n, xyxy): (usize, &[f32; 4])| Candidate { xyxy: *xyxy, score: 0.5, class: 0, anchor: n as u32 };
        let boxes: Vec<_> = corners.iter().cycle().take(200).enumerate().map(found).collect();
        let options = NmsOptions { max_det: 1000, ..Default::default() };
        assert_eq!(nms(&boxes, &options), naive(&boxes, &options));
    }

    /// Boxes of very different sizes, in clusters and spread out, across few classes; some of them beyond the offset.
    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let side = prop_oneof![4 => 1.0f32..40.0, 1 => 0.0f32..2000.0, 1 => 5000.0f32..9000.0];
        let place = prop_oneof![3 => 0.0f32..100.0, 2 => -50.0f32..3000.0];
        let one = (place.clone(), place, side.clone(), side, 0u32..4, 0u32..12)
            .prop_map(|(x, y, w, h, class, score)| ([x, y, x + w, y + h], score as f32 / 12.0, class));
        prop::collection::vec(one, 0..400).prop_map(|found| {
            let numbered = found.into_iter().zip(0..);
            numbered.map(|((xyxy, score, class), anchor)| Candidate { xyxy, score, class, anchor }).collect()
        })
    }

    fn options() -> impl Strategy<Value = NmsOptions> {
        let limit = prop_oneof![Just(30_000usize), 1usize..200];
        (0.0f32..1.0, limit.clone(), any::<bool>(), limit).prop_map(
            |(iou, max_det, agnostic, max_candidates)| NmsOptions { iou, max_det, agnostic, max_candidates },
        )
    }

    proptest! {
        #[test]
        fn equals_the_definition(candidates in candidates(), options in options()) {
            prop_assert_eq!(nms(&candidates, &options), naive(&candidates, &options));
        }

        #[test]
        fn is_a_sorted_subset_without_overlaps(candidates in candidates(), options in options()) {
            let kept = nms(&candidates, &options);
            prop_assert!(kept.len() <= options.max_det.min(options.max_candidates));
            for pair in kept.windows(2) {
                prop_assert!(candidates[pair[0]].score >= candidates[pair[1]].score);
            }
            for (n, &a) in kept.iter().enumerate() {
                for &b in &kept[..n] {
                    let (a, b) = (&candidates[a], &candidates[b]);
                    let offset = if options.agnostic { 0.0 } else { 7680.0 };
                    let moved = |c: &Candidate| c.xyxy.map(|edge| edge + c.class as f32 * offset);
                    prop_assert!(a.anchor != b.anchor);
                    prop_assert!(iou(moved(a), moved(b)) <= options.iou);
                }
            }
        }

        #[test]
        fn order_of_candidates_does_not_matter(
            (before, after) in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            options in options(),
        ) {
            let kept = |all: &[Candidate]| nms(all, &options).into_iter().map(|idx| all[idx]).collect::<Vec<_>>();
            prop_assert_eq!(kept(&before), kept(&after));
        }
    }
}
