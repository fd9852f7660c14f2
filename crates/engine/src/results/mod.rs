//! What was found in a picture, as numbers, text, JSON and drawing.

mod boxes;
mod canvas;
mod contour;
mod draw;
mod json;
mod keypoints;
mod label;
mod maps;
mod masks;
mod nearest;
mod obb;
mod overlay;
mod palette;
mod probs;
mod skeleton;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use boxes::{Boxes, Detection};
pub use draw::PlotOptions;
pub use json::{Corners, KeypointColumns, Outline, Record};
pub use keypoints::{Keypoint, Keypoints};
pub use maps::{ClassMap, DepthMap, DepthRange};
pub use masks::{Mask, Masks};
pub use obb::{RotatedBoxes, RotatedDetection};
pub use probs::Probs;

/// Classes of a class map that [`Results::verbose`] names.
const MAX_TOLD: usize = 5;

/// What a network was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Task {
    /// Boxes around objects.
    Detect,
    /// Boxes, and a mask of each object.
    Segment,
    /// Boxes, and the keypoints of each object.
    Pose,
    /// Boxes that are turned with their objects.
    Obb,
    /// What the whole picture shows.
    Classify,
    /// The class of every pixel.
    Semantic,
    /// The distance of every pixel from the camera.
    Depth,
}

impl Task {
    /// The task as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Segment => "segment",
            Self::Pose => "pose",
            Self::Obb => "obb",
            Self::Classify => "classify",
            Self::Semantic => "semantic",
            Self::Depth => "depth",
        }
    }

    /// The task of this name, as [`Task::as_str`] gives it.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let all =
            [Self::Detect, Self::Segment, Self::Pose, Self::Obb, Self::Classify, Self::Semantic, Self::Depth];
        all.into_iter().find(|task| task.as_str() == name)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long a picture took, in milliseconds. In a batch, its share.
///
/// A GPU scales pictures and finds objects in the same run: there, all of it is `inference_ms`, with the time for which
/// it waited for other runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Scaling and padding.
    pub preprocess_ms: f64,
    /// The network.
    pub inference_ms: f64,
    /// Decoding and suppression.
    pub postprocess_ms: f64,
}

/// What was found in one picture.
///
/// Which parts are there follows from the task:
///
/// | task | parts |
/// |---|---|
/// | detect | `boxes` |
/// | segment | `boxes`, `masks` |
/// | pose | `boxes`, `keypoints` |
/// | obb | `obb` |
/// | classify | `probs` |
/// | semantic | `class_map` |
/// | depth | `depth` |
///
/// With serde it travels between processes, whole and exactly; [`Results::to_json`] is what people read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Results {
    /// What the network was trained for.
    pub task: Task,
    /// Names of the classes by index.
    pub names: Arc<[String]>,
    /// Height and width of the picture in pixels.
    pub orig_shape: [usize; 2],
    /// Height and width of the network's input in pixels.
    pub input_shape: [usize; 2],
    /// The file that the picture comes from, if it is known.
    pub path: Option<PathBuf>,
    /// Boxes by falling confidence; none if the task has no upright boxes.
    pub boxes: Boxes,
    /// The mask of each box.
    pub masks: Option<Masks>,
    /// The keypoints of each box.
    pub keypoints: Option<Keypoints>,
    /// Rotated boxes by falling confidence.
    pub obb: Option<RotatedBoxes>,
    /// The probability of each class.
    pub probs: Option<Probs>,
    /// The class of each pixel.
    pub class_map: Option<ClassMap>,
    /// The distance of each pixel.
    pub depth: Option<DepthMap>,
    /// How long it took.
    pub speed: Speed,
}

impl Results {
    /// Results with nothing found yet in a picture of `orig_shape`, from an input of the same size.
    #[must_use]
    pub fn new(task: Task, names: Arc<[String]>, orig_shape: [usize; 2]) -> Self {
        Self {
            task,
            names,
            orig_shape,
            input_shape: orig_shape,
            path: None,
            boxes: Boxes::new(orig_shape),
            masks: None,
            keypoints: None,
            obb: None,
            probs: None,
            class_map: None,
            depth: None,
            speed: Speed::default(),
        }
    }

    /// Results of a detection in a picture of `orig_shape`, from an input of the same size.
    #[must_use]
    pub fn detect(names: Arc<[String]>, orig_shape: [usize; 2], boxes: Boxes) -> Self {
        Self { boxes, ..Self::new(Task::Detect, names, orig_shape) }
    }

    /// Results of instance segmentation: one mask for each box.
    #[must_use]
    pub fn segment(names: Arc<[String]>, orig_shape: [usize; 2], boxes: Boxes, masks: Masks) -> Self {
        Self { boxes, masks: Some(masks), ..Self::new(Task::Segment, names, orig_shape) }
    }

    /// Results of pose estimation: the keypoints of each box.
    #[must_use]
    pub fn pose(names: Arc<[String]>, orig_shape: [usize; 2], boxes: Boxes, keypoints: Keypoints) -> Self {
        Self { boxes, keypoints: Some(keypoints), ..Self::new(Task::Pose, names, orig_shape) }
    }

    /// Results of a detection with rotated boxes.
    #[must_use]
    pub fn obb(names: Arc<[String]>, orig_shape: [usize; 2], obb: RotatedBoxes) -> Self {
        Self { obb: Some(obb), ..Self::new(Task::Obb, names, orig_shape) }
    }

    /// Results of a classification.
    #[must_use]
    pub fn classify(names: Arc<[String]>, orig_shape: [usize; 2], probs: Probs) -> Self {
        Self { probs: Some(probs), ..Self::new(Task::Classify, names, orig_shape) }
    }

    /// Results of semantic segmentation.
    #[must_use]
    pub fn semantic(names: Arc<[String]>, class_map: ClassMap) -> Self {
        let orig_shape = class_map.shape();
        Self { class_map: Some(class_map), ..Self::new(Task::Semantic, names, orig_shape) }
    }

    /// Results of depth estimation.
    #[must_use]
    pub fn depth(names: Arc<[String]>, depth: DepthMap) -> Self {
        let orig_shape = depth.shape();
        Self { depth: Some(depth), ..Self::new(Task::Depth, names, orig_shape) }
    }

    /// The same results with another `input_shape`.
    #[must_use]
    pub fn with_input_shape(self, input_shape: [usize; 2]) -> Self {
        Self { input_shape, ..self }
    }

    /// The same results with a path.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same results with other times.
    #[must_use]
    pub fn with_speed(self, speed: Speed) -> Self {
        Self { speed, ..self }
    }

    /// The name of a class; its number if it has none.
    #[must_use]
    pub fn name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// What was found as text.
    ///
    /// Objects by class: `4 persons, 1 bus`, or `(no detections)`. Of a classification the five likeliest classes:
    /// `cat 0.93, dog 0.04`. Of a class map the classes with their shares of the picture: `road 61.2%, sky 20.0%`. Of
    /// a depth map nearest and farthest: `depth 1.14-8.02m`.
    #[must_use]
    pub fn verbose(&self) -> String {
        if let Some(probs) = &self.probs {
            return joined(probs.top(5).map(|(class, value)| format!("{} {value:.2}", self.name(class))));
        }
        if let Some(map) = &self.class_map {
            let mut counts = self.class_counts(map);
            counts.sort_by_key(|&(class, count)| (std::cmp::Reverse(count), class));
            let share = |count: usize| 100.0 * count as f64 / map.classes().len() as f64;
            let shown = counts.into_iter().take(MAX_TOLD);
            return joined(shown.map(|(class, count)| format!("{} {:.1}%", self.name(class), share(count))));
        }
        if let Some(depth) = &self.depth {
            return match depth.range() {
                Some(DepthRange { min, max, .. }) => format!("depth {min:.2}-{max:.2}m"),
                None => "(no depth)".to_owned(),
            };
        }
        let mut classes = match &self.obb {
            Some(obb) => obb.iter().map(|found| found.class).collect(),
            None => self.boxes.cls().to_vec(),
        };
        classes.sort_unstable();
        let counted = classes.chunk_by(|a, b| a == b).map(|group| {
            let plural = if group.len() > 1 { "s" } else { "" };
            format!("{} {}{plural}", group.len(), self.name(group[0]))
        });
        joined(counted)
    }

    /// Classes of a class map with the number of their pixels; of a single class only where it is.
    fn class_counts(&self, map: &ClassMap) -> Vec<(usize, usize)> {
        let counts = map.counts().into_iter();
        if self.names.len() == 1 {
            counts.filter(|&(value, _)| value == 1).map(|(_, count)| (0, count)).collect()
        } else {
            counts.collect()
        }
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "(no detections)".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(classes: &[usize], expected: &str) {
        let mut boxes = Boxes::new([10, 10]);
        classes.iter().for_each(|&class| boxes.push([0.0, 0.0, 1.0, 1.0], 0.5, class));
        let names = ["person", "bus"].map(str::to_owned);
        assert_eq!(Results::detect(names.into(), [10, 10], boxes).verbose(), expected);
    }

    #[test]
    fn verbose_counts_by_class() {
        check(&[], "(no detections)");
        check(&[1], "1 bus");
        check(&[0, 1, 0, 0, 0], "4 persons, 1 bus");
        check(&[7, 7, 1], "1 bus, 2 7s");
    }

    /// `good` survives the way through JSON; with `value` at `path` it does not.
    fn check_parts<T>(good: &T, path: &str, value: serde_json::Value)
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq + fmt::Debug,
    {
        let mut json = serde_json::to_value(good).unwrap();
        assert_eq!(serde_json::from_value::<T>(json.clone()).unwrap(), *good);
        *json.pointer_mut(path).unwrap() = value;
        assert!(serde_json::from_value::<T>(json.clone()).is_err(), "{json}");
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        use serde_json::json;
        let mut boxes = Boxes::new([9, 9]);
        boxes.push([1.0, 2.0, 3.0, 4.0], 0.5, 1);
        check_parts(&boxes, "/conf", json!([]));
        check_parts(&boxes, "/cls", json!([1, 2]));
        let mask = Mask::new([1, 2], 2, vec![1, 0, 1, 1]).unwrap();
        check_parts(&mask, "/width", json!(0));
        check_parts(&mask, "/width", json!(3));
        check_parts(&mask, "/pixels", json!([]));
        let mut keypoints = Keypoints::new([9, 9], 2);
        keypoints.push(&[Keypoint { xy: [1.0, 2.0], visible: None }; 2]).unwrap();
        check_parts(&keypoints, "/n_points", json!(0));
        check_parts(&keypoints, "/n_points", json!(3));
        check_parts(&Probs::new(vec![0.25, 0.75]), "/1", json!("likely"));
        check_parts(&ClassMap::new([1, 2], vec![3, 4]).unwrap(), "/shape/0", json!(2));
        check_parts(&DepthMap::new([1, 2], vec![3.0, 4.0]).unwrap(), "/shape/1", json!(usize::MAX));
    }

    #[test]
    fn verbose_fits_the_task() {
        let names: Arc<[String]> = ["person", "bus"].map(str::to_owned).into();
        let probs = Probs::new(vec![0.25, 0.75]);
        assert_eq!(Results::classify(names.clone(), [1, 1], probs).verbose(), "bus 0.75, person 0.25");
        let map = ClassMap::new([1, 4], vec![1, 1, 0, 1]).unwrap();
        assert_eq!(Results::semantic(names.clone(), map.clone()).verbose(), "bus 75.0%, person 25.0%");
        let one = [String::from("road")].into();
        assert_eq!(Results::semantic(one, map).verbose(), "road 75.0%");
        let map = DepthMap::new([1, 2], vec![1.0, 2.5]).unwrap();
        assert_eq!(Results::depth(names.clone(), map).verbose(), "depth 1.00-2.50m");
        let map = DepthMap::new([1, 1], vec![f32::NAN]).unwrap();
        assert_eq!(Results::depth(names.clone(), map).verbose(), "(no depth)");
        let mut obb = RotatedBoxes::new([9, 9]);
        obb.push(RotatedDetection { xywhr: [5.0, 5.0, 2.0, 2.0, 0.1], confidence: 0.5, class: 1 });
        assert_eq!(Results::obb(names, [9, 9], obb).verbose(), "1 bus");
    }
}
