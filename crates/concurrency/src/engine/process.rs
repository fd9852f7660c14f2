//! Pictures through worker processes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferroyolo::{Image, Model, PredictOptions, Results};
use serde::{Deserialize, Serialize};

use crate::process::ProcessPool;
use crate::process::worker::{ServeError, Worker};
use crate::{DrainReport, JobError, Rejected, Ticket};

/// A picture for a worker process, which decodes it: a file that crashes a decoder crashes a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// The file at this path, which the worker reads; it has the same working directory as this process.
    File(PathBuf),
    /// An encoded picture, for example the bytes of a JPEG file.
    Encoded(Vec<u8>),
}

/// A model in worker processes, which any number of threads may call.
///
/// Each worker has the weights and a session of its own. It loads the model by itself, so nothing of this process is
/// shared, and a crash of whatever kind, in a decoder or in the network, costs one attempt at one job.
///
/// ```no_run
/// use ferroyolo::{Model, ModelOptions, PredictOptions};
/// use ferroyolo_concurrency::engine::{Picture, ProcessPredictor, serve};
/// use ferroyolo_concurrency::process::{ProcessPool, WorkerCommand, worker};
///
/// if worker::is_worker() {
///     let options = ModelOptions { threads: Some(1), ..ModelOptions::default() };
///     return Ok(serve(|| Model::open("yolo11n.safetensors", &options))?);
/// }
/// let pool = ProcessPool::builder(WorkerCommand::current_exe()?).workers(4).start()?;
/// let predictor = ProcessPredictor::new(pool);
/// let picture = Picture::File("bus.jpg".into());
/// for results in predictor.submit(&[picture], &PredictOptions::default())?.wait()? {
///     println!("{}", results?.verbose());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProcessPredictor {
    pool: ProcessPool,
}

impl ProcessPredictor {
    /// Sends pictures to the workers of `pool`, whose program has to call [`serve`].
    #[must_use]
    pub fn new(pool: ProcessPool) -> ProcessPredictor {
        ProcessPredictor { pool }
    }

    /// The pool, for its figures and for closing it.
    #[must_use]
    pub fn pool(&self) -> &ProcessPool {
        &self.pool
    }

    /// Waits for a place in the queue and hands in `pictures`, which go through the network at once.
    ///
    /// # Errors
    ///
    /// If the pool is closed, or a path is not Unicode where paths are no bytes.
    pub fn submit(
        &self,
        pictures: &[Picture],
        options: &PredictOptions,
    ) -> Result<PredictTicket, SubmitError> {
        let job = encode_request(pictures, options)?;
        let ticket = self.pool.submit(job).map_err(SubmitError::Rejected)?;
        Ok(PredictTicket { ticket, n_pictures: pictures.len() })
    }

    /// As [`ProcessPredictor::submit`], but errors at once if the queue is full.
    ///
    /// # Errors
    ///
    /// As [`ProcessPredictor::submit`], and with [`Rejected::Full`] in [`SubmitError::Rejected`].
    pub fn try_submit(
        &self,
        pictures: &[Picture],
        options: &PredictOptions,
    ) -> Result<PredictTicket, SubmitError> {
        let job = encode_request(pictures, options)?;
        let ticket = self.pool.try_submit(job).map_err(SubmitError::Rejected)?;
        Ok(PredictTicket { ticket, n_pictures: pictures.len() })
    }

    /// Takes no more pictures, and waits until those in the queue are done, at most for `timeout`.
    pub fn drain(&self, timeout: Duration) -> DrainReport {
        self.pool.drain(timeout)
    }
}

/// Pictures on their way.
#[derive(Debug)]
#[must_use = "the results come by the ticket"]
pub struct PredictTicket {
    ticket: Ticket<Vec<u8>>,
    n_pictures: usize,
}

impl PredictTicket {
    /// Waits for the results, one for each picture, in their order.
    ///
    /// # Errors
    ///
    /// [`JobError`] if the workers could not do the job; what is wrong with one picture is its own result.
    pub fn wait(self) -> Result<Vec<Result<Results, PictureError>>, JobError> {
        let reply = self.ticket.wait()?;
        let results: Vec<Result<Results, String>> = postcard::from_bytes(&reply)
            .map_err(|error| JobError::Protocol(format!("results that can't be read: {error}")))?;
        if results.len() != self.n_pictures {
            let (got, expected) = (results.len(), self.n_pictures);
            return Err(JobError::Protocol(format!("got {got} results, expected {expected}")));
        }
        Ok(results.into_iter().map(|results| results.map_err(PictureError)).collect())
    }
}

/// Why pictures were not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum SubmitError {
    /// The pool is closed, or its queue is full.
    Rejected(Rejected<Vec<u8>>),
    /// This path can't be sent.
    Path(PathBuf),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Rejected(rejected) => fmt::Display::fmt(rejected, f),
            SubmitError::Path(path) => write!(f, "{}: the path is not Unicode", path.display()),
        }
    }
}

impl std::error::Error for SubmitError {}

/// What was wrong with one picture, as the worker told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureError(String);

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PictureError {}

/// Runs jobs of a [`ProcessPredictor`] until its pool says to leave: what a worker's program calls.
///
/// The model is loaded after the pool's limits are set. It should use few threads: the workers share the CPUs.
///
/// # Errors
///
/// If no pool started this process, the model can't be loaded, or the channel fails.
pub fn serve<E: fmt::Display>(load: impl FnOnce() -> Result<Model, E>) -> Result<(), ServeError> {
    Worker::new().serve(|| {
        let mut session = load().map_err(|error| error.to_string())?.session();
        Ok(move |job: &[u8]| {
            let (pictures, options) = decode_request(job)?;
            let images: Vec<_> = pictures.iter().map(Source::decode).collect();
            let decoded: Vec<&Image> = images.iter().filter_map(|image| image.as_ref().ok()).collect();
            let mut predict = |images: &[&Image], options: &PredictOptions| session.predict(images, options);
            let mut found = predict_each(&mut predict, &decoded, &options).into_iter();
            let each = |image: &Result<Image, String>| match image {
                Ok(_) => found.next().unwrap_or_else(|| Err("the network gave no result".into())),
                Err(error) => Err(error.clone()),
            };
            let results: Vec<Result<Results, String>> = images.iter().map(each).collect();
            postcard::to_stdvec(&results).map_err(|error| format!("results can't be sent: {error}"))
        })
    })
}

/// One outcome for each of `images`: if all of them together fail, one may be to blame, and each gets a run of its own,
/// padded as in the batch.
fn predict_each<P>(
    predict: &mut P,
    images: &[&Image],
    options: &PredictOptions,
) -> Vec<Result<Results, String>>
where
    P: FnMut(&[&Image], &PredictOptions) -> ferroyolo::Result<Vec<Results>>,
{
    if images.is_empty() {
        return Vec::new();
    }
    match predict(images, options) {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(error) if images.len() == 1 => vec![Err(error.to_string())],
        Err(_) => {
            let options = options.for_one_of(images.iter().map(|image| image.shape()));
            images.iter().flat_map(|&image| predict_each(predict, &[image], &options)).collect()
        }
    }
}

/// What stands before the encoded pictures of a request, which follow one after the other.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    options: PredictOptions,
    pictures: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// The bytes of a path on Unix, Unicode elsewhere.
    Path(Vec<u8>),
    /// The length of an encoded picture.
    Encoded(usize),
}

/// A picture as the worker sees it.
#[derive(Debug, PartialEq)]
enum Source<'a> {
    File(PathBuf),
    Encoded(&'a [u8]),
}

impl Source<'_> {
    fn decode(&self) -> Result<Image, String> {
        match self {
            Source::File(path) => Image::open(path).map_err(|error| chain(&error)),
            Source::Encoded(bytes) => Image::decode(bytes).map_err(|error| chain(&error)),
        }
    }
}

/// An error and its causes: they don't travel, so their text has to.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The head's length in four bytes, the head, the encoded pictures.
fn encode_request(pictures: &[Picture], options: &PredictOptions) -> Result<Vec<u8>, SubmitError> {
    let entry = |picture: &Picture| match picture {
        Picture::File(path) => {
            path_bytes(path).map(Entry::Path).ok_or_else(|| SubmitError::Path(path.clone()))
        }
        Picture::Encoded(bytes) => Ok(Entry::Encoded(bytes.len())),
    };
    let entries = pictures.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let head = Head { options: options.clone(), pictures: entries };
    let head = postcard::to_stdvec(&head).expect("a vector takes whatever is written to it");
    let n_bytes: usize = pictures.iter().map(Picture::encoded).map(<[u8]>::len).sum();
    let mut request = Vec::with_capacity(4 + head.len() + n_bytes);
    let head_len = u32::try_from(head.len()).expect("paths are shorter than 4 GiB");
    request.extend_from_slice(&head_len.to_le_bytes());
    request.extend_from_slice(&head);
    pictures.iter().for_each(|picture| request.extend_from_slice(picture.encoded()));
    Ok(request)
}

fn decode_request(request: &[u8]) -> Result<(Vec<Source<'_>>, PredictOptions), String> {
    let cut = || "the request is cut short".to_owned();
    let (head_len, rest) = request.split_first_chunk::<4>().ok_or_else(cut)?;
    let (head, mut rest) = rest.split_at_checked(u32::from_le_bytes(*head_len) as usize).ok_or_else(cut)?;
    let head: Head =
        postcard::from_bytes(head).map_err(|error| format!("the request can't be read: {error}"))?;
    let source = |entry| match entry {
        Entry::Path(path) => Ok(Source::File(path_from_bytes(path)?)),
        Entry::Encoded(len) => {
            let (bytes, after) = rest.split_at_checked(len).ok_or_else(cut)?;
            rest = after;
            Ok(Source::Encoded(bytes))
        }
    };
    let sources = head.pictures.into_iter().map(source).collect::<Result<Vec<_>, String>>()?;
    if !rest.is_empty() {
        return Err(format!("the request has {} bytes too many", rest.len()));
    }
    Ok((sources, head.options))
}

impl Picture {
    fn encoded(&self) -> &[u8] {
        match self {
            Picture::File(_) => &[],
            Picture::Encoded(bytes) => bytes,
        }
    }
}

#[cfg(unix)]
fn path_bytes(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    Some(path.as_os_str().as_bytes().to_vec())
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Option<Vec<u8>> {
    path.to_str().map(|path| path.as_bytes().to_vec())
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
fn path_from_bytes(bytes: Vec<u8>) -> Result<PathBuf, String> {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: Vec<u8>) -> Result<PathBuf, String> {
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| "the path is not Unicode".into())
}

#[cfg(test)]
mod tests {
    use ferroyolo::{Error, Task};
    use proptest::prelude::*;

    use super::*;

    /// How pictures of these sizes are tried where a width of 7 is too much.
    fn tried(sizes: &[[usize; 2]]) -> (Vec<(usize, bool)>, Vec<bool>) {
        let image = |&[h, w]: &[usize; 2]| Image::from_rgb8(w, h, vec![0; 3 * h * w]).expect("a picture");
        let images: Vec<Image> = sizes.iter().map(image).collect();
        let mut calls = Vec::new();
        let mut predict = |images: &[&Image], options: &PredictOptions| {
            calls.push((images.len(), options.rect));
            if images.iter().any(|image| image.width() == 7) {
                return Err(Error::limit("gpu", "no memory"));
            }
            let results =
                |image: &&Image| Results::new(Task::Detect, ["thing".to_owned()].into(), image.shape());
            Ok(images.iter().map(results).collect())
        };
        let images: Vec<&Image> = images.iter().collect();
        let outcomes = predict_each(&mut predict, &images, &PredictOptions::default());
        (calls, outcomes.iter().map(Result::is_ok).collect())
    }

    #[test]
    fn what_is_tried_alone_is_padded_as_in_the_batch() {
        assert_eq!(tried(&[]), (vec![], vec![]));
        assert_eq!(tried(&[[4, 2], [2, 4]]), (vec![(2, true)], vec![true, true]));
        assert_eq!(tried(&[[4, 7]]), (vec![(1, true)], vec![false]));
        let calls = vec![(2, true), (1, true), (1, true)];
        assert_eq!(tried(&[[4, 7], [4, 7]]), (calls, vec![false, false]));
        let calls = vec![(3, true), (1, false), (1, false), (1, false)];
        assert_eq!(tried(&[[4, 2], [2, 7], [4, 2]]), (calls, vec![true, false, true]));
    }

    proptest! {
        #[test]
        fn requests_are_read_as_they_were_written(
            pictures in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<char>(), 0..9)
                        .prop_map(|path| Picture::File(path.into_iter().collect::<String>().into())),
                    prop::collection::vec(any::<u8>(), 0..40).prop_map(Picture::Encoded),
                ],
                0..5,
            ),
            conf in 0.0f32..1.0,
        ) {
            let options = PredictOptions { conf, ..PredictOptions::default() };
            let request = encode_request(&pictures, &options).unwrap();
            let (sources, read) = decode_request(&request).unwrap();
            prop_assert_eq!(read, options);
            let expected: Vec<_> = pictures.iter().map(|picture| match picture {
                Picture::File(path) => Source::File(path.clone()),
                Picture::Encoded(bytes) => Source::Encoded(bytes),
            }).collect();
            prop_assert_eq!(sources, expected);
            for len in 0..request.len() {
                prop_assert!(decode_request(&request[..len]).is_err());
            }
        }

        #[test]
        fn garbage_is_an_error_or_a_request(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((sources, _)) = decode_request(&bytes) {
                prop_assert!(sources.len() <= bytes.len());
            }
        }
    }
}
