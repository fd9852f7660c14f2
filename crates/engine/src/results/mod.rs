//! What was found in a picture, as numbers, text, JSON and drawing.

mod boxes;
mod draw;
mod json;
mod label;
mod palette;

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use boxes::{Boxes, Detection};
pub use draw::PlotOptions;
pub use json::{Corners, Record};

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
    /// Boxes by falling confidence.
    pub boxes: Boxes,
    /// How long it took.
    pub speed: Speed,
}

impl Results {
    /// Results of a detection in a picture of `orig_shape`, from an input of the same size.
    #[must_use]
    pub fn detect(names: Arc<[String]>, orig_shape: [usize; 2], boxes: Boxes) -> Self {
        let (path, speed) = (None, Speed::default());
        Self { task: Task::Detect, names, orig_shape, input_shape: orig_shape, path, boxes, speed }
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

    /// What was found as text, by class: `4 persons, 1 bus`, or `(no detections)`.
    #[must_use]
    pub fn verbose(&self) -> String {
        let mut classes = self.boxes.cls().to_vec();
        classes.sort_unstable();
        let mut text = String::new();
        for group in classes.chunk_by(|a, b| a == b) {
            let comma = if text.is_empty() { "" } else { ", " };
            let plural = if group.len() > 1 { "s" } else { "" };
            // Writing to a string can't fail.
            let _ = write!(text, "{comma}{} {}{plural}", group.len(), self.name(group[0]));
        }
        if text.is_empty() { "(no detections)".to_owned() } else { text }
    }
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
}
