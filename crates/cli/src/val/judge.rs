//! How right the results of one picture are.

use std::cell::RefCell;
use std::cmp::Reverse;

use ferroyolo::{Results, Task};
use ferroyolo_val::dataset::{Labels, Object, Shape};
use ferroyolo_val::geometry::{
    self, Mask, RotatedBox, area, box_iou, fill_polygon, oks, oks_of_box, prob_iou, trace_polygon,
};
use ferroyolo_val::metrics::{
    ConfusionMatrix, ConfusionOptions, Found, Labelled, Match, PixelCounts, match_picture,
};

use super::fit::Fitted;
use super::truth::Truth;
use crate::error::{Error, Result};

/// What a picture adds to the metrics.
pub enum Score {
    /// Of a network that finds objects.
    Objects(Box<Objects>),
    /// Of a classifier: the true class, and the answers, best first.
    Class(usize, Vec<usize>),
    /// Of a network for class maps.
    Pixels(PixelCounts),
}

/// What is right among the objects found in a picture.
pub struct Objects {
    /// Detections by overlap of boxes, turned ones where the network finds those.
    pub boxes: Matches,
    /// Detections by overlap of masks or likeness of poses.
    pub shapes: Option<Matches>,
    /// Which classes were taken for which, by overlap of boxes.
    pub confusion: ConfusionMatrix,
    /// What was found.
    pub found: Vec<Detection>,
    /// Label lines that repeat another.
    pub n_duplicates: usize,
    /// Whether there was no label file.
    pub is_unlabelled: bool,
}

/// The detections of a picture, matched with its labels in two ways.
pub struct Matches {
    /// The labels; those that are ignored are so by COCO's rules alone.
    pub labelled: Vec<Labelled>,
    /// In the picture, where COCO's tools look: boxes end at its borders, and masks have its size.
    pub coco: Vec<Match>,
    /// In the network's input, where Ultralytics looks: boxes and keypoints may lie anywhere, and masks have the size of
    /// the network's prototypes, with each pixel in the smallest label that has it.
    pub ultralytics: Vec<Match>,
}

/// A detection in pixels of its picture.
pub struct Detection {
    /// Class and confidence.
    pub found: Found,
    /// The box `[x1, y1, x2, y2]`, within the picture.
    pub xyxy: [f64; 4],
    /// The same box where it may reach out of the picture.
    pub xyxy_unclipped: [f64; 4],
    /// What was found beyond the box.
    pub extra: Extra,
}

/// What a detection says beyond its box.
pub enum Extra {
    /// Nothing.
    None,
    /// The turned box.
    Rotated(RotatedBox),
    /// The keypoints.
    Keypoints(Vec<Point>),
    /// The mask.
    Mask(SizedMasks),
}

/// A keypoint in pixels of its picture.
#[derive(Clone, Copy)]
pub struct Point {
    /// Where it is, within the picture.
    pub xy: [f64; 2],
    /// The same where it may lie outside.
    pub xy_unclipped: [f64; 2],
    /// How sure the network is that it can be seen.
    pub visible: f32,
}

/// A mask in two sizes.
pub struct SizedMasks {
    /// That of the network's input.
    pub of_input: Mask,
    /// That of its prototypes.
    pub coarse: Mask,
}

/// Compares what was found with what is true.
///
/// Errors if both are of different kinds, which no good network's results are, and if a class map has another size than
/// the picture.
pub fn judge(results: &Results, fitted: &Fitted, truth: &Truth, n_classes: usize) -> Result<Score> {
    match truth {
        Truth::Objects(labels) => {
            let found = detections(results, fitted)?;
            Ok(Score::Objects(Box::new(judge_objects(results.task, found, fitted, labels, n_classes))))
        }
        Truth::Class(class) => {
            let probs = results.probs.as_ref().ok_or_else(|| without("probabilities"))?;
            Ok(Score::Class(*class, probs.top(5).map(|(class, _)| class).collect()))
        }
        Truth::Map(path, map) => {
            let found = results.class_map.as_ref().ok_or_else(|| without("class map"))?;
            if map.hw != fitted.orig_hw {
                let ([got_h, got_w], [height, width]) = (map.hw, fitted.orig_hw);
                let path = path.display();
                return Err(Error::failed(format!(
                    "{path}: has {got_w}x{got_h} pixels, the picture {width}x{height}"
                )));
            }
            // Both in the size in which the network saw the picture.
            let ([height, width], [top, left]) = (fitted.scaled_hw, fitted.top_left);
            let rows = found.classes().chunks_exact(found.shape()[1]).skip(top).take(height);
            let inside: Vec<u16> = rows.flat_map(|row| &row[left..left + width]).copied().collect();
            let mut counts = PixelCounts::new(n_classes);
            counts.add(&inside, &map.resized(fitted.scaled_hw).classes);
            Ok(Score::Pixels(counts))
        }
    }
}

fn without(what: &str) -> Error {
    Error::failed(format!("the network gave no {what}"))
}

/// What was found, in pixels of the picture; masks stay as they are.
fn detections(results: &Results, fitted: &Fitted) -> Result<Vec<Detection>> {
    let [height, width] = fitted.orig_hw.map(|side| side as f64);
    let to_picture = |xyxy: [f32; 4]| {
        let ([x1, y1], [x2, y2]) =
            (fitted.to_picture([xyxy[0], xyxy[1]]), fitted.to_picture([xyxy[2], xyxy[3]]));
        [x1, y1, x2, y2]
    };
    let clipped = |[x1, y1, x2, y2]: [f64; 4]| {
        [x1.clamp(0.0, width), y1.clamp(0.0, height), x2.clamp(0.0, width), y2.clamp(0.0, height)]
    };
    if let Some(obb) = &results.obb {
        let rotated = obb.iter().map(|found| {
            let [x, y, w, h, angle] = found.xywhr;
            let [gain_y, gain_x] = fitted.gain_yx();
            let wh = [f64::from(w) / gain_x, f64::from(h) / gain_y];
            let turned = RotatedBox { xy: fitted.to_picture([x, y]), wh, angle: f64::from(angle) };
            Detection {
                found: Found { class: found.class, confidence: found.confidence },
                xyxy: clipped(to_picture(found.xyxy())),
                xyxy_unclipped: to_picture(found.xyxy()),
                extra: Extra::Rotated(turned),
            }
        });
        return Ok(rotated.collect());
    }
    let mut found = Vec::with_capacity(results.boxes.len());
    for (idx, detection) in results.boxes.iter().enumerate() {
        let extra = match results.task {
            Task::Segment => {
                let masks = results.masks.as_ref().ok_or_else(|| without("masks"))?;
                let mask = masks.get(idx).ok_or_else(|| without("mask for a box"))?;
                let (coarse, hw) = masks.coarse(idx).ok_or_else(|| without("coarse mask for a box"))?;
                let of_input = in_frame(mask, masks.shape());
                Extra::Mask(SizedMasks { of_input, coarse: in_frame(coarse, hw) })
            }
            Task::Pose => {
                let keypoints = results.keypoints.as_ref().and_then(|all| all.get(idx));
                let points = keypoints.ok_or_else(|| without("keypoints for a box"))?.iter();
                let point = |point: &ferroyolo::results::Keypoint| {
                    let [x, y] = fitted.to_picture(point.xy);
                    let xy = [x.clamp(0.0, width), y.clamp(0.0, height)];
                    Point { xy, xy_unclipped: [x, y], visible: point.visible.unwrap_or(1.0) }
                };
                Extra::Keypoints(points.map(point).collect())
            }
            _ => Extra::None,
        };
        found.push(Detection {
            found: Found { class: detection.class, confidence: detection.confidence },
            xyxy: clipped(to_picture(detection.xyxy)),
            xyxy_unclipped: to_picture(detection.xyxy),
            extra,
        });
    }
    Ok(found)
}

fn judge_objects(
    task: Task,
    detections: Vec<Detection>,
    fitted: &Fitted,
    labels: &Labels,
    n_classes: usize,
) -> Objects {
    let objects = &labels.objects;
    let labelled: Vec<Labelled> = objects.iter().map(|object| Labelled::counted(object.class)).collect();
    let found: Vec<Found> = detections.iter().map(|detection| detection.found).collect();
    let [height, width] = fitted.orig_hw.map(|side| side as f64);
    let pixels = |object: &Object| {
        let [x1, y1, x2, y2] = object.xyxy;
        [x1 * width, y1 * height, x2 * width, y2 * height]
    };
    let boxes: Vec<[f64; 4]> = objects.iter().map(pixels).collect();

    let turned: Vec<Option<RotatedBox>> = objects
        .iter()
        .map(|object| match object.shape {
            Shape::Oriented(corners) => {
                Some(RotatedBox::around(corners.map(|[x, y]| [x * width, y * height])))
            }
            _ => None,
        })
        .collect();
    let box_overlap = |detection: usize, object: usize| match (&detections[detection].extra, &turned[object])
    {
        (Extra::Rotated(found), Some(truth)) => prob_iou(truth, found),
        _ => box_iou(detections[detection].xyxy, boxes[object]),
    };
    let unclipped_overlap = |detection: usize, object: usize| match &detections[detection].extra {
        Extra::Rotated(_) => box_overlap(detection, object),
        _ => box_iou(detections[detection].xyxy_unclipped, boxes[object]),
    };

    let shapes = match task {
        Task::Segment => Some(by_masks(&detections, &found, objects, fitted)),
        Task::Pose => Some(by_keypoints(&detections, &found, objects, &boxes, fitted)),
        _ => None,
    };
    let classes: Vec<usize> = objects.iter().map(|object| object.class).collect();
    let mut confusion = ConfusionMatrix::new(n_classes);
    confusion.add_picture(&ConfusionOptions::default(), &found, &classes, box_overlap);
    Objects {
        boxes: Matches {
            coco: match_picture(&found, &labelled, box_overlap),
            ultralytics: match_picture(&found, &labelled, unclipped_overlap),
            labelled,
        },
        shapes,
        confusion,
        n_duplicates: labels.n_duplicates,
        is_unlabelled: labels.is_missing,
        found: detections,
    }
}

/// Matches by likeness of poses. `boxes` are those of the labels, in pixels.
///
/// COCO does not want objects without a labelled keypoint to be found: what lies about their box counts for nothing.
fn by_keypoints(
    detections: &[Detection],
    found: &[Found],
    objects: &[Object],
    boxes: &[[f64; 4]],
    fitted: &Fitted,
) -> Matches {
    let hw = fitted.orig_hw.map(|side| side as f64);
    let truth: Vec<Vec<Option<[f64; 2]>>> = objects.iter().map(|object| points(object, hw)).collect();
    let sigmas = geometry::sigmas(truth.first().map_or(0, Vec::len));
    let found_points = |detection: usize, xy: fn(&Point) -> [f64; 2]| match &detections[detection].extra {
        Extra::Keypoints(points) => points.iter().map(xy).collect(),
        _ => Vec::new(),
    };
    let likeness =
        |object: usize, found: &[[f64; 2]]| oks(&truth[object], found, area(boxes[object]), &sigmas);
    let label = |(object, points): (&Object, &Vec<Option<[f64; 2]>>)| Labelled {
        class: object.class,
        is_ignored: points.iter().all(Option::is_none),
    };
    let labelled: Vec<Labelled> = objects.iter().zip(&truth).map(label).collect();
    let coco = match_picture(found, &labelled, |detection, object| {
        let found = found_points(detection, |point| point.xy);
        if labelled[object].is_ignored {
            oks_of_box(boxes[object], &found, &sigmas)
        } else {
            likeness(object, &found)
        }
    });
    let counted: Vec<Labelled> = objects.iter().map(|object| Labelled::counted(object.class)).collect();
    let ultralytics = match_picture(found, &counted, |detection, object| {
        likeness(object, &found_points(detection, |point| point.xy_unclipped))
    });
    Matches { labelled, coco, ultralytics }
}

/// Matches by overlap of masks, in the size of the picture and in that of the network's prototypes.
fn by_masks(detections: &[Detection], found: &[Found], objects: &[Object], fitted: &Fitted) -> Matches {
    let counted: Vec<Labelled> = objects.iter().map(|object| Labelled::counted(object.class)).collect();
    let mask_of = |detection: usize| match &detections[detection].extra {
        Extra::Mask(masks) => Some(masks),
        _ => None,
    };

    let orig_hw = fitted.orig_hw;
    let [height, width] = orig_hw.map(|side| side as f64);
    let labelled =
        masks_of(objects, |corners| fill_polygon(corners, orig_hw), |[x, y]| [x * width, y * height]);
    // Each detection is held against all labels of its class in a row; masks of all would fill the memory.
    let last = RefCell::new(None::<(usize, Mask)>);
    let coco = match_picture(found, &counted, |detection, object| {
        let mut last = last.borrow_mut();
        if last.as_ref().is_none_or(|(of, _)| *of != detection) {
            *last = mask_of(detection).map(|masks| (detection, fitted.mask_to_picture(&masks.of_input)));
        }
        last.as_ref().map_or(0.0, |(_, mask)| labelled[object].iou(mask))
    });

    let hw = fitted.image.shape();
    let coarse_height = (0..detections.len()).find_map(mask_of).map(|masks| masks.coarse.hw()[0]);
    let factor = coarse_height.map_or(1, |height| hw[0] / height.max(1)).max(1);
    let traced = masks_of(
        objects,
        |corners| trace_polygon(corners, hw).shrunk(factor),
        |corner| fitted.shares_to_input(corner),
    );
    let coarse = apart(traced);
    let ultralytics = match_picture(found, &counted, |detection, object| {
        mask_of(detection).map_or(0.0, |masks| coarse[object].iou(&masks.coarse))
    });
    Matches { labelled: counted, coco, ultralytics }
}

/// The masks of labels by `draw`, which gets their corners in pixels.
fn masks_of(
    objects: &[Object],
    draw: impl Fn(&[[f64; 2]]) -> Mask,
    to_pixels: impl Fn([f64; 2]) -> [f64; 2],
) -> Vec<Mask> {
    let drawn = |object: &Object| match &object.shape {
        Shape::Polygon(corners) => draw(&corners.iter().map(|&corner| to_pixels(corner)).collect::<Vec<_>>()),
        _ => draw(&[]),
    };
    objects.iter().map(drawn).collect()
}

/// The masks with each pixel in the smallest that has it; of masks of one size the later one is on top.
fn apart(mut masks: Vec<Mask>) -> Vec<Mask> {
    let mut by_area: Vec<usize> = (0..masks.len()).collect();
    by_area.sort_by_key(|&idx| (masks[idx].area(), Reverse(idx)));
    let mut covered = Mask::new(masks.first().map_or([0; 2], Mask::hw));
    for idx in by_area {
        let whole = masks[idx].clone();
        masks[idx].subtract(&covered);
        covered.add(&whole);
    }
    masks
}

/// A mask in a frame of `hw`.
fn in_frame(mask: &ferroyolo::results::Mask, hw: [usize; 2]) -> Mask {
    let mut framed = Mask::new(hw);
    let ([left, top], [_, width]) = (mask.origin(), mask.shape());
    for (row, pixels) in mask.pixels().chunks(width).enumerate() {
        let mut x = left;
        for run in pixels.chunk_by(|a, b| a == b) {
            if run[0] == 1 {
                framed.fill_row(top + row, x, x + run.len());
            }
            x += run.len();
        }
    }
    framed
}

/// The labelled keypoints of an object in pixels.
fn points(object: &Object, [height, width]: [f64; 2]) -> Vec<Option<[f64; 2]>> {
    let Shape::Keypoints(points) = &object.shape else { return Vec::new() };
    let scaled = |[x, y]: [f64; 2]| [x * width, y * height];
    points.iter().map(|point| point.is_labelled.then(|| scaled(point.xy))).collect()
}
