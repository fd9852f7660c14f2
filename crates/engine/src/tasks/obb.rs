//! Rotated boxes: how alike two are, and suppression.
//!
//! Boxes are `[x, y, w, h, angle]`: center, width and height in pixels, and the angle in radians by which the width is
//! turned clockwise from the right, as seen with y downwards.

use super::nms::{CLASS_OFFSET, NmsOptions, best_first, by_score};

/// Keeps divisors and logarithms away from zero.
const EPSILON: f32 = 1e-7;

/// Determinant from which [`EPSILON`] is of no account; that of a box of one pixel.
const MIN_EXTENT: f32 = 1.0 / 144.0;

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
    let reach = Reach::new(options.iou);
    let mut seen: Vec<Gaussian> = Vec::with_capacity(order.len());
    let mut kept = Vec::new();
    for idx in order {
        if kept.len() >= options.max_det {
            break;
        }
        let RotatedCandidate { xywhr, class, .. } = candidates[idx];
        let found = Gaussian::new(xywhr, class as f32 * offset);
        if !seen.iter().any(|other| reach.may_meet(other, &found) && prob_iou(other, &found) >= options.iou) {
            kept.push(idx);
        }
        seen.push(found);
    }
    kept
}

/// A box as a two-dimensional normal distribution.
#[derive(Clone, Copy, Debug)]
struct Gaussian {
    x: f32,
    y: f32,
    /// Variance along x, along y, and their covariance.
    a: f32,
    b: f32,
    c: f32,
    /// Their determinant.
    extent: f32,
}

impl Gaussian {
    fn new([x, y, w, h, angle]: [f32; 5], offset: f32) -> Self {
        let (along, across) = (w * w / 12.0, h * h / 12.0);
        let (sin, cos) = angle.sin_cos();
        let a = along * cos * cos + across * sin * sin;
        let b = along * sin * sin + across * cos * cos;
        let c = (along - across) * cos * sin;
        Self { x: x + offset, y: y + offset, a, b, c, extent: (a * b - c * c).max(0.0) }
    }
}

/// How alike two boxes are, 0 to 1: one less the Hellinger distance of their distributions.
///
/// Source: Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection, arXiv:2106.06072.
fn prob_iou(p: &Gaussian, q: &Gaussian) -> f32 {
    let (a, b, c) = (p.a + q.a, p.b + q.b, p.c + q.c);
    let (dx, dy) = (q.x - p.x, p.y - q.y);
    let determinant = a * b - c * c;
    let mean_term = (a * dy * dy + b * dx * dx) / (determinant + EPSILON) * 0.25;
    let cross_term = c * dx * dy / (determinant + EPSILON) * 0.5;
    let spread_term = (determinant / (4.0 * (p.extent * q.extent).sqrt() + EPSILON) + EPSILON).ln() * 0.5;
    let bhattacharyya = (mean_term + cross_term + spread_term).clamp(EPSILON, 100.0);
    1.0 - (1.0 - (-bhattacharyya).exp() + EPSILON).sqrt()
}

/// How far apart boxes of given variances may be and still be alike.
struct Reach {
    /// Squared distance per variance; infinite if everything is alike.
    per_variance: f32,
}

impl Reach {
    fn new(iou: f32) -> Self {
        // The distance term is at least a quarter of the squared distance over the sum of the variances, and the others
        // take nothing from it. A tenth more, and one, cover rounding.
        let hellinger = 1.0 - iou;
        let limit = -(1.0 - hellinger * hellinger).ln();
        Self { per_variance: if limit < 50.0 { 4.4 * limit + 0.1 } else { f32::INFINITY } }
    }

    fn may_meet(&self, p: &Gaussian, q: &Gaussian) -> bool {
        // What keeps divisors away from zero makes tiny boxes alike at any distance.
        if p.extent < MIN_EXTENT || q.extent < MIN_EXTENT {
            return true;
        }
        let (dx, dy) = (p.x - q.x, p.y - q.y);
        // The trace is no smaller than the larger variance.
        let variance = p.a + p.b + q.a + q.b;
        let reach = self.per_variance * (variance + 1.0);
        let distance2 = dx * dx + dy * dy;
        distance2 <= reach || distance2.is_nan()
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
            order[..*rank]
                .iter()
                .all(|&other| prob_iou(&gaussian(other), &gaussian(order[*rank])) < options.iou)
        };
        (0..order.len()).filter(is_kept).map(|rank| order[rank]).take(options.max_det).collect()
    }

    #[test]
    fn likeness_is_as_published() {
        // Values of the reference implementation.
        let cases = [
            ([10.0, 10.0, 20.0, 5.0, 0.3], [10.0, 10.0, 20.0, 5.0, 0.3], 0.999_53),
            ([10.0, 10.0, 20.0, 5.0, 0.3], [14.0, 11.0, 22.0, 6.0, -0.2], 0.449_81),
            ([100.0, 100.0, 50.0, 50.0, 0.0], [120.0, 90.0, 30.0, 80.0, 1.0], 0.500_10),
            ([0.0, 0.0, 10.0, 10.0, 0.0], [30.0, 0.0, 10.0, 10.0, 0.0], 0.0),
            ([5.0, 5.0, 0.1, 0.1, 0.0], [50.0, 5.0, 0.1, 0.1, 0.0], 0.0),
        ];
        for (a, b, expected) in cases {
            assert!((alike(a, b) - expected).abs() < 1e-4, "{a:?} {b:?}: {}", alike(a, b));
        }
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

    proptest! {
        #[test]
        fn looking_at_distances_changes_nothing(
            boxes in prop::collection::vec(
                ((0.0f32..300.0, 0.0f32..300.0, 1.0f32..80.0, 1.0f32..80.0, -3.0f32..3.0), 0.0f32..1.0, 0u32..3),
                0..40,
            ),
            iou in 0.0f32..1.0,
            agnostic: bool,
            max_det in 1usize..50,
        ) {
            let boxes: Vec<_> = boxes
                .into_iter()
                .zip(0..)
                .map(|(((x, y, w, h, r), score, class), anchor)| RotatedCandidate {
                    xywhr: [x, y, w, h, r], score, class, anchor,
                })
                .collect();
            let options = NmsOptions { iou, agnostic, max_det, ..Default::default() };
            let kept = nms_rotated(&boxes, &options);
            prop_assert_eq!(&kept, &naive(&boxes, &options));
            prop_assert!(kept.windows(2).all(|pair| boxes[pair[0]].score >= boxes[pair[1]].score));
        }

        #[test]
        fn likeness_is_a_share_and_the_same_both_ways(
            a in prop::array::uniform5(0.1f32..100.0),
            b in prop::array::uniform5(0.1f32..100.0),
        ) {
            let value = alike(a, b);
            prop_assert!((-1e-3..=1.0).contains(&value), "{}", value);
            prop_assert!((value - alike(b, a)).abs() < 1e-4);
            prop_assert!(alike(a, a) > 0.99);
        }
    }
}
