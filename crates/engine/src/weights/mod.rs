//! Model files: the description of the network and its tensors.

mod document;

use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

pub(crate) use document::{Color, Document, Input, Layer, Module, Placement};

use crate::error::{Error, Result};
use crate::tensor::element_count;

/// The version of the model format that this library reads.
const FORMAT: &str = "1";

/// Bytes that the header of a model file may have. That of a YOLO11x has 200 KB.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// An opened model file whose tensors are taken one by one.
pub(crate) struct Weights<'a> {
    tensors: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
    taken: BTreeSet<String>,
}

/// Reads a model file: the description of its network, and its tensors.
pub(crate) fn read(bytes: &[u8]) -> Result<(Document, Weights<'_>)> {
    let header_len = bytes
        .first_chunk::<8>()
        .map(|len| u64::from_le_bytes(*len))
        .ok_or_else(|| Error::format("", "is not a safetensors file: shorter than eight bytes"))?;
    if header_len > MAX_HEADER_BYTES || header_len > bytes.len() as u64 - 8 {
        return Err(Error::format(
            "",
            format!(
                "is not a safetensors file: says its header has {header_len} bytes, the file has {}",
                bytes.len()
            ),
        ));
    }
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
