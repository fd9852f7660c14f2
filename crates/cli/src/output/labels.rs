//! Labels: one text file for each picture, in Ultralytics' formats.

use std::fmt::Write as _;

use ferroyolo::Results;
use ferroyolo::results::Keypoint;

/// The lines of a picture's label file; positions are shares of the picture's width and height.
///
/// - Boxes: class, center x, center y, width, height.
/// - Masks: class, then x and y of each point of the outline; a box whose mask has no outline gets no line.
/// - Keypoints: as boxes, then x, y and how visible it is of each point, as far as the network says so.
/// - Rotated boxes: class, then x and y of the four corners.
/// - Classification: probability and name of the five likeliest classes.
///
/// With `conf` the confidence follows at the end, but for classifications, which always begin with it.
pub fn lines(results: &Results, conf: bool) -> String {
    let mut lines = String::new();
    let mut line = |class: usize, values: Vec<f32>, confidence: f32| {
        // Writing to a string can't fail.
        let _ = write!(lines, "{class}");
        for value in values.into_iter().chain(conf.then_some(confidence)) {
            let _ = write!(lines, " {value:.6}");
        }
        lines.push('\n');
    };
    if let Some(probs) = &results.probs {
        return probs
            .top5()
            .into_iter()
            .map(|(class, value)| format!("{value:.6} {}\n", results.name(class)))
            .collect();
    }
    if let Some(obb) = &results.obb {
        for (found, corners) in obb.iter().zip(obb.xyxyxyxyn()) {
            line(found.class, corners.into_iter().flatten().collect(), found.confidence);
        }
    } else if let Some(masks) = &results.masks {
        for (found, outline) in results.boxes.iter().zip(masks.xyn()) {
            if !outline.is_empty() {
                line(found.class, outline.into_iter().flatten().collect(), found.confidence);
            }
        }
    } else {
        let points = results.keypoints.iter().flat_map(|keypoints| {
            let visible = |point: &Keypoint| point.visible;
            keypoints.iter().zip(keypoints.xyn()).map(move |(points, xy)| {
                let values = xy.into_iter().zip(points.iter().map(visible));
                values
                    .flat_map(|([x, y], visible)| [Some(x), Some(y), visible])
                    .flatten()
                    .collect::<Vec<f32>>()
            })
        });
        let mut points = points.fuse();
        for (found, xywh) in results.boxes.iter().zip(results.boxes.xywhn()) {
            let values = xywh.into_iter().chain(points.next().unwrap_or_default()).collect();
            line(found.class, values, found.confidence);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferroyolo::results::{Boxes, Keypoints, Mask, Masks, Probs, RotatedBoxes, RotatedDetection};

    use super::*;

    fn names() -> Arc<[String]> {
        ["person", "traffic light"].map(str::to_owned).into()
    }

    fn boxes() -> Boxes {
        let mut boxes = Boxes::new([100, 200]);
        boxes.push([20.0, 10.0, 60.0, 30.0], 0.5, 1);
        boxes
    }

    #[test]
    fn each_task_has_its_format() {
        let boxed = "1 0.200000 0.200000 0.200000 0.200000";
        let detect = Results::detect(names(), [100, 200], boxes());
        assert_eq!(lines(&detect, false), format!("{boxed}\n"));
        assert_eq!(lines(&detect, true), format!("{boxed} 0.500000\n"));

        let mut keypoints = Keypoints::new([100, 200], 2);
        let point = |x, y, visible| Keypoint { xy: [x, y], visible };
        keypoints.push(&[point(100.0, 50.0, Some(0.25)), point(0.0, 100.0, Some(1.0))]).unwrap();
        let pose = Results::pose(names(), [100, 200], boxes(), keypoints);
        let points = "0.500000 0.500000 0.250000 0.000000 1.000000 1.000000";
        assert_eq!(lines(&pose, true), format!("{boxed} {points} 0.500000\n"));

        let mut masks = Masks::new([100, 200]);
        masks.push(Mask::new([20, 10], 2, vec![1; 4]).unwrap());
        let segment = Results::segment(names(), [100, 200], boxes(), masks);
        let outline = "0.100000 0.100000 0.100000 0.110000 0.105000 0.110000 0.105000 0.100000";
        assert_eq!(lines(&segment, true), format!("1 {outline} 0.500000\n"));

        let mut obb = RotatedBoxes::new([100, 200]);
        obb.push(RotatedDetection { xywhr: [100.0, 50.0, 40.0, 20.0, 0.0], confidence: 0.5, class: 0 });
        let corners = "0.600000 0.600000 0.600000 0.400000 0.400000 0.400000 0.400000 0.600000";
        assert_eq!(lines(&Results::obb(names(), [100, 200], obb), false), format!("0 {corners}\n"));

        let classify = Results::classify(names(), [100, 200], Probs::new(vec![0.25, 0.75]));
        assert_eq!(lines(&classify, false), "0.750000 traffic light\n0.250000 person\n");
    }

    #[test]
    fn a_mask_without_outline_has_no_line() {
        let mut masks = Masks::new([100, 200]);
        masks.push(Mask::new([20, 10], 1, vec![0]).unwrap());
        assert_eq!(lines(&Results::segment(names(), [100, 200], boxes(), masks), true), "");
    }
}
