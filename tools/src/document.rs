//! The document that describes a network, as `docs/model-format.md` lays it down.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Everything that the engine has to know beside the tensors.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// What the network predicts: `detect`, `segment`, `pose`, `obb`, `classify`, `semantic` or `depth`.
    pub task: String,
    /// Class names in index order.
    pub names: Vec<String>,
    /// Pixels of the input per cell, one for each level of the head.
    pub stride: Vec<u32>,
    /// `[height, width]` the network was trained for, in pixels.
    pub imgsz: [u32; 2],
    /// What the network expects as its input.
    pub input: Input,
    /// `[keypoints, values per keypoint]` of a pose network.
    pub kpt_shape: Option<[u32; 2]>,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// The sequence of layers; the last one is the head.
    pub layers: Vec<Layer>,
}

/// What the network expects as its input.
#[derive(Clone, Debug, Serialize)]
pub struct Input {
    /// Number of channels.
    pub channels: u32,
    /// Order of the channels: `rgb` or `bgr`.
    pub color: &'static str,
    /// 8-bit values are divided by this.
    pub divisor: f64,
    /// Where the padding goes: `center` or `top-left`.
    pub letterbox: &'static str,
    /// Value of the padding, 0 to 255.
    pub pad_value: u8,
    /// Is subtracted from the channels after the division, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f64; 3]>,
    /// Divides what remains, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f64; 3]>,
}

/// Where the weights come from; an absent field is unknown.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// Name of the converted file, without its folder.
    pub file: String,
    /// SHA-256 of the converted file, in lower-case hexadecimal.
    pub sha256: String,
    /// Software that wrote the checkpoint.
    pub producer: String,
    /// Version of that software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Licence that the checkpoint states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// When the checkpoint was written, as it states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

/// One step of the network.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Position in the sequence.
    pub index: usize,
    /// Layers whose outputs this one takes; -1 is the picture.
    pub from: Vec<i64>,
    /// Prefix of the layer's tensor names.
    pub path: String,
    /// What the layer computes.
    pub module: Module,
}

/// A class with its attributes and children.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Module {
    /// Published name of the class.
    pub class: String,
    /// Scalar attributes and lists of scalars.
    pub attrs: Map<String, Value>,
    /// Named parts, in their order; written as `[name, module]`.
    #[serde(serialize_with = "pairs")]
    pub children: Vec<(String, Module)>,
}

impl Module {
    /// A module of `class` without children.
    pub(crate) fn new(class: &str, attrs: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let attrs = attrs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { class: class.to_owned(), attrs, children: Vec::new() }
    }

    pub(crate) fn with(mut self, name: impl Into<String>, child: Self) -> Self {
        self.children.push((name.into(), child));
        self
    }

    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(of, _)| of == name).map(|(_, child)| child)
    }
}

fn pairs<S: Serializer>(children: &[(String, Module)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(children)
}
