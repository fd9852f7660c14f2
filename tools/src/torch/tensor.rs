//! Tensors as views on the storages of the archive.

use std::borrow::Cow;
use std::ops::Range;

use super::ScalarType;
use crate::credit::MAX_NAME;
use crate::error::{Error, Result, printable};
use crate::pickle::Pickle;
use crate::pickle::allow::Kind;
use crate::pickle::value::{Id, Node};
use crate::zip::Archive;

/// Dimensions, at most. Convolution kernels have four.
const MAX_RANK: usize = 8;

/// Dimensions that are read so that a message can tell how many there are.
const MAX_LISTED: usize = 64;

/// The archive as a set of storages.
#[derive(Clone, Copy)]
pub(crate) struct Storages<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) archive: &'a Archive,
    /// Folder of the archive, such as `yolo11n`.
    pub(crate) prefix: &'a str,
}

/// A tensor: element type, shape, and where its elements lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    pub(crate) ty: ScalarType,
    pub(crate) shape: Vec<usize>,
    strides: Vec<usize>,
    /// The storage's bytes from the first element on.
    bytes: Range<usize>,
}

impl TensorRef {
    /// Reads the tensor that `id` would be rebuilt as; `None` if it is not a tensor at all.
    ///
    /// Errors with `ErrorKind::Tensor` if its shape does not fit its storage, without touching memory for it.
    pub(crate) fn read(pickle: &Pickle, storages: &Storages<'_>, id: Id) -> Option<Result<Self>> {
        let args = rebuild_args(pickle, id, Kind::RebuildTensor).or_else(|| {
            let parameter = rebuild_args(pickle, id, Kind::RebuildParameter)?;
            rebuild_args(pickle, *parameter.first()?, Kind::RebuildTensor)
        })?;
        Some(read_args(pickle, storages, args))
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size as it would be stored contiguously.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_elements() * self.ty.size()
    }

    /// Where the elements lie in the file if they lie in row-major order without gaps.
    pub(crate) fn contiguous(&self) -> Option<Range<usize>> {
        let mut expected = 1;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if n != 1 && stride != expected {
                return None;
            }
            expected *= n;
        }
        Some(self.bytes.start..self.bytes.start + self.n_bytes())
    }

    /// The elements in row-major order, gathered if they do not lie so.
    pub(crate) fn bytes<'a>(&self, file: &'a [u8]) -> Cow<'a, [u8]> {
        if let Some(range) = self.contiguous() {
            return Cow::Borrowed(&file[range]);
        }
        let (size, storage) = (self.ty.size(), &file[self.bytes.clone()]);
        let mut out = Vec::with_capacity(self.n_bytes());
        let mut index = vec![0; self.shape.len()];
        for _ in 0..self.n_elements() {
            let element: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            out.extend_from_slice(&storage[element * size..][..size]);
            for (i, &n) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        Cow::Owned(out)
    }

    /// What the tensor takes beside its elements.
    pub(crate) fn n_own_bytes(&self) -> usize {
        size_of::<(String, Self)>() + 2 * self.shape.len() * size_of::<usize>()
    }

    /// The elements as `f64`, in row-major order.
    pub(crate) fn values(&self, file: &[u8]) -> Vec<f64> {
        self.ty.values(&self.bytes(file)).collect()
    }
}

fn rebuild_args(pickle: &Pickle, id: Id, kind: Kind) -> Option<&[Id]> {
    match *pickle.node(id) {
        Node::Object { global, args, .. } if pickle.kind(global) == kind => pickle.sequence(args),
        _ => None,
    }
}

fn read_args(pickle: &Pickle, storages: &Storages<'_>, args: &[Id]) -> Result<TensorRef> {
    let malformed = || Error::tensor("", "arguments that would rebuild the tensor are malformed");
    let &[storage, offset, shape, strides, ..] = args else { return Err(malformed()) };
    let (ty, storage) = storage_bytes(pickle, storages, storage)?;
    let offset = size(pickle, offset).ok_or_else(malformed)?;
    let sizes = |id| {
        // A longer list is one that no tensor has, so it isn't copied.
        let items = pickle.sequence(id).filter(|items| items.len() <= MAX_LISTED)?;
        items.iter().map(|&id| size(pickle, id)).collect::<Option<Vec<_>>>()
    };
    let (shape, strides) = (sizes(shape).ok_or_else(malformed)?, sizes(strides).ok_or_else(malformed)?);
    if shape.len() != strides.len() || shape.len() > MAX_RANK {
        return Err(Error::tensor(
            "",
            format!("shape of {} and strides of {} dimensions", shape.len(), strides.len()),
        ));
    }
    let n_stored = storage.len() / ty.size();
    let fits = || {
        let n = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
        let mut last = offset;
        for (&n, &stride) in shape.iter().zip(&strides) {
            last = last.checked_add(n.saturating_sub(1).checked_mul(stride)?)?;
        }
        // Views that repeat elements would let a small file declare a large tensor.
        Some(n <= n_stored && (n == 0 || last < n_stored) && offset <= n_stored)
    };
    if fits() != Some(true) {
        let message = format!(
            "shape {shape:?} with strides {strides:?} does not fit its storage of {n_stored} elements"
        );
        return Err(Error::tensor("", message));
    }
    Ok(TensorRef { ty, shape, strides, bytes: storage.start + offset * ty.size()..storage.end })
}

fn size(pickle: &Pickle, id: Id) -> Option<usize> {
    match *pickle.node(id) {
        Node::Int(value) => usize::try_from(value).ok(),
        _ => None,
    }
}

/// Element type and place of the storage that a persistent id names.
fn storage_bytes(pickle: &Pickle, storages: &Storages<'_>, id: Id) -> Result<(ScalarType, Range<usize>)> {
    let malformed = || Error::tensor("", "the tensor's storage is malformed");
    let &Node::Storage(tuple) = pickle.node(id) else { return Err(malformed()) };
    let Some(&[_, class, key, _, n]) = pickle.sequence(tuple) else { return Err(malformed()) };
    let Node::Global(global) = *pickle.node(class) else { return Err(malformed()) };
    let Kind::Storage(ty) = pickle.kind(global) else { return Err(malformed()) };
    if pickle.str_len(key).is_none_or(|len| len > MAX_NAME) {
        return Err(malformed());
    }
    let (Some(key), Some(n)) = (pickle.str(key), size(pickle, n)) else { return Err(malformed()) };
    let entry = format!("{}/data/{}", storages.prefix, printable(key));
    let Some(range) = storages.archive.find(storages.bytes, &entry) else {
        return Err(Error::tensor(entry, "the archive has no such storage"));
    };
    if n.checked_mul(ty.size()) != Some(range.len()) {
        let message = format!(
            "storage declares {n} elements of type {}, the entry has {} bytes",
            ty.name(),
            range.len()
        );
        return Err(Error::tensor(entry, message));
    }
    Ok((ty, range))
}
