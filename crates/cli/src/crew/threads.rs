//! Threads of this process that share a model.

use std::error::Error as StdError;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ferroyolo::{Image, Model, PredictOptions, Results};
use ferroyolo_concurrency::engine::Predictor;
use ferroyolo_concurrency::{AppError, JobError, TaskQueue, Ticket};

use super::{Crew, Policy, Predicted};
use crate::error::{Error, Result};
use crate::input::pipeline::{Decode, Label, Picture, decode, describe};

/// Threads with a queue before them.
pub struct ThreadCrew {
    queue: TaskQueue<Vec<Picture<Image>>, Vec<Predicted>>,
}

impl ThreadCrew {
    /// Starts `n_workers` threads that call `model` under `policy`.
    pub fn start(model: &Model, policy: Policy, n_workers: usize, options: &PredictOptions) -> Result<Self> {
        let n_sessions = NonZeroUsize::new(n_workers).unwrap_or(NonZeroUsize::MIN);
        let predictor = Arc::new(Predictor::new(model, policy, n_sessions));
        let queue = TaskQueue::builder().name("predict").capacity(n_workers).workers(n_workers);
        let options = options.clone();
        let queue = queue.start(move |_| {
            let (predictor, options) = (Arc::clone(&predictor), options.clone());
            Ok::<_, AppError>(move |batch| Ok::<_, AppError>(predict_batch(&predictor, &options, batch)))
        });
        Ok(Self { queue: queue.map_err(|error| Error::named("can't start the workers", error))? })
    }
}

impl Crew for ThreadCrew {
    type Source = Image;
    type Pending = (Vec<Label>, std::result::Result<Ticket<Vec<Predicted>>, JobError>);

    const DECODE: Decode<Image> = decode;

    fn submit(&self, batch: Vec<Picture<Image>>) -> Self::Pending {
        let labels = batch.iter().map(|picture| picture.label.clone()).collect();
        (labels, self.queue.submit(batch).map_err(|_| JobError::Closed))
    }

    fn finish(&self, (labels, ticket): Self::Pending) -> Vec<Predicted> {
        match ticket.and_then(Ticket::wait) {
            Ok(predicted) => predicted,
            Err(error) => {
                let failed = |label: Label| {
                    let results = Err(Error::at(&label.path, error.to_string()));
                    Predicted { label, image: None, results }
                };
                labels.into_iter().map(failed).collect()
            }
        }
    }
}

/// Takes the readable pictures of `batch` through the network at once.
fn predict_batch(
    predictor: &Predictor,
    options: &PredictOptions,
    batch: Vec<Picture<Image>>,
) -> Vec<Predicted> {
    let images: Vec<&Image> = batch.iter().filter_map(|picture| picture.image.as_ref().ok()).collect();
    let mut all_results = predict_each(predictor, options, &images).into_iter();
    let mut finish = |Picture { label, image }| match image {
        Err(error) => Predicted { label, image: None, results: Err(error) },
        Ok(image) => {
            let results = match all_results.next() {
                Some(results) => results.map_err(|error| Error::at(&label.path, error)),
                None => Err(without_result(&label.path)),
            };
            let results = results.map(|results| results.with_path(&label.path));
            Predicted { label, image: Some(image), results }
        }
    };
    batch.into_iter().map(&mut finish).collect()
}

/// One outcome for each image: if the batch as a whole fails, each image is tried alone.
fn predict_each(predictor: &Predictor, options: &PredictOptions, images: &[&Image]) -> Vec<Result<Results>> {
    if images.is_empty() {
        return Vec::new();
    }
    let error = match catch_unwind(AssertUnwindSafe(|| predictor.predict(images, options))) {
        Ok(Ok(results)) => return results.into_iter().map(Ok).collect(),
        Ok(Err(error)) => Error::from(Box::<dyn StdError + Send + Sync>::from(error)),
        // The predictor does not use the session again.
        Err(panic) => Error::failed(describe(&*panic)),
    };
    match images {
        [_] => vec![Err(error)],
        _ => images.iter().flat_map(|&image| predict_each(predictor, options, &[image])).collect(),
    }
}

fn without_result(path: &Path) -> Error {
    Error::failed(format!("{}: the network gave no result", path.display()))
}
