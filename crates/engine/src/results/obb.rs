//! Rotated boxes.

use std::f32::consts::{FRAC_PI_2, PI};

use serde::{Deserialize, Serialize};

/// One rotated box with its class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotatedDetection {
    /// Center, width, height in pixels of the picture, and the angle in radians by which the width is turned
    /// clockwise from the right.
    pub xywhr: [f32; 5],
    /// How sure the network is, 0 to 1.
    pub confidence: f32,
    /// Index of the class.
    pub class: usize,
}

/// Rotated boxes in a picture, with confidence and class.
///
/// Angles are as the network gives them, in any turn; [`RotatedDetection::regular`] tells them within a quarter. Boxes
/// may reach out of the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotatedBoxes {
    orig_shape: [usize; 2],
    found: Vec<RotatedDetection>,
}

impl RotatedDetection {
    /// The four corners `[x, y]` in pixels, in order around the box.
    #[must_use]
    pub fn corners(&self) -> [[f32; 2]; 4] {
        let [x, y, w, h, angle] = self.xywhr;
        let (sin, cos) = angle.sin_cos();
        let along = [w / 2.0 * cos, w / 2.0 * sin];
        let across = [-h / 2.0 * sin, h / 2.0 * cos];
        let corner = |a: f32, b: f32| [x + a * along[0] + b * across[0], y + a * along[1] + b * across[1]];
        [corner(1.0, 1.0), corner(1.0, -1.0), corner(-1.0, -1.0), corner(-1.0, 1.0)]
    }

    /// The same box `[x, y, w, h, angle]` with its angle from 0 to less than a quarter turn, width and height swapped if
    /// need be.
    #[must_use]
    pub fn regular(&self) -> [f32; 5] {
        let [x, y, w, h, angle] = self.xywhr;
        let [w, h] = if angle.rem_euclid(PI) >= FRAC_PI_2 { [h, w] } else { [w, h] };
        [x, y, w, h, angle.rem_euclid(FRAC_PI_2)]
    }

    /// The smallest upright box `[x1, y1, x2, y2]` around it, in pixels.
    #[must_use]
    pub fn xyxy(&self) -> [f32; 4] {
        let corners = self.corners();
        let low = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f32::INFINITY, f32::min);
        let high = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f32::NEG_INFINITY, f32::max);
        [low(0), low(1), high(0), high(1)]
    }
}

impl RotatedBoxes {
    /// No boxes yet, in a picture of `orig_shape` (height, width).
    #[must_use]
    pub fn new(orig_shape: [usize; 2]) -> Self {
        Self { orig_shape, found: Vec::new() }
    }

    /// Adds a box behind the others.
    pub fn push(&mut self, found: RotatedDetection) {
        self.found.push(found);
    }

    /// Number of boxes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is no box.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Height and width of the picture in pixels.
    #[must_use]
    pub fn orig_shape(&self) -> [usize; 2] {
        self.orig_shape
    }

    /// Box `idx`.
    #[must_use]
    pub fn get(&self, idx: usize) -> Option<&RotatedDetection> {
        self.found.get(idx)
    }

    /// The boxes one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, RotatedDetection> {
        self.found.iter()
    }

    /// The corners of each box, in pixels.
    #[must_use]
    pub fn xyxyxyxy(&self) -> Vec<[[f32; 2]; 4]> {
        self.iter().map(RotatedDetection::corners).collect()
    }

    /// The corners of each box as shares of the picture's width and height.
    #[must_use]
    pub fn xyxyxyxyn(&self) -> Vec<[[f32; 2]; 4]> {
        let [height, width] = self.orig_shape.map(|side| side as f32);
        let share = |found: &RotatedDetection| found.corners().map(|[x, y]| [x / width, y / height]);
        self.iter().map(share).collect()
    }
}

impl<'a> IntoIterator for &'a RotatedBoxes {
    type Item = &'a RotatedDetection;
    type IntoIter = std::slice::Iter<'a, RotatedDetection>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(xywhr: [f32; 5]) -> RotatedDetection {
        RotatedDetection { xywhr, confidence: 0.5, class: 1 }
    }

    #[test]
    fn corners_are_those_of_the_reference() {
        let expected = [
            [18.814_564, 15.343_543],
            [20.292_164, 10.566_861],
            [1.185_436, 4.656_457],
            [-0.292_165, 9.433_139],
        ];
        for (got, expected) in found([10.0, 10.0, 20.0, 5.0, 0.3]).corners().iter().zip(expected) {
            assert!((got[0] - expected[0]).abs() < 1e-4 && (got[1] - expected[1]).abs() < 1e-4, "{got:?}");
        }
        assert_eq!(found([10.0, 20.0, 8.0, 4.0, 0.0]).xyxy(), [6.0, 18.0, 14.0, 22.0]);
    }

    #[test]
    fn angles_lie_in_a_quarter_turn() {
        let check = |wh_angle: [f32; 3], expected: [f32; 3]| {
            let [w, h, angle] = wh_angle;
            let got = found([1.0, 2.0, w, h, angle]).regular();
            let [w, h, angle] = expected;
            let close = got.iter().zip([1.0, 2.0, w, h, angle]).all(|(got, want)| (got - want).abs() < 1e-6);
            assert!(close, "{wh_angle:?}: {got:?}");
        };
        check([20.0, 5.0, 0.3], [20.0, 5.0, 0.3]);
        check([5.0, 20.0, 0.3], [5.0, 20.0, 0.3]);
        check([5.0, 20.0, -0.3], [20.0, 5.0, 1.270_796_3]);
        check([20.0, 5.0, 2.0], [5.0, 20.0, 0.429_203_63]);
        check([20.0, 5.0, 3.3], [20.0, 5.0, 0.158_407_21]);
        check([20.0, 5.0, FRAC_PI_2], [5.0, 20.0, 0.0]);
    }

    #[test]
    fn shares_are_of_width_and_height() {
        let mut boxes = RotatedBoxes::new([100, 200]);
        boxes.push(found([100.0, 50.0, 200.0, 100.0, 0.0]));
        assert_eq!(boxes.xyxyxyxyn(), [[[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]]);
        assert_eq!((boxes.len(), boxes.is_empty(), boxes.get(1)), (1, false, None));
    }

    proptest! {
        #[test]
        fn sides_keep_their_lengths(
            (x, y, w, h, r) in (-99.0f32..99.0, -99.0f32..99.0, 0.1f32..99.0, 0.1f32..99.0, -4.0f32..4.0)
        ) {
            let [a, b, c, d] = found([x, y, w, h, r]).corners();
            let distance = |p: [f32; 2], q: [f32; 2]| (p[0] - q[0]).hypot(p[1] - q[1]);
            for (side, length) in [(distance(a, d), w), (distance(b, c), w), (distance(a, b), h), (distance(c, d), h)] {
                prop_assert!((side - length).abs() < 1e-2);
            }
        }

        #[test]
        fn a_regular_box_is_the_same_box(xywhr in prop::array::uniform5(-10.0f32..10.0)) {
            let [x, y, w, h, angle] = xywhr;
            let before = found([x, y, w.abs(), h.abs(), angle]);
            let after = found(before.regular());
            prop_assert!((0.0..=FRAC_PI_2).contains(&after.xywhr[4]));
            for (corner, side) in before.corners().into_iter().flat_map(|corner| [(corner, 0), (corner, 1)]) {
                let nearest = after.corners().into_iter().map(|other| (other[side] - corner[side]).abs());
                prop_assert!(nearest.fold(f32::INFINITY, f32::min) < 1e-3, "{:?} {:?}", before, after);
            }
        }
    }
}
