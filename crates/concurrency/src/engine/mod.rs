//! The wrappers, filled with ferroyolo's [`Session`]s.
//!
//! [`Predictor`] takes pictures from any number of threads under one of four [`Policy`]s; [`ProcessPredictor`] does
//! the same in worker processes. All give the same results to the bit; they differ in speed, memory and in what a
//! crash takes down:
//!
//! | policy | at the same time | memory for each further worker | a panic or crash costs |
//! |---|---|---|---|
//! | [`Policy::Shared`] | every caller | one arena | that call |
//! | [`Policy::Locked`] | one caller | nothing | that call; the session is replaced |
//! | [`Policy::PerThread`] | every calling thread | one arena | that call; the session is replaced |
//! | [`Policy::Pool`] | as many as there are sessions | one arena | that call; the session is replaced |
//! | [`ProcessPredictor`] | as many as there are workers | weights, arena and a process | one worker's job, which is tried again |
//!
//! An *arena* is a session's working memory, for example 15 MB for YOLO11n at 640 x 640; weights are shared by all
//! sessions of a [`Model`].

mod predictor;
mod process;

use std::convert::Infallible;

use ferroyolo::{Model, Session};

use crate::Factory;

pub use predictor::{Policy, PredictError, Predictor};
pub use process::{Picture, PictureError, PredictTicket, ProcessPredictor, SubmitError, serve};

/// Makes sessions of one model: the factory for a [`crate::Pool`], [`crate::PerThread`] or [`crate::TaskQueue`].
///
/// The sessions share the model's weights; each costs only its arena, which it takes at its first run.
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
/// use ferroyolo_concurrency::{Pool, engine::Sessions};
///
/// let model = Model::open("yolo11n.safetensors", &ModelOptions::default())?;
/// let sessions = Pool::new(Sessions::of(&model), NonZeroUsize::new(4).unwrap());
/// let image = Image::open("bus.jpg")?;
/// let results = sessions.get()?.predict(&[&image], &PredictOptions::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sessions(Model);

impl Sessions {
    /// Sessions of `model`.
    #[must_use]
    pub fn of(model: &Model) -> Sessions {
        Sessions(model.clone())
    }
}

impl Factory for Sessions {
    type Instance = Session;
    type Error = Infallible;

    fn make(&self) -> Result<Session, Infallible> {
        Ok(self.0.session())
    }
}
