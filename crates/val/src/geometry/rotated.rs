//! Turned boxes.

/// Keeps roots and quotients away from 0.
const EPSILON: f64 = 1e-7;

/// Boxes whose areas differ by no larger share than this are equally small.
const SAME_AREA: f64 = 1e-3;

/// A box turned about its centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotatedBox {
    /// Centre `[x, y]`.
    pub xy: [f64; 2],
    /// Width and height, along the box's own axes.
    pub wh: [f64; 2],
    /// Angle of the width's axis from the x axis, in radians, clockwise where y grows downwards.
    pub angle: f64,
}

impl RotatedBox {
    /// The smallest turned box around four corners.
    ///
    /// One of its sides lies along a side of their convex hull; so all lines through two of them are tried. Corners that
    /// are no rectangle often have several smallest boxes, a triangle three; of these it is the one along the longest
    /// line, and not the one that rounding happens to make smaller.
    #[must_use]
    pub fn around(corners: [[f64; 2]; 4]) -> Self {
        const PAIRS: [(usize, usize); 6] = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)];
        let candidates = PAIRS.map(|(a, b)| {
            let [dx, dy] = [corners[b][0] - corners[a][0], corners[b][1] - corners[a][1]];
            let angle = if dx == 0.0 && dy == 0.0 { 0.0 } else { dy.atan2(dx) };
            (dx.hypot(dy), Self::along(angle, &corners))
        });
        let area = |of: &Self| of.wh[0] * of.wh[1];
        let least = candidates.iter().map(|(_, of)| area(of)).fold(f64::INFINITY, f64::min);
        let mut best = candidates[0];
        for candidate in candidates {
            let is_small = |(_, of): &(f64, Self)| area(of) <= least * (1.0 + SAME_AREA);
            if is_small(&candidate) && (!is_small(&best) || candidate.0 > best.0) {
                best = candidate;
            }
        }
        best.1
    }

    /// The smallest box around `points` that is turned by `angle`.
    fn along(angle: f64, points: &[[f64; 2]]) -> Self {
        let (sin, cos) = angle.sin_cos();
        let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        let [u1, v1, u2, v2] = points.iter().fold(start, |[u1, v1, u2, v2], &[x, y]| {
            let (u, v) = (x * cos + y * sin, y * cos - x * sin);
            [u1.min(u), v1.min(v), u2.max(u), v2.max(v)]
        });
        let (u, v) = ((u1 + u2) / 2.0, (v1 + v2) / 2.0);
        Self { xy: [u * cos - v * sin, u * sin + v * cos], wh: [u2 - u1, v2 - v1], angle }
    }

    /// The four corners, in turn.
    #[must_use]
    pub fn corners(&self) -> [[f64; 2]; 4] {
        let (sin, cos) = self.angle.sin_cos();
        let [w, h] = self.wh.map(|side| side / 2.0);
        [[w, h], [w, -h], [-w, -h], [-w, h]]
            .map(|[u, v]| [self.xy[0] + u * cos - v * sin, self.xy[1] + u * sin + v * cos])
    }

    /// The covariance `[xx, yy, xy]` of the box as an even distribution.
    fn covariance(&self) -> [f64; 3] {
        let [a, b] = self.wh.map(|side| side * side / 12.0);
        let (sin, cos) = self.angle.sin_cos();
        [a * cos * cos + b * sin * sin, a * sin * sin + b * cos * cos, (a - b) * cos * sin]
    }
}

/// How much two turned boxes agree, taken for normal distributions: 1 less their Hellinger distance.
///
/// Source: Gaussian bounding boxes and probabilistic IoU, arXiv:2106.06072.
#[must_use]
pub fn prob_iou(p: &RotatedBox, q: &RotatedBox) -> f64 {
    let ([a1, b1, c1], [a2, b2, c2]) = (p.covariance(), q.covariance());
    let [dx, dy] = [p.xy[0] - q.xy[0], p.xy[1] - q.xy[1]];
    let (a, b, c) = (a1 + a2, b1 + b2, c1 + c2);
    let determinant = a * b - c * c;
    let mahalanobis = (a * dy * dy + b * dx * dx - 2.0 * c * dx * dy) / (determinant + EPSILON) / 4.0;
    let spreads = ((a1 * b1 - c1 * c1).max(0.0) * (a2 * b2 - c2 * c2).max(0.0)).sqrt();
    let spread = (determinant / (4.0 * spreads + EPSILON) + EPSILON).ln() / 2.0;
    let bhattacharyya = (mahalanobis + spread).clamp(EPSILON, 100.0);
    1.0 - (1.0 - (-bhattacharyya).exp() + EPSILON).sqrt()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use proptest::prelude::*;

    use super::*;

    fn turned(xy: [f64; 2], wh: [f64; 2], angle: f64) -> RotatedBox {
        RotatedBox { xy, wh, angle }
    }

    #[test]
    fn known_pairs() {
        let a = turned([5.0, 5.0], [8.0, 4.0], 0.3);
        assert!(prob_iou(&a, &a) > 0.999);
        let quarter = turned([5.0, 5.0], [4.0, 8.0], 0.3 + FRAC_PI_2);
        assert!(prob_iou(&a, &quarter) > 0.999);
        assert!(prob_iou(&a, &turned([500.0, 5.0], [8.0, 4.0], 0.3)) < 1e-6);
        // Two unit squares, one apart: the exponent is 1 / (8 * 1/12).
        let squares = [0.0, 1.0].map(|x| turned([x, 0.0], [1.0, 1.0], 0.0));
        let expected = 1.0 - (1.0 - (-1.5f64).exp()).sqrt();
        assert!((prob_iou(&squares[0], &squares[1]) - expected).abs() < 1e-5);
        let nothing = turned([0.0, 0.0], [0.0, 0.0], 0.0);
        assert!(prob_iou(&nothing, &a).is_finite() && prob_iou(&nothing, &nothing).is_finite());
    }

    #[test]
    fn corners_need_not_be_exact() {
        let found = RotatedBox::around([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]]);
        assert_eq!((found.xy, found.wh), ([2.0, 1.0], [4.0, 2.0]));
        let line = RotatedBox::around([[1.0, 1.0], [3.0, 3.0], [1.0, 1.0], [3.0, 3.0]]);
        assert!(
            line.wh[0].min(line.wh[1]) < 1e-12 && (line.wh[0].max(line.wh[1]) - 8f64.sqrt()).abs() < 1e-12
        );
        let point = RotatedBox::around([[1.0, 1.0]; 4]);
        assert_eq!((point.xy, point.wh), ([1.0, 1.0], [0.0, 0.0]));
    }

    /// A box that is cut at the border of a picture 100 wide, and one of which only a triangle is left: all that changes
    /// is which corner comes first, which way round they go, and how large the picture is.
    #[test]
    fn of_several_smallest_boxes_one_is_taken() {
        let cut = [[83.0, 100.0], [100.0, 50.0], [69.0, 8.0], [27.0, 64.0]];
        let triangle = [[10.0, 10.0], [40.0, 10.0], [15.0, 20.0], [10.0, 50.0]];
        for corners in [cut, triangle] {
            let mut found = Vec::new();
            for first in 0..4 {
                for is_reversed in [false, true] {
                    for scale in [0.01, 0.3, 1.0, 7.3] {
                        let mut corners = corners.map(|[x, y]| [x * scale, y * scale]);
                        corners.rotate_left(first);
                        if is_reversed {
                            corners.reverse();
                        }
                        let RotatedBox { xy, wh, angle } = RotatedBox::around(corners);
                        found.push(turned(xy.map(|at| at / scale), wh.map(|side| side / scale), angle));
                    }
                }
            }
            assert!(found.iter().all(|other| prob_iou(&found[0], other) > 0.999), "{found:?}");
        }
        let along_its_hypotenuse = RotatedBox::around(triangle);
        assert!((along_its_hypotenuse.wh[0] - 50.0).abs() < 1e-9, "{along_its_hypotenuse:?}");
    }

    proptest! {
        #[test]
        fn a_box_is_found_from_its_corners(
            xy in prop::array::uniform2(-50.0..50.0f64),
            wh in prop::array::uniform2(1.0..40.0f64),
            angle in -3.0..3.0f64,
        ) {
            let given = turned(xy, wh, angle);
            let found = RotatedBox::around(given.corners());
            prop_assert!(prob_iou(&given, &found) > 0.999);
            prop_assert!((found.wh[0] * found.wh[1] - wh[0] * wh[1]).abs() < 1e-6);
        }

        #[test]
        fn likeness_is_symmetric_and_a_share(
            xy in prop::array::uniform4(-50.0..50.0f64),
            wh in prop::array::uniform4(0.0..40.0f64),
            angles in prop::array::uniform2(-3.0..3.0f64),
        ) {
            let p = turned([xy[0], xy[1]], [wh[0], wh[1]], angles[0]);
            let q = turned([xy[2], xy[3]], [wh[2], wh[3]], angles[1]);
            let likeness = prob_iou(&p, &q);
            prop_assert!((-1e-6..=1.0).contains(&likeness));
            prop_assert!((likeness - prob_iou(&q, &p)).abs() < 1e-9);
        }
    }
}
