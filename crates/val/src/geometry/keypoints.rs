//! Poses, by the similarity of their keypoints that COCO defines.

use super::area;

/// How far annotators differ on each of COCO's 17 keypoints, as shares of an object's size.
///
/// Source: the COCO keypoint evaluation, <https://cocodataset.org/#keypoints-eval>.
pub const COCO_SIGMAS: [f64; 17] = [
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
];

/// The share of a box that an object fills on average; labels in text files give no other area.
const AREA_OF_BOX: f64 = 0.53;

/// What [`oks`] takes for `n` keypoints: COCO's for 17, else `1 / n` for each.
#[must_use]
pub fn sigmas(n: usize) -> Vec<f64> {
    if n == COCO_SIGMAS.len() { COCO_SIGMAS.to_vec() } else { vec![1.0 / n.max(1) as f64; n] }
}

/// Object keypoint similarity: how near `found` lies to the labelled keypoints.
///
/// `truth` holds `[x, y]` where the point is labelled. `box_area` is that of the labelled box, in the same pixels.
/// Without a labelled keypoint the similarity is 0.
#[must_use]
pub fn oks(truth: &[Option<[f64; 2]>], found: &[[f64; 2]], box_area: f64, sigmas: &[f64]) -> f64 {
    let offsets =
        truth.iter().zip(found).map(|(truth, [x, y])| truth.map(|[true_x, true_y]| [x - true_x, y - true_y]));
    similarity(offsets, box_area, sigmas)
}

/// How near `found` lies to an object of which no keypoint is labelled, so that detections of it are known as such.
///
/// All points within the labelled box `[x1, y1, x2, y2]`, made three times as wide and high, are as near as can be.
/// Source: the COCO keypoint evaluation, as for [`oks`].
#[must_use]
pub fn oks_of_box([x1, y1, x2, y2]: [f64; 4], found: &[[f64; 2]], sigmas: &[f64]) -> f64 {
    let (w, h) = (x2 - x1, y2 - y1);
    let offset = |[x, y]: &[f64; 2]| Some([x - x.max(x1 - w).min(x2 + w), y - y.max(y1 - h).min(y2 + h)]);
    similarity(found.iter().map(offset), area([x1, y1, x2, y2]), sigmas)
}

/// The mean likeness of points that are off by so many pixels; those without an offset do not count.
fn similarity(offsets: impl Iterator<Item = Option<[f64; 2]>>, box_area: f64, sigmas: &[f64]) -> f64 {
    let area = box_area * AREA_OF_BOX + f64::EPSILON;
    let (mut sum, mut n) = (0.0, 0);
    for (offset, sigma) in offsets.zip(sigmas) {
        let Some([dx, dy]) = offset else { continue };
        sum += (-(dx.powi(2) + dy.powi(2)) / (2.0 * area * (2.0 * sigma).powi(2))).exp();
        n += 1;
    }
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_by_size() {
        let truth = [Some([10.0, 10.0]), None];
        let sigmas = [0.5; 2];
        let at = |x: f64| oks(&truth, &[[x, 10.0], [99.0, 99.0]], 100.0 / AREA_OF_BOX, &sigmas);
        assert_eq!(at(10.0), 1.0);
        // One standard deviation is sqrt(100) * 2 * 0.5 pixels.
        assert!((at(20.0) - (-0.5f64).exp()).abs() < 1e-12);
        assert!(at(0.0) < at(5.0));
        assert_eq!(oks(&[None], &[[0.0; 2]], 100.0, &sigmas), 0.0);
        assert!(oks(&truth, &[[f64::NAN; 2]; 2], 100.0, &sigmas).is_nan());
        assert_eq!(oks(&truth, &[[11.0, 10.0]; 2], 0.0, &sigmas), 0.0);
    }

    #[test]
    fn a_box_stands_for_keypoints() {
        let (xyxy, sigmas) = ([10.0, 10.0, 20.0, 30.0], [0.5; 2]);
        assert_eq!(oks_of_box(xyxy, &[[0.0, 50.0], [30.0, -10.0]], &sigmas), 1.0);
        // One point lies as far outside as a standard deviation is long.
        let far = (200.0 * AREA_OF_BOX).sqrt();
        for point in [[-far, 0.0], [30.0 + far, 0.0], [0.0, -10.0 - far], [0.0, 50.0 + far]] {
            let oks = oks_of_box(xyxy, &[[15.0, 15.0], point], &sigmas);
            assert!((oks - (1.0 + (-0.5f64).exp()) / 2.0).abs() < 1e-12, "{oks}");
        }
        assert_eq!(oks_of_box(xyxy, &[], &sigmas), 0.0);
    }

    #[test]
    fn other_poses_have_even_sigmas() {
        assert_eq!(sigmas(4), [0.25; 4]);
        assert_eq!(sigmas(17), COCO_SIGMAS);
        assert_eq!(sigmas(0), []);
    }
}
