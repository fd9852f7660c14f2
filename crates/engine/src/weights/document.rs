//! The network's description in the metadata of a model file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::session::PredictOptions;

/// Levels of nested modules that a document may have. Published networks have fewer than twelve.
const MAX_DEPTH: usize = 48;

/// A whole network: what it is for, what it expects, and its layers in order.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    pub task: String,
    pub names: Vec<String>,
    pub stride: Vec<usize>,
    pub imgsz: [usize; 2],
    pub input: Input,
    /// Keypoints and values of each; only of networks for keypoints.
    #[serde(default)]
    pub kpt_shape: Option<[usize; 2]>,
    #[serde(default)]
    pub provenance: BTreeMap<String, Value>,
    pub layers: Vec<Layer>,
}

/// What the first layer expects of a picture.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Input {
    pub channels: usize,
    pub color: Color,
    pub divisor: f32,
    pub letterbox: Placement,
    pub pad_value: u8,
    /// Is subtracted from the channels after the division; only of classifiers.
    #[serde(default)]
    pub mean: [f32; 3],
    /// Divides what remains; only of classifiers.
    #[serde(default = "ones")]
    pub std: [f32; 3],
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

/// Order of the colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Rgb,
    Bgr,
}

/// Where a letterboxed picture lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placement {
    Center,
    TopLeft,
}

/// One step of the sequence.
#[derive(Debug, Deserialize)]
pub(crate) struct Layer {
    pub index: usize,
    pub from: Vec<i64>,
    pub path: String,
    pub module: Module,
}

/// A node of the module tree.
#[derive(Debug, Deserialize)]
pub(crate) struct Module {
    pub class: String,
    #[serde(default)]
    pub attrs: BTreeMap<String, Value>,
    #[serde(default)]
    pub children: Vec<(String, Module)>,
}

impl Document {
    /// Reads and checks the JSON text of `ferroyolo.model`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let document: Self = serde_json::from_str(text).map_err(|cause| {
            Error::format("ferroyolo.model", "the description of the network can't be read")
                .with_source(cause)
        })?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<()> {
        let bad =
            |what: &str, message: String| Err(Error::format(format!("ferroyolo.model: {what}"), message));
        if self.names.is_empty() || self.names.len() > 65_536 {
            return bad("names", format!("got {} classes, expected 1 to 65536", self.names.len()));
        }
        if self.stride.is_empty() || self.stride.iter().any(|&s| s == 0 || s > 1024) {
            return bad("stride", format!("got {:?}, expected values from 1 to 1024", self.stride));
        }
        let most = PredictOptions::MAX_SIDE;
        if self.imgsz.iter().any(|&side| side == 0 || side > most) {
            let got = self.imgsz;
            return bad("imgsz", format!("got {got:?}, expected an input of 1 to {most} pixels a side"));
        }
        if self.input.channels != 3 {
            return Err(Error::unsupported(
                "ferroyolo.model: input.channels",
                format!("got {} channels, only 3 are supported", self.input.channels),
            ));
        }
        if !(self.input.divisor.is_finite() && self.input.divisor > 0.0) {
            return bad("input.divisor", format!("got {}, expected a positive number", self.input.divisor));
        }
        let Input { mean, std, .. } = self.input;
        if !mean.iter().all(|value| value.is_finite()) {
            return bad("input.mean", format!("got {mean:?}, expected finite numbers"));
        }
        if !std.iter().all(|value| value.is_normal() && *value > 0.0) {
            return bad("input.std", format!("got {std:?}, expected positive numbers"));
        }
        // Padding would have to be normalized, too, and other orders and ranges be turned around.
        let is_plain =
            self.task == "classify" && self.input.color == Color::Rgb && self.input.divisor == 255.0;
        if (mean, std) != ([0.0; 3], [1.0; 3]) && !is_plain {
            return Err(Error::unsupported(
                "ferroyolo.model: input",
                "only classifiers of RGB divided by 255 may have a mean and a deviation",
            ));
        }
        if self.layers.is_empty() {
            return bad("layers", "the network has no layers".into());
        }
        for (position, layer) in self.layers.iter().enumerate() {
            if layer.index != position {
                return bad("layers", format!("layer {position} carries the index {}", layer.index));
            }
            if layer.from.iter().any(|&from| from < -1 || from >= position as i64) {
                return bad(
                    &layer.path,
                    format!(
                        "takes input from layers {:?}, expected -1 to {}",
                        layer.from,
                        position as i64 - 1
                    ),
                );
            }
            if depth(&layer.module) > MAX_DEPTH {
                return bad(&layer.path, format!("modules are nested deeper than {MAX_DEPTH}"));
            }
        }
        Ok(())
    }
}

fn depth(module: &Module) -> usize {
    // The JSON parser itself stops at 128 levels, so this recursion is bounded.
    1 + module.children.iter().map(|(_, child)| depth(child)).max().unwrap_or(0)
}
