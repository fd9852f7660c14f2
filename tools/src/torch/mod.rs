//! What PyTorch puts into a checkpoint: storages, tensors and modules.

mod module;
mod scalar;
mod tensor;

pub(crate) use module::{Modules, TreeModule};
pub(crate) use scalar::ScalarType;
pub(crate) use tensor::{Storages, TensorRef};
