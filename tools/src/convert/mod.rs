//! Checkpoint to model file.

mod emit;
#[cfg(test)]
mod tests;
mod transforms;
mod ultralytics;
mod yolox;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::document::Document;
use crate::error::{Error, ErrorKind, Result};
use crate::pickle::value::{Id, Node};
use crate::torch::Modules;
use crate::write::{Layout, OutTensor, write_atomically};

/// Version of the file format, in the metadata.
pub(crate) const FORMAT: &str = "1";

/// Element type of the kernels in the written file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// As in the checkpoint.
    #[default]
    Keep,
    /// Half precision; a kernel that does not fit is an error.
    F16,
    /// Single precision.
    F32,
}

/// How to convert.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions {
    /// Element type of the kernels.
    pub dtype: Dtype,
}

/// Turns a checkpoint into a model.
///
/// Takes the module tree under `ema`, else `model`, of ultralytics checkpoints, and the state dict of YOLOX ones.
/// Errors with `ErrorKind::Unsupported` for other networks, with `ErrorKind::Tensor` for weights that are not finite,
/// of the wrong shape or missing.
pub fn convert(checkpoint: &Checkpoint, options: &ConvertOptions) -> Result<Converted> {
    convert_root(checkpoint, *options).map_err(|error| error.in_file(&checkpoint.name))
}

fn convert_root(checkpoint: &Checkpoint, options: ConvertOptions) -> Result<Converted> {
    let (document, tensors) = match find_network(checkpoint)? {
        Network::Modules(id) => ultralytics::convert(checkpoint, id, options.dtype)?,
        Network::StateDict(id) => yolox::convert(checkpoint, id, options.dtype)?,
    };
    Ok(Converted { document, tensors, file: Arc::clone(&checkpoint.bytes) })
}

/// Where in the pickle the network stands, and in which form.
pub(crate) enum Network {
    /// A pickled module.
    Modules(Id),
    /// Tensors by name.
    StateDict(Id),
}

/// Finds the network: `ema` if there is one, else `model`, else the root itself.
pub(crate) fn find_network(checkpoint: &Checkpoint) -> Result<Network> {
    let pickle = &checkpoint.pickle;
    let root = pickle.root;
    for id in [pickle.get(root, "ema"), pickle.get(root, "model"), Some(root)].into_iter().flatten() {
        if Modules::class_and_state(pickle, id).is_some() {
            return Ok(Network::Modules(id));
        }
    }
    for id in [pickle.get(root, "model"), Some(root)].into_iter().flatten() {
        if pickle
            .dict(id)
            .is_some_and(|items| items.iter().any(|&(_, value)| yolox::is_tensor(pickle, value)))
        {
            return Ok(Network::StateDict(id));
        }
    }
    let shown = match pickle.node(root) {
        Node::Dict { .. } => "a dict without a network under `ema` or `model`".to_owned(),
        _ => pickle.describe(root),
    };
    Err(Error::unsupported("", format!("no network found: the checkpoint holds {shown}")))
}

/// A converted model, ready to be written.
///
/// Kernels stay where they are in the checkpoint's bytes until they are written, so it takes hardly any memory of its
/// own.
pub struct Converted {
    document: Document,
    tensors: Vec<OutTensor>,
    file: Arc<Vec<u8>>,
}

impl fmt::Debug for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Converted({} layers, {} tensors)", self.document.layers.len(), self.tensors.len())
    }
}

impl Converted {
    /// The description of the network.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Names, safetensors type names and shapes of the tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, &[usize])> {
        self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.ty.name(), tensor.shape.as_slice()))
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let layout = self.layout()?;
        let mut out = Vec::with_capacity(layout.n_bytes());
        layout.write_to(&mut out, &self.file)?;
        Ok(out)
    }

    /// Writes the file whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let layout = self.layout()?;
        write_atomically(path, |out| layout.write_to(out, &self.file))
    }

    /// What has been converted, in numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            task: self.document.task.clone(),
            n_classes: self.document.names.len(),
            imgsz: self.document.imgsz,
            n_layers: self.document.layers.len(),
            n_tensors: self.tensors.len(),
            n_parameters: self.tensors.iter().map(OutTensor::n_elements).sum(),
            n_bytes: self.tensors.iter().map(OutTensor::n_bytes).sum(),
            producer: self.document.provenance.producer.clone(),
            version: self.document.provenance.version.clone(),
            license: self.document.provenance.license.clone(),
        }
    }

    fn layout(&self) -> Result<Layout<'_>> {
        let json = serde_json::to_string(&self.document).map_err(|source| {
            Error::new(ErrorKind::Format, "", "can't write the document as JSON").with_source(source)
        })?;
        Layout::new(&[("ferroyolo.format", FORMAT.to_owned()), ("ferroyolo.model", json)], &self.tensors)
    }
}

/// A converted model in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What the network predicts.
    pub task: String,
    /// Number of class names.
    pub n_classes: usize,
    /// `[height, width]` the network was trained for, in pixels.
    pub imgsz: [u32; 2],
    /// Number of layers.
    pub n_layers: usize,
    /// Number of tensors.
    pub n_tensors: usize,
    /// Number of their elements: kernels, and a factor and an offset for each folded channel.
    pub n_parameters: usize,
    /// Bytes of the tensors.
    pub n_bytes: usize,
    /// Software that wrote the checkpoint.
    pub producer: String,
    /// Version of that software.
    pub version: Option<String>,
    /// Licence that the checkpoint states.
    pub license: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (height, width) = (self.imgsz[0], self.imgsz[1]);
        write!(f, "{}, {} classes, {height}x{width}, {} layers", self.task, self.n_classes, self.n_layers)?;
        write!(f, ", {} parameters, {:.1} MB", self.n_parameters, self.n_bytes as f64 / 1e6)
    }
}
