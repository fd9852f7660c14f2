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
        self.wait(&picture, self.send(&picture)).into_iter().try_for_each(|results| results.map(drop))
    }

    fn send(&self, pictures: &[engine::Picture]) -> Result<PredictTicket> {
        self.predictor.submit(pictures, &self.options).map_err(|error| Error::failed(error.to_string()))
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
                let alone = |picture| {
                    let picture = std::slice::from_ref(picture);
                    self.wait(picture, self.send(picture))
                };
                pictures.iter().flat_map(alone).collect()
            }
        }
    }
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
        let ticket = (!pictures.is_empty()).then(|| self.send(&pictures));
        Pending { batch, pictures, ticket }
    }

    fn finish(&self, Pending { batch, pictures, ticket }: Pending) -> Vec<Predicted> {
        let mut all_results = ticket.map_or_else(Vec::new, |ticket| self.wait(&pictures, ticket)).into_iter();
        let mut finish = |Picture { label, image: item }| {
            let found = item.and_then(|item| {
                let results = all_results
                    .next()
                    .unwrap_or_else(|| Err(Error::failed("the worker gave no result")))
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
    use super::*;

    #[test]
    fn frames_reach_workers_as_they_are() {
        let pixels = (0..3 * 7 * 5).map(|n| (n * 37 % 251) as u8).collect();
        let image = Image::from_rgb8(7, 5, pixels).unwrap();
        assert!(Image::decode(&bmp(&image).unwrap()).unwrap() == image);
    }
}
