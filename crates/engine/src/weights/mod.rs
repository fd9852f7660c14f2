//! Model files: the description of the network and its tensors.

mod document;
mod header;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

pub(crate) use document::{Color, Document, Input, Layer, Module, Placement};

use crate::error::{Error, Result};
use crate::tensor::element_count;

/// The version of the model format that this library reads.
const FORMAT: &str = "1";

/// An opened model file whose tensors are taken one by one.
pub(crate) struct Weights<'a> {
    tensors: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
    taken: BTreeSet<String>,
}

/// The bytes of the model file at `path`.
///
/// Whatever can't be a model is refused before it is read: what is no regular file, and files whose first bytes
/// announce no possible header.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |cause| Error::io("", cause);
    // Opening a pipe would wait for its writer, so this comes first.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::format("", "is not a regular file"));
    }
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mut start = [0; 8];
    if metadata.len() >= 8 {
        file.read_exact(&mut start).map_err(io)?;
        header::check_len(u64::from_le_bytes(start), metadata.len())?;
        file.rewind().map_err(io)?;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Reads a model file: the description of its network, and its tensors.
pub(crate) fn read(bytes: &[u8]) -> Result<(Document, Weights<'_>)> {
    header::check(bytes)?;
    let not_safetensors = |cause| Error::format("", "is not a valid safetensors file").with_source(cause);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let metadata = header.metadata().as_ref();
    let entry = |key: &str| metadata.and_then(|map| map.get(key));
    let Some(format) = entry("ferroyolo.format") else {
        return Err(Error::format(
            "ferroyolo.format",
            "missing: a safetensors file, but not a ferroyolo model; make one with `ferroyolo convert`",
        ));
    };
    if format != FORMAT {
        return Err(Error::unsupported(
            "ferroyolo.format",
            format!("got version {format:?}, this build reads {FORMAT:?}; convert the checkpoint again"),
        ));
    }
    let text = entry("ferroyolo.model").ok_or_else(|| Error::format("ferroyolo.model", "missing"))?;
    let document = Document::parse(text)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
    let tensors = tensors.tensors().into_iter().collect();
    Ok((document, Weights { tensors, taken: BTreeSet::new() }))
}

impl Weights<'_> {
    /// Takes the tensor `name`, widened to f32.
    ///
    /// Errors if it is missing, was taken before, has another shape or type, or holds values that are not finite.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.take_optional(name, shape)?.ok_or_else(|| Error::weights(name, "missing from the file"))
    }

    /// As [`Weights::take`], but an absent tensor is `None`.
    pub(crate) fn take_optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        if tensor.shape() != shape {
            return Err(Error::shape(name, format!("got {:?}, expected {shape:?}", tensor.shape())));
        }
        if !self.taken.insert(name.to_owned()) {
            return Err(Error::weights(name, "is used by two layers"));
        }
        let values = widen(name, tensor)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::weights(name, format!("holds {} at element {at}", values[at])));
        }
        Ok(Some(values))
    }

    /// Number of values in all tensors.
    pub(crate) fn n_parameters(&self) -> usize {
        self.tensors.values().filter_map(|tensor| element_count(tensor.shape())).sum()
    }

    /// Errors with the names of tensors that nothing has taken.
    pub(crate) fn finish(self) -> Result<()> {
        let surplus: Vec<&str> =
            self.tensors.keys().filter(|name| !self.taken.contains(*name)).map(String::as_str).collect();
        match surplus.as_slice() {
            [] => Ok(()),
            [name] => Err(Error::weights(*name, "belongs to no layer of the network")),
            [name, rest @ ..] => Err(Error::weights(
                *name,
                format!("belongs to no layer of the network, nor do {} other tensors", rest.len()),
            )),
        }
    }
}

fn widen(name: &str, tensor: &safetensors::tensor::TensorView<'_>) -> Result<Vec<f32>> {
    let data = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        other => return Err(Error::weights(name, format!("has type {other:?}, expected F16, BF16 or F32"))),
    };
    Ok(values)
}
