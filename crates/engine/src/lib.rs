//! YOLO inference, from a trained checkpoint to boxes on a picture.
//!
//! A [`Model`] is a trained network: immutable, shared, cheap to clone, usable from any number of threads. A
//! [`Session`] is one thread's working memory. [`Image`]s go in, [`Results`] come out:
//!
//! ```no_run
//! use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
//!
//! let model = Model::open("yolo11n.safetensors", &ModelOptions::default())?;
//! let image = Image::open("bus.jpg")?;
//! let results = model.predict(&image, &PredictOptions::default())?;
//! for (xyxy, conf) in results.boxes.xyxy().iter().zip(results.boxes.conf()) {
//!     println!("{xyxy:?} {conf}");
//! }
//! results.plot(&image).save("bus-annotated.jpg")?;
//! # Ok::<(), ferroyolo::Error>(())
//! ```
//!
//! Model files are safetensors that carry their network's description; the crate `ferroyolo-tools` and the command
//! `ferroyolo convert` make them from PyTorch checkpoints.

// `backend::gpu::trust` is the one exception.
#![deny(unsafe_code)]

mod backend;
pub mod error;
mod graph;
pub mod image;
mod memo;
mod model;
mod modules;
mod network;
mod ops;
mod profile;
pub mod results;
mod session;
mod tasks;
mod tensor;
#[cfg(test)]
mod testing;
mod weights;

#[cfg(feature = "gpu")]
pub use backend::gpu::{Adapter, AdapterKind, MatrixShape, Traffic, adapters, automatic};
pub use backend::{Device, Precision, Tuning};
pub use error::{Error, ErrorKind, Result};
pub use ferroyolo_kernels::Isa;
pub use image::Image;
pub use model::{Head, Model, ModelOptions};
pub use network::StepInfo;
pub use profile::{Profile, ProfileRow};
pub use results::{Results, Task};
pub use session::{Outputs, PredictOptions, Session};
pub use tensor::{Tensor, TensorView};
