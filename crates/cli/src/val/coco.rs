//! Detections as a list in COCO's form, for other evaluation tools.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fit::Fitted;
use super::judge::{Detection, Extra, Point};

/// Numbers that stand for pictures in COCO's files.
///
/// A picture whose name is a number is known by it, as COCO's are, if all are and no two alike; otherwise pictures are
/// counted from 1, in their order.
pub fn image_ids(pictures: &[PathBuf]) -> Vec<u64> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    let numbers: Option<Vec<u64>> = pictures.iter().map(number).collect();
    match numbers {
        Some(numbers) if numbers.iter().collect::<HashSet<_>>().len() == numbers.len() => numbers,
        _ => (1..=pictures.len() as u64).collect(),
    }
}

/// One entry of the list, of a picture that was seen as `fitted`. Classes are the data set's own indices.
pub fn entry(image_id: u64, path: &Path, detection: &Detection, fitted: &Fitted) -> Value {
    let [x1, y1, x2, y2] = detection.xyxy;
    let mut entry = json!({
        "image_id": image_id,
        "file_name": path.file_name().map(|name| name.to_string_lossy()),
        "category_id": detection.found.class,
        "bbox": ([x1, y1, x2 - x1, y2 - y1].map(rounded)),
        "score": f64::from(detection.found.confidence),
    });
    match &detection.extra {
        Extra::None => {}
        Extra::Rotated(turned) => {
            let ([x, y], [w, h]) = (turned.xy, turned.wh);
            entry["rbox"] = json!([rounded(x), rounded(y), rounded(w), rounded(h), turned.angle]);
            entry["poly"] = turned.corners().iter().flatten().map(|&value| rounded(value)).collect();
        }
        Extra::Keypoints(points) => {
            let values = points
                .iter()
                .flat_map(|Point { xy: [x, y], visible, .. }| [*x, *y, f64::from(*visible)].map(rounded));
            entry["keypoints"] = values.collect();
        }
        Extra::Mask(mask) => {
            let mask = fitted.mask_to_picture(&mask.of_input);
            entry["segmentation"] = json!({"size": mask.hw(), "counts": mask.coco_rle()});
        }
    }
    entry
}

/// Four decimals, so that rounding moves no overlap.
fn rounded(value: f64) -> Value {
    json!((value * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use ferroyolo::Image;
    use ferroyolo_val::geometry::{Mask, RotatedBox};
    use ferroyolo_val::metrics::Found;

    use super::*;
    use crate::val::judge::SizedMasks;

    fn detection(extra: Extra) -> Value {
        let found = Found { class: 3, confidence: 0.5 };
        let xyxy = [1.0, 2.0, 4.0, 6.00004];
        let detection = Detection { found, xyxy, xyxy_unclipped: xyxy, extra };
        let fitted = Fitted::untouched(Image::from_rgb8(1, 2, vec![0; 6]).unwrap());
        entry(7, Path::new("d/a.jpg"), &detection, &fitted)
    }

    #[test]
    fn names_that_are_numbers_are_ids() {
        let ids = |names: &[&str]| image_ids(&names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(ids(&["000000000009.jpg", "d/12.png"]), [9, 12]);
        assert_eq!(ids(&["9.jpg", "a.jpg"]), [1, 2]);
        assert_eq!(ids(&["9.jpg", "d/09.jpg"]), [1, 2]);
    }

    #[test]
    fn entries_have_the_fields_of_their_kind() {
        let plain = detection(Extra::None);
        let expected = json!({"image_id": 7, "file_name": "a.jpg", "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0],
                              "score": 0.5});
        assert_eq!(plain, expected);
        let point = Point { xy: [1.0, 2.0], xy_unclipped: [-1.0, 2.0], visible: 0.5 };
        let points = detection(Extra::Keypoints(vec![point]));
        assert_eq!(points["keypoints"], json!([1.0, 2.0, 0.5]));
        let of_input = Mask::from_values([2, 1], &[true, false], |on| *on);
        let mask = detection(Extra::Mask(SizedMasks { of_input, coarse: Mask::new([1, 1]) }));
        assert_eq!(mask["segmentation"], json!({"size": [2, 1], "counts": "011"}));
        let turned = RotatedBox { xy: [2.0, 4.0], wh: [2.0, 4.0], angle: 0.0 };
        assert_eq!(detection(Extra::Rotated(turned))["rbox"], json!([2.0, 4.0, 2.0, 4.0, 0.0]));
    }
}
