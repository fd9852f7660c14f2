//! Worker processes, and what they are started with.

use std::time::Duration;

use ferroyolo::{Image, PredictOptions, Results};
use ferroyolo_concurrency::JobError;
use ferroyolo_concurrency::engine::{self, PredictTicket, ProcessPredictor};
use ferroyolo_concurrency::process::{ProcessPool, WorkerCommand};
use image::codecs::bmp::BmpEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use super::{Crew, Predicted, Staffing, batch_failed};
use crate::args::{ModelArgs, model_args};
use crate::error::{Error, Result};
use crate::input::pipeline::{Decode, Item, Picture, decode, keep};
use crate::output::console;

/// How long one attempt may take for each picture of its batch. Far more than any network needs, far less than for ever.
const DEADLINE: Duration = Duration::from_secs(300);

/// How long a worker may take to load the model: several may convert a large checkpoint on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes that a message may have. Maps and masks of the largest pictures fit; memory grows only as bytes arrive.
const MAX_MESSAGE: usize = 1 << 30;

/// Processes with a queue before them.
pub struct ProcessCrew {
    predictor: ProcessPredictor,
    options: PredictOptions,
    wants_images: bool,
}

impl ProcessCrew {
    /// Starts processes of this program, each of which loads the model that `args` ask for.
    ///
    /// With `wants_images` the pictures in which something was predicted are decoded here as well: a file that crashes a
    /// decoder has crashed a worker before.
    pub fn start(
        args: &ModelArgs,
        staffing: Staffing,
        options: &PredictOptions,
        wants_images: bool,
    ) -> Result<Self> {
        let command = WorkerCommand::current_exe().map_err(|error| Error::named("this program", error))?;
        let command = command.arg("worker").args(model_args(args, staffing.threads));
        let pool = ProcessPool::builder(command)
            .name("predict")
            .workers(staffing.n_workers)
            .capacity(staffing.n_workers)
            .deadline(DEADLINE.saturating_mul(u32::try_from(staffing.batch).unwrap_or(u32::MAX)))
            .start_timeout(START_TIMEOUT)
            .max_frame(MAX_MESSAGE)
            .start()
            .map_err(|error| Error::named("can't start the workers", error))?;
        Ok(Self { predictor: ProcessPredictor::new(pool), options: options.clone(), wants_images })
    }

    /// The processes, for their figures.
    pub fn pool(&self) -> &ProcessPool {
        self.predictor.pool()
    }

    /// Takes an encoded picture to a worker and back.
    pub fn call(&self, encoded: &[u8]) -> Result<()> {
        let picture = [engine::Picture::Encoded(encoded.to_vec())];
        let results = self.wait(&picture, self.send(&picture, &self.options));
        results.into_iter().try_for_each(|results| results.map(drop))
    }

    fn send(&self, pictures: &[engine::Picture], options: &PredictOptions) -> Result<PredictTicket> {
        self.predictor.submit(pictures, options).map_err(|error| Error::failed(error.to_string()))
    }

    /// What became of a job, with the reason why there are no workers, if that is it.
    fn failed(&self, error: &JobError) -> Error {
        match (error, self.pool().last_failure()) {
            (JobError::CircuitOpen, Some(why)) => Error::failed(format!("{error}; the last one: {why}")),
            _ => Error::failed(error.to_string()),
        }
    }

    /// One outcome for each picture: if the batch as a whole fails, each picture is sent alone.
    fn wait(&self, pictures: &[engine::Picture], ticket: Result<PredictTicket>) -> Vec<Result<Results>> {
        let outcome = ticket.and_then(|ticket| ticket.wait().map_err(|error| self.failed(&error)));
        match outcome {
            Ok(results) => {
                let told = |results: std::result::Result<_, engine::PictureError>| {
                    results.map_err(|error| Error::failed(error.to_string()))
                };
                results.into_iter().map(told).collect()
            }
            Err(error) if pictures.len() == 1 => vec![Err(error)],
            Err(error) => {
                console::warning(&batch_failed(pictures.len(), &error));
                each_alone(pictures, &self.options, |picture, options| {
                    let picture = std::slice::from_ref(picture);
                    let results = self.wait(picture, self.send(picture, options)).pop();
                    results.unwrap_or_else(without_result)
                })
            }
        }
    }
}

/// One outcome for each picture of a batch that failed; `predict` takes one of them through the network.
///
/// Each is padded as it is in a batch of all that can be predicted. What sizes they have is known only then, so that a
/// picture may have to go twice.
fn each_alone<P>(
    pictures: &[P],
    options: &PredictOptions,
    predict: impl Fn(&P, &PredictOptions) -> Result<Results>,
) -> Vec<Result<Results>> {
    let mut outcomes: Vec<_> = pictures.iter().map(|picture| predict(picture, options)).collect();
    let as_together = options.for_one_of(outcomes.iter().flatten().map(|results| results.orig_shape));
    if as_together.rect != options.rect {
        let could = pictures.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_ok());
        could.for_each(|(picture, outcome)| *outcome = predict(picture, &as_together));
    }
    outcomes
}

fn without_result() -> Result<Results> {
    Err(Error::failed("the worker gave no result"))
}

/// A batch on its way to a process.
pub struct Pending {
    batch: Vec<Picture<Item>>,
    pictures: Vec<engine::Picture>,
    ticket: Option<Result<PredictTicket>>,
}

impl Crew for ProcessCrew {
    type Source = Item;
    type Pending = Pending;

    const DECODE: Decode<Item> = keep;

    fn submit(&self, mut batch: Vec<Picture<Item>>) -> Pending {
        let mut pictures = Vec::new();
        for picture in &mut batch {
            let to_send = match &picture.image {
                Ok(item) => to_send(item),
                Err(_) => continue,
            };
            match to_send {
                Ok(to_send) => pictures.push(to_send),
                Err(error) => picture.image = Err(Error::at(&picture.label.path, error)),
            }
        }
        let ticket = (!pictures.is_empty()).then(|| self.send(&pictures, &self.options));
        Pending { batch, pictures, ticket }
    }

    fn finish(&self, Pending { batch, pictures, ticket }: Pending) -> Vec<Predicted> {
        let mut all_results = ticket.map_or_else(Vec::new, |ticket| self.wait(&pictures, ticket)).into_iter();
        let mut finish = |Picture { label, image: item }| {
            let found = item.and_then(|item| {
                let results = all_results
                    .next()
                    .unwrap_or_else(without_result)
                    .map_err(|error| Error::at(&label.path, error))?;
                let image = self.wants_images.then(|| decode(item)).transpose()?;
                Ok((image, results.with_path(&label.path)))
            });
            match found {
                Ok((image, results)) => Predicted { label, image, results: Ok(results) },
                Err(error) => Predicted { label, image: None, results: Err(error) },
            }
        };
        batch.into_iter().map(&mut finish).collect()
    }
}

/// A picture in the form in which it goes to a worker; frames as BMP, which keeps them as they are.
fn to_send(item: &Item) -> Result<engine::Picture> {
    match item {
        Item::File(path) => Ok(engine::Picture::File(path.clone())),
        Item::Memory(_, bytes) => Ok(engine::Picture::Encoded(bytes.to_vec())),
        Item::Fetched(_, bytes) => Ok(engine::Picture::Encoded(bytes.clone())),
        Item::Frame(frame) => bmp(&frame.image).map(engine::Picture::Encoded),
        Item::Url(_) | Item::Broken(..) | Item::Cut(..) => Err(Error::failed("was not fetched")),
    }
}

fn bmp(image: &Image) -> Result<Vec<u8>> {
    let side = |side: usize| u32::try_from(side).map_err(|_| Error::failed("the frame is too large"));
    let (width, height) = (side(image.width())?, side(image.height())?);
    let mut bytes = Vec::new();
    BmpEncoder::new(&mut bytes)
        .write_image(image.pixels(), width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::named("the frame", error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ferroyolo::Task;

    use super::*;

    /// How pictures of these sizes are tried alone, and which of them can be predicted in the end; one without a size
    /// never can.
    fn tried(sizes: &[Option<[usize; 2]>], rect: bool) -> (Vec<(usize, bool)>, Vec<bool>) {
        let calls = RefCell::new(Vec::new());
        let pictures: Vec<usize> = (0..sizes.len()).collect();
        let options = PredictOptions { rect, ..PredictOptions::default() };
        let outcomes = each_alone(&pictures, &options, |&picture, options| {
            calls.borrow_mut().push((picture, options.rect));
            let results = |size| Results::new(Task::Detect, ["thing".to_owned()].into(), size);
            sizes[picture].map(results).ok_or_else(|| Error::failed("crashed"))
        });
        (calls.into_inner(), outcomes.iter().map(Result::is_ok).collect())
    }

    #[test]
    fn what_is_tried_alone_is_padded_as_in_the_batch() {
        let [wide, high] = [Some([2, 4]), Some([4, 2])];
        let all = vec![true, true];
        assert_eq!(tried(&[wide, wide], true), (vec![(0, true), (1, true)], all.clone()));
        let twice = vec![(0, true), (1, true), (0, false), (1, false)];
        assert_eq!(tried(&[wide, high], true), (twice, all.clone()));
        assert_eq!(tried(&[wide, high], false), (vec![(0, false), (1, false)], all));
        // What crashes a worker is not tried more often, and its size is nobody's concern.
        let calls = vec![(0, true), (1, true), (2, true), (0, false), (2, false)];
        assert_eq!(tried(&[wide, None, high], true), (calls, vec![true, false, true]));
        assert_eq!(tried(&[wide, None], true), (vec![(0, true), (1, true)], vec![true, false]));
    }

    #[test]
    fn frames_reach_workers_as_they_are() {
        let pixels = (0..3 * 7 * 5).map(|n| (n * 37 % 251) as u8).collect();
        let image = Image::from_rgb8(7, 5, pixels).unwrap();
        assert!(Image::decode(&bmp(&image).unwrap()).unwrap() == image);
    }
}
