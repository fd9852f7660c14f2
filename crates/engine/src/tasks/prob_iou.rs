//! How alike two rotated boxes are.
//!
//! Source: Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection, arXiv:2106.06072.

/// Keeps divisors and logarithms away from zero.
const EPSILON: f32 = 1e-7;

/// Determinants from which [`EPSILON`] is of no account, that of a box of one pixel, and up to which products of two
/// are numbers.
const EXTENTS: std::ops::RangeInclusive<f32> = 1.0 / 144.0..=1e18;

/// The least share of the product of its variances that a determinant may be, so that its rounding is of no account.
const MIN_CONDITION: f32 = 1e-3;

/// A rotated box as a two-dimensional normal distribution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaussian {
    pub x: f32,
    pub y: f32,
    /// Variance along x, along y, and their covariance.
    a: f32,
    b: f32,
    c: f32,
    /// Their determinant.
    extent: f32,
}

impl Gaussian {
    /// The distribution of a box `[x, y, w, h, angle]` whose center is moved right by `offset`.
    pub(super) fn new([x, y, w, h, angle]: [f32; 5], offset: f32) -> Self {
        let (along, across) = (w * w / 12.0, h * h / 12.0);
        let (sin, cos) = angle.sin_cos();
        let a = along * cos * cos + across * sin * sin;
        let b = along * sin * sin + across * cos * cos;
        let c = (along - across) * cos * sin;
        Self { x: x + offset, y: y + offset, a, b, c, extent: (a * b - c * c).max(0.0) }
    }

    /// The sum of the variances, no smaller than the variance in any direction.
    pub(super) fn trace(&self) -> f32 {
        self.a + self.b
    }

    /// Whether rounding is of so little account that a [`Bound`] holds for this box.
    pub(super) fn is_regular(&self) -> bool {
        EXTENTS.contains(&self.extent) && self.extent >= MIN_CONDITION * self.a * self.b
    }
}

/// How alike two boxes are, 0 to 1: one less the Hellinger distance of their distributions.
pub(super) fn prob_iou(p: &Gaussian, q: &Gaussian) -> f32 {
    let (a, b, c) = (p.a + q.a, p.b + q.b, p.c + q.c);
    let (dx, dy) = (q.x - p.x, p.y - q.y);
    let determinant = a * b - c * c;
    let mean_term = (a * dy * dy + b * dx * dx) / (determinant + EPSILON) * 0.25;
    let cross_term = c * dx * dy / (determinant + EPSILON) * 0.5;
    let spread_term = (determinant / (4.0 * (p.extent * q.extent).sqrt() + EPSILON) + EPSILON).ln() * 0.5;
    let bhattacharyya = (mean_term + cross_term + spread_term).clamp(EPSILON, 100.0);
    1.0 - (1.0 - (-bhattacharyya).exp() + EPSILON).sqrt()
}

/// What boxes have to be like at least if they are alike by some value; tells most pairs apart without a logarithm.
///
/// Likeness falls with the Bhattacharyya distance, the sum of a term for the distance of the centers and one for the
/// difference of the shapes. Neither is negative, so each alone may be too large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// The largest distance; infinite if everything is alike.
    distance: f32,
    /// The largest ratio of squares of determinants that has no larger distance.
    ratio: f32,
}

impl Bound {
    /// The bound for boxes that are alike by `iou` or more.
    pub(super) fn new(iou: f32) -> Self {
        let hellinger = 1.0 - iou;
        let limit = -(1.0 - hellinger * hellinger).ln();
        // A tenth more, and a little, cover rounding.
        let distance = if limit < 50.0 { 1.1 * limit + 0.025 } else { f32::INFINITY };
        Self { distance, ratio: (2.0 * distance).exp() }
    }

    /// The square of the largest distance between the centers of boxes whose traces are no larger than these.
    pub(super) fn reach2(&self, trace: f32, other: f32) -> f32 {
        // The term for the centers is at least a quarter of their squared distance over the largest variance.
        4.0 * self.distance * (trace + other)
    }

    /// Whether two regular boxes may be alike.
    pub(super) fn may_hold(&self, p: &Gaussian, q: &Gaussian) -> bool {
        let (a, b, c) = (p.a + q.a, p.b + q.b, p.c + q.c);
        let (dx, dy) = (q.x - p.x, p.y - q.y);
        let determinant = a * b - c * c;
        let is_far = a * dy * dy + b * dx * dx + 2.0 * c * dx * dy > 4.0 * self.distance * determinant;
        let is_of_another_shape = determinant > 4.0 * self.ratio * (p.extent * q.extent).sqrt();
        !is_far && !is_of_another_shape
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alike(a: [f32; 5], b: [f32; 5]) -> f32 {
        prob_iou(&Gaussian::new(a, 0.0), &Gaussian::new(b, 0.0))
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

    /// Boxes from needles to squares, from a share of a pixel to sizes whose squares are no numbers.
    fn box_of_any_size() -> impl Strategy<Value = [f32; 5]> {
        let side = || (-4.0f32..4.5).prop_map(|exponent| 10f32.powf(exponent));
        let place = || prop_oneof![-50.0f32..50.0, -3000.0f32..3000.0];
        (place(), place(), side(), side(), -4.0f32..4.0).prop_map(|(x, y, w, h, angle)| [x, y, w, h, angle])
    }

    proptest! {
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

        /// Boxes beside each other, so that many pairs are on either side of the bound.
        #[test]
        fn a_bound_passes_over_nothing_that_is_alike(
            p in box_of_any_size(),
            (dx, dy, dw, dh, turn) in (-1.0f32..1.0, -1.0f32..1.0, -1.0f32..1.0, -1.0f32..1.0, -0.5f32..0.5),
            iou in 0.0f32..1.0,
        ) {
            let [x, y, w, h, angle] = p;
            let q = [x + dx * w, y + dy * h, w * dw.exp(), h * dh.exp(), angle + turn];
            let (p, q) = (Gaussian::new(p, 0.0), Gaussian::new(q, 0.0));
            let bound = Bound::new(iou);
            if p.is_regular() && q.is_regular() && prob_iou(&p, &q) >= iou {
                prop_assert!(bound.may_hold(&p, &q) && bound.may_hold(&q, &p));
                let distance2 = (p.x - q.x).powi(2) + (p.y - q.y).powi(2);
                prop_assert!(distance2 <= bound.reach2(p.trace(), q.trace()));
            }
        }
    }
}
