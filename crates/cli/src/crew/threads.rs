//! Threads of this process that share a model.

use std::error::Error as StdError;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ferroyolo::{Image, Model, PredictOptions, Results};
use ferroyolo_concurrency::engine::Predictor;
use ferroyolo_concurrency::{AppError, JobError, TaskQueue, Ticket};

use super::{Crew, Policy, Predicted, batch_failed};
use crate::error::{Error, Result};
use crate::input::pipeline::{Decode, Label, Picture, decode, describe};
use crate::output::console;

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
    let predict = |images: &[&Image], options: &PredictOptions| predictor.predict(images, options);
    let mut all_results = predict_each(&predict, options, &images).into_iter();
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

/// One outcome for each image: if the batch as a whole fails, that is told, and each image is tried alone, padded as it
/// was in the batch.
fn predict_each<P, E>(predict: &P, options: &PredictOptions, images: &[&Image]) -> Vec<Result<Results>>
where
    P: Fn(&[&Image], &PredictOptions) -> std::result::Result<Vec<Results>, E>,
    E: StdError + Send + Sync + 'static,
{
    if images.is_empty() {
        return Vec::new();
    }
    let error = match catch_unwind(AssertUnwindSafe(|| predict(images, options))) {
        Ok(Ok(results)) => return results.into_iter().map(Ok).collect(),
        Ok(Err(error)) => Error::from(Box::<dyn StdError + Send + Sync>::from(error)),
        // The predictor does not use the session again.
        Err(panic) => Error::failed(describe(&*panic)),
    };
    match images {
        [_] => vec![Err(error)],
        _ => {
            console::warning(&batch_failed(images.len(), &error));
            let options = options.for_one_of(images.iter().map(|image| image.shape()));
            images.iter().flat_map(|&image| predict_each(predict, &options, &[image])).collect()
        }
    }
}

fn without_result(path: &Path) -> Error {
    Error::failed(format!("{}: the network gave no result", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The sizes and paddings with which pictures of these sizes are tried where two at once are too many.
    fn tried(sizes: &[[usize; 2]]) -> Vec<(usize, bool)> {
        let image = |&[w, h]: &[usize; 2]| Image::from_rgb8(w, h, vec![0; 3 * w * h]).expect("a picture");
        let images: Vec<Image> = sizes.iter().map(image).collect();
        let calls = RefCell::new(Vec::new());
        let refuse = |images: &[&Image], options: &PredictOptions| {
            calls.borrow_mut().push((images.len(), options.rect));
            Err(std::io::Error::from(std::io::ErrorKind::OutOfMemory))
        };
        let images: Vec<&Image> = images.iter().collect();
        let outcomes = predict_each(&refuse, &PredictOptions::default(), &images);
        assert!(outcomes.len() == sizes.len() && outcomes.iter().all(Result::is_err));
        calls.into_inner()
    }

    #[test]
    fn what_is_tried_alone_is_padded_as_in_the_batch() {
        assert_eq!(tried(&[]), []);
        assert_eq!(tried(&[[4, 2]]), [(1, true)]);
        assert_eq!(tried(&[[4, 2], [4, 2]]), [(2, true), (1, true), (1, true)]);
        assert_eq!(tried(&[[4, 2], [2, 4]]), [(2, true), (1, false), (1, false)]);
    }
}
