//! Keypoints as points and limbs.

use super::canvas::Canvas;
use super::keypoints::Keypoint;

/// Keypoints of a person as COCO numbers them: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, left
/// before right.
const N_COCO: usize = 17;

/// Points that are less visible than this are not drawn.
const MIN_VISIBLE: f32 = 0.5;

const FACE: [u8; 3] = [90, 200, 90];
const TRUNK: [u8; 3] = [235, 200, 60];
const LEFT: [u8; 3] = [70, 150, 255];
const RIGHT: [u8; 3] = [255, 120, 60];

/// Limbs of a person and their colors.
const LIMBS: [([usize; 2], [u8; 3]); 19] = [
    ([0, 1], FACE),
    ([0, 2], FACE),
    ([1, 2], FACE),
    ([1, 3], FACE),
    ([2, 4], FACE),
    ([3, 5], FACE),
    ([4, 6], FACE),
    ([5, 6], TRUNK),
    ([5, 11], TRUNK),
    ([6, 12], TRUNK),
    ([11, 12], TRUNK),
    ([5, 7], LEFT),
    ([7, 9], LEFT),
    ([11, 13], LEFT),
    ([13, 15], LEFT),
    ([6, 8], RIGHT),
    ([8, 10], RIGHT),
    ([12, 14], RIGHT),
    ([14, 16], RIGHT),
];

/// Draws the points of one object, and its limbs if it is a person of COCO's seventeen points.
pub(super) fn draw(canvas: &mut Canvas, points: &[Keypoint], line_width: f32, color: [u8; 3]) {
    let is_shown = |point: &Keypoint| point.visible.is_none_or(|visible| visible >= MIN_VISIBLE);
    if points.len() == N_COCO {
        for ([from, to], color) in LIMBS {
            if is_shown(&points[from]) && is_shown(&points[to]) {
                canvas.line([points[from].xy, points[to].xy], line_width * 1.4, color);
            }
        }
    }
    for (idx, point) in points.iter().enumerate().filter(|(_, point)| is_shown(point)) {
        let color = if points.len() == N_COCO { point_color(idx) } else { color };
        canvas.line([point.xy; 2], line_width * 3.2, [16, 16, 20]);
        canvas.line([point.xy; 2], line_width * 2.3, color);
    }
}

/// The color of a person's point: that of the last limb that ends there.
fn point_color(idx: usize) -> [u8; 3] {
    LIMBS.iter().rev().find(|(limb, _)| limb[1] == idx).map_or(FACE, |(_, color)| *color)
}
