//! What comes with a box: mask coefficients, keypoints or an angle, from raw values.

use std::f32::consts::PI;

use ferroyolo_kernels::{Activation, sigmoid};

use crate::modules::Extra;

/// The angle in radians that a raw value stands for.
pub(super) fn angle(value: f32, raw: bool) -> f32 {
    if raw { value } else { angle_of_share(sigmoid(value)) }
}

/// The angle in radians that a raw value after its sigmoid stands for.
fn angle_of_share(share: f32) -> f32 {
    (share - 0.25) * PI
}

/// The center of a turned box, in cells from the cell's center: the distances are those along its own axes.
pub(super) fn turned_center([l, t, r, b]: [f32; 4], angle: f32) -> [f32; 2] {
    let (sin, cos) = angle.sin_cos();
    let (x, y) = ((r - l) / 2.0, (b - t) / 2.0);
    [x * cos - y * sin, x * sin + y * cos]
}

/// A keypoint's coordinate in pixels of the input, of the cell at `cell`.
fn coordinate(value: f32, cell: f32, centered: bool, stride: f32) -> f32 {
    if centered { (value + cell + 0.5) * stride } else { (value * 2.0 + cell) * stride }
}

/// What the values of a row of channels are, for [`decode_row`].
pub(super) fn activation(extra: Extra, channel: usize) -> Activation {
    match extra {
        Extra::Keypoints { values, .. } if channel % values == 2 => Activation::Sigmoid,
        Extra::Angle { raw: false } => Activation::Sigmoid,
        _ => Activation::None,
    }
}

/// Finishes one channel of all cells of a level of `w` columns; [`activation`] has been applied.
pub(super) fn decode_row(extra: Extra, channel: usize, row: &mut [f32], w: usize, stride: f32) {
    match extra {
        Extra::Keypoints { values, centered, .. } if channel % values < 2 => {
            for (y, cells) in row.chunks_mut(w).enumerate() {
                for (x, value) in cells.iter_mut().enumerate() {
                    let cell = if channel.is_multiple_of(values) { x } else { y };
                    *value = coordinate(*value, cell as f32, centered, stride);
                }
            }
        }
        Extra::Angle { raw: false } => row.iter_mut().for_each(|value| *value = angle_of_share(*value)),
        Extra::None | Extra::Masks { .. } | Extra::Keypoints { .. } | Extra::Angle { raw: true } => {}
    }
}

/// All values of one cell at `[x, y]`, from its raw ones: coefficients, keypoints in pixels of the input, or radians.
pub(super) fn decode_cell(extra: Extra, values: &mut [f32], [x, y]: [f32; 2], stride: f32) {
    match extra {
        Extra::None | Extra::Masks { .. } => {}
        Extra::Angle { raw } => values.iter_mut().for_each(|value| *value = angle(*value, raw)),
        Extra::Keypoints { values: per_point, centered, .. } => {
            for point in values.chunks_exact_mut(per_point) {
                for (value, cell) in point.iter_mut().zip([x, y]) {
                    *value = coordinate(*value, cell, centered, stride);
                }
                if let Some(visibility) = point.get_mut(2) {
                    *visibility = sigmoid(*visibility);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keypoints_lie_in_pixels() {
        let points = |centered| {
            let mut values = [0.5, -1.0, 0.0];
            let extra = Extra::Keypoints { n: 1, values: 3, centered };
            decode_cell(extra, &mut values, [3.0, 2.0], 8.0);
            values
        };
        assert_eq!(points(false), [32.0, 0.0, 0.5]);
        assert_eq!(points(true), [32.0, 12.0, 0.5]);
    }

    #[test]
    fn rows_and_cells_agree() {
        let (w, stride) = (3, 16.0);
        for extra in [
            Extra::Keypoints { n: 2, values: 3, centered: false },
            Extra::Keypoints { n: 2, values: 2, centered: true },
            Extra::Angle { raw: false },
            Extra::Angle { raw: true },
        ] {
            let raw: Vec<f32> = (0..6 * extra.len()).map(|i| (i as f32 * 0.7).sin()).collect();
            for cell in 0..6 {
                let mut values: Vec<f32> = (0..extra.len()).map(|channel| raw[channel * 6 + cell]).collect();
                decode_cell(extra, &mut values, [(cell % w) as f32, (cell / w) as f32], stride);
                for (channel, value) in values.into_iter().enumerate() {
                    let mut row = raw[channel * 6..][..6].to_vec();
                    if activation(extra, channel) == Activation::Sigmoid {
                        row.iter_mut().for_each(|value| *value = sigmoid(*value));
                    }
                    decode_row(extra, channel, &mut row, w, stride);
                    assert_eq!(row[cell], value, "{extra:?}, channel {channel}, cell {cell}");
                }
            }
        }
    }

    #[test]
    fn a_quarter_turn_swaps_the_axes() {
        let [x, y] = turned_center([1.0, 2.0, 3.0, 8.0], PI / 2.0);
        assert!((x + 3.0).abs() < 1e-6 && (y - 1.0).abs() < 1e-6);
        assert_eq!(turned_center([1.0, 2.0, 3.0, 8.0], 0.0), [1.0, 3.0]);
        assert!((angle(0.0, false) - PI / 4.0).abs() < 1e-6);
        assert_eq!(angle(0.3, true), 0.3);
    }
}
