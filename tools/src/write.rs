//! Writes safetensors: an 8-byte header length, a JSON header, the tensors' bytes one after the other.
//!
//! Written here rather than with the `safetensors` crate for two reasons: the same input gives the same bytes (that
//! crate keeps the metadata in a hash map), and tensors are converted one at a time while they are written.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::torch::ScalarType;

/// Headers longer than this are refused by readers of the format.
const MAX_HEADER: usize = 100_000_000;

/// One tensor of the file to write.
#[derive(Clone, Debug)]
pub(crate) struct OutTensor {
    pub(crate) name: String,
    pub(crate) ty: ScalarType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// Where a tensor's elements come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// These bytes of the checkpoint, elements of this type.
    File(Range<usize>, ScalarType),
    /// Elements of the tensor's own type.
    Owned(Vec<u8>),
}

impl OutTensor {
    /// An F32 tensor; errors, naming it, if a value is not finite as `f32`.
    pub(crate) fn f32(
        name: String,
        shape: Vec<usize>,
        values: impl IntoIterator<Item = f64>,
    ) -> Result<Self> {
        let mut bytes = Vec::with_capacity(4 * shape.iter().product::<usize>());
        for (idx, value) in values.into_iter().enumerate() {
            let value = value as f32;
            if !value.is_finite() {
                return Err(Error::tensor(name, format!("element {idx} becomes {value} in 32 bits")));
            }
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Ok(Self { name, ty: ScalarType::F32, shape, data: Data::Owned(bytes) })
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_elements() * self.ty.size()
    }

    fn write(&self, out: &mut impl Write, file: &[u8]) -> io::Result<()> {
        /// Elements converted at a time, so that no tensor is in memory twice.
        const BLOCK: usize = 1 << 14;
        match &self.data {
            Data::Owned(bytes) => out.write_all(bytes),
            Data::File(range, ty) if *ty == self.ty => out.write_all(&file[range.clone()]),
            Data::File(range, ty) => file[range.clone()]
                .chunks(BLOCK * ty.size())
                .try_for_each(|block| out.write_all(&convert(block, *ty, self.ty))),
        }
    }
}

/// Rounds elements of type `from` to the floating-point type `to`.
pub(crate) fn convert(bytes: &[u8], from: ScalarType, to: ScalarType) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / from.size() * to.size());
    for value in from.values(bytes) {
        match to {
            ScalarType::F16 => out.extend_from_slice(&f16::from_f64(value).to_le_bytes()),
            ScalarType::BF16 => out.extend_from_slice(&bf16::from_f64(value).to_le_bytes()),
            ScalarType::F64 => out.extend_from_slice(&value.to_le_bytes()),
            _ => out.extend_from_slice(&(value as f32).to_le_bytes()),
        }
    }
    out
}

/// Writes header and tensors to `out`.
///
/// `metadata` keeps its order. Tensors are laid out by falling element size, then by name, so each is aligned to its
/// element.
pub(crate) fn write_to(
    out: &mut impl Write,
    file: &[u8],
    metadata: &[(&str, String)],
    tensors: &[OutTensor],
) -> Result<()> {
    let order = order(tensors);
    let header = header(metadata, &order)?;
    let failed = |source| Error::io("can't write the model", source);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    for tensor in order {
        tensor.write(out, file).map_err(failed)?;
    }
    Ok(())
}

/// The number of bytes that [`write_to`] writes.
pub(crate) fn written_len(metadata: &[(&str, String)], tensors: &[OutTensor]) -> Result<usize> {
    let data: usize = tensors.iter().map(OutTensor::n_bytes).sum();
    Ok(8 + header(metadata, &order(tensors))?.len() + data)
}

/// Writes a file whole or not at all: to a temporary name beside it, which is then renamed.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<fs::File>) -> Result<()>,
) -> Result<()> {
    let shown = path.display().to_string();
    let Some(name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Io, "", "path has no file name").in_file(&shown));
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary_name);
    let result = fs::File::create(&temporary)
        .map_err(|source| Error::io("can't create the file", source))
        .and_then(|file| {
            let mut out = io::BufWriter::new(file);
            write(&mut out)?;
            let file =
                out.into_inner().map_err(|error| Error::io("can't write the model", error.into_error()))?;
            file.sync_all().map_err(|source| Error::io("can't write the model", source))?;
            fs::rename(&temporary, path)
                .map_err(|source| Error::io("can't put the file in its place", source))
        });
    result.map_err(|error| {
        // The failure to report is the first one; a temporary that can't be removed adds nothing to it.
        let _ = fs::remove_file(&temporary);
        error.in_file(&shown)
    })
}

fn order(tensors: &[OutTensor]) -> Vec<&OutTensor> {
    let mut order: Vec<&OutTensor> = tensors.iter().collect();
    order.sort_by(|a, b| b.ty.size().cmp(&a.ty.size()).then_with(|| a.name.cmp(&b.name)));
    order
}

fn header(metadata: &[(&str, String)], order: &[&OutTensor]) -> Result<Vec<u8>> {
    let mut header = Map::new();
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str())));
    header.insert("__metadata__".to_owned(), Value::Object(metadata.collect()));
    let mut offset = 0;
    for tensor in order {
        let end = offset + tensor.n_bytes();
        let entry = json!({"dtype": tensor.ty.name(), "shape": tensor.shape, "data_offsets": [offset, end]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(Error::corrupt(tensor.name.clone(), "tensor is there twice"));
        }
        offset = end;
    }
    let mut bytes = serde_json::to_vec(&header).map_err(|source| {
        Error::new(ErrorKind::Format, "header", "can't be written as JSON").with_source(source)
    })?;
    while bytes.len() % 8 != 0 {
        bytes.push(b' ');
    }
    if bytes.len() > MAX_HEADER {
        return Err(Error::limit(
            "header",
            format!("takes {} bytes, {MAX_HEADER} are the most", bytes.len()),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, values: &[f64]) -> OutTensor {
        OutTensor::f32(name.to_owned(), vec![values.len()], values.iter().copied()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_by_the_safetensors_crate() {
        let half = OutTensor {
            name: "a.weight".into(),
            ty: ScalarType::F16,
            shape: vec![1, 3],
            data: Data::File(2..8, ScalarType::F16),
        };
        let widened = OutTensor { name: "b".into(), ty: ScalarType::F32, ..half.clone() };
        let tensors = [half, tensor("a.bias", &[0.5, -2.0]), widened];
        let file = [9, 9, 0x00, 0x3c, 0x00, 0x40, 0x00, 0xc0, 9];
        let metadata = [("z", "1".to_owned()), ("a", "{\"x\": 2}".to_owned())];
        let mut bytes = Vec::new();
        write_to(&mut bytes, &file, &metadata, &tensors).unwrap();
        assert_eq!(bytes.len(), written_len(&metadata, &tensors).unwrap());

        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("a.weight").unwrap().data(), &file[2..8]);
        assert_eq!(read.tensor("a.weight").unwrap().shape(), [1, 3]);
        assert_eq!(
            read.tensor("a.bias").unwrap().data(),
            [0.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()
        );
        let widened: Vec<u8> = [1f32, 2.0, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read.tensor("b").unwrap().data(), widened);
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["a"], "{\"x\": 2}");
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let tensors = [tensor("x", &[1.0]), tensor("x", &[2.0])];
        let error = write_to(&mut Vec::new(), &[], &[], &tensors).unwrap_err();
        assert_eq!(error.to_string(), "x: tensor is there twice");
    }

    #[test]
    fn values_beyond_f32_are_refused() {
        let error = OutTensor::f32("x.bias".into(), vec![2], [0.0, 1e300]).unwrap_err();
        assert_eq!(error.to_string(), "x.bias: element 1 becomes inf in 32 bits");
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("ferroyolo-write-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("m.safetensors");
        let error = write_atomically(&path, |_| Err(Error::tensor("x", "is bad"))).unwrap_err();
        assert!(error.to_string().ends_with("m.safetensors: x: is bad"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        write_atomically(&path, |out| out.write_all(b"ok").map_err(|e| Error::io("", e))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ok");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
