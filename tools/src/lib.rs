//! Reads PyTorch checkpoints without executing them and writes ferroyolo model files.
//!
//! A `.pt` file is a zip archive with a pickle in it, and a pickle is a program. [`Checkpoint`] reads both as inert
//! data: every global has to stand on an exact allow-list, nothing is imported or called, and whatever is malformed,
//! ambiguous or outsized is an error that names the thing. [`convert()`] turns what has been read into a safetensors
//! file with the module tree in its metadata (see `docs/model-format.md`), and [`inspect()`] tells what a file holds
//! and what loading it with Python would have called.
//!
//! ```no_run
//! # fn main() -> ferroyolo_tools::Result<()> {
//! use ferroyolo_tools::{Checkpoint, ConvertOptions, convert};
//!
//! let checkpoint = Checkpoint::open("yolo11n.pt".as_ref())?;
//! convert(&checkpoint, &ConvertOptions::default())?.write("yolo11n.safetensors".as_ref())?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod checkpoint;
mod convert;
mod credit;
pub mod document;
mod error;
mod fold;
mod inspect;
pub mod pickle;
#[cfg(test)]
mod testing;
mod torch;
mod write;
pub mod zip;

pub use checkpoint::Checkpoint;
pub use convert::{ConvertOptions, Converted, Dtype, Summary, convert};
pub use error::{Error, ErrorKind, Result};
pub use inspect::{ClassCount, EntryInfo, Inspection, TensorInfo, inspect};
