//! Decodes the next pictures while the network works on this one.
//!
//! A feeder thread walks the sources and hands each picture to a few decoding threads; the pictures come out in the
//! order of the sources. Only a few are held at a time, so a directory of any size takes the same memory. A panic in
//! a decoder is an error of that picture. What "decoded" means is the caller's: pixels, or only the bytes or the path
//! where another process decodes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ferroyolo::Image;

use super::video::{Frame, Place};
use crate::error::{Error, Result};
use crate::fetch::picture;
use crate::fetch::url::without_password;

/// One picture to decode, or the reason why there is none.
#[derive(Debug)]
pub enum Item {
    /// A file.
    File(PathBuf),
    /// An encoded picture in memory, and the name to show for it.
    Memory(&'static str, &'static [u8]),
    /// A picture to be fetched.
    Url(String),
    /// An encoded picture that was fetched, and what to call it.
    Fetched(String, Vec<u8>),
    /// A frame of a video.
    Frame(Frame),
    /// A source that led to no picture, and what is wrong with it.
    Broken(String, Error),
    /// The place at which a video broke off, and why.
    Cut(Place, Error),
}

/// A picture that came out of the pipeline.
#[derive(Debug)]
pub struct Picture<T> {
    /// What it is.
    pub label: Label,
    /// The decoded picture.
    pub image: Result<T>,
}

/// What a picture is called, and where it belongs.
#[derive(Clone, Debug, Default)]
pub struct Label {
    /// The path as given, the URL, or the name of a built-in picture.
    pub path: PathBuf,
    /// Of a frame, its place in the video.
    pub place: Option<Place>,
}

/// Turns an item into a picture.
pub type Decode<T> = fn(Item) -> Result<T>;

type Job<T> = (Item, SyncSender<Picture<T>>);

/// How often a wait for the next picture looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Decoded pictures, in the order of their items.
pub struct Pipeline<T> {
    slots: Receiver<Receiver<Picture<T>>>,
}

impl<T: Send + 'static> Pipeline<T> {
    /// Starts to decode `items`, at most `ahead` pictures before they are asked for.
    pub fn start(
        items: impl Iterator<Item = Item> + Send + 'static,
        ahead: usize,
        n_decoders: usize,
        decode: Decode<T>,
    ) -> Result<Self> {
        let ahead = ahead.max(1);
        let (slot_sender, slots) = sync_channel::<Receiver<Picture<T>>>(ahead);
        let (job_sender, jobs) = sync_channel::<Job<T>>(ahead);
        let jobs = Arc::new(Mutex::new(jobs));
        for idx in 0..n_decoders.max(1) {
            let jobs = Arc::clone(&jobs);
            spawn(format!("decode-{idx}"), move || run_decoder(&jobs, decode))?;
        }
        spawn("sources".into(), move || feed(items, &slot_sender, &job_sender))?;
        Ok(Self { slots })
    }

    /// The next picture; `None` at the end, or soon after `stop` begins to say so while the sources are slow.
    pub fn next(&mut self, stop: impl Fn() -> bool) -> Option<Picture<T>> {
        let slot = loop {
            if stop() {
                return None;
            }
            match self.slots.recv_timeout(LOOK_EVERY) {
                Ok(slot) => break slot,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        // A picture that is fetched can take long, too.
        loop {
            if stop() {
                return None;
            }
            match slot.recv_timeout(LOOK_EVERY) {
                Ok(picture) => return Some(picture),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let error = Error::failed("the decoding thread ended before the picture was done");
                    return Some(Picture { label: Label::default(), image: Err(error) });
                }
            }
        }
    }
}

/// Decodes an item: reads the file, fetches what is in the network, or takes the bytes in memory.
pub fn decode(item: Item) -> Result<Image> {
    match item {
        Item::File(path) => Image::open(&path).map_err(|error| Error::at(&path, error)),
        Item::Memory(name, bytes) => Image::decode(bytes).map_err(|error| Error::named(name, error)),
        Item::Fetched(name, bytes) => Image::decode(&bytes).map_err(|error| Error::named(&name, error)),
        Item::Frame(frame) => Ok(frame.image),
        Item::Url(_) => decode(keep(item)?),
        Item::Broken(_, error) | Item::Cut(_, error) => Err(error),
    }
}

/// Leaves the decoding to somebody else, and fetches only.
pub fn keep(item: Item) -> Result<Item> {
    match item {
        Item::Url(url) => {
            let name = without_password(&url);
            match picture::fetch(&url) {
                Ok(bytes) => Ok(Item::Fetched(name, bytes)),
                Err(error) => Err(Error::named(&name, error)),
            }
        }
        Item::Broken(_, error) | Item::Cut(_, error) => Err(error),
        item => Ok(item),
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name).spawn(work);
    // The threads are not joined: they end with their channels, and one that waits for stdin must not hold us up.
    spawned.map(drop).map_err(|error| Error::named("can't start a thread", error))
}

/// Hands items out, with a slot for each, until they end or nobody wants them any more.
fn feed<T>(
    mut items: impl Iterator<Item = Item>,
    slots: &SyncSender<Receiver<Picture<T>>>,
    jobs: &SyncSender<Job<T>>,
) {
    loop {
        let (item, last) = match catch_unwind(AssertUnwindSafe(|| items.next())) {
            Ok(Some(item)) => (item, false),
            Ok(None) => return,
            Err(panic) => (
                Item::Broken("sources".into(), Error::failed(format!("sources: {}", describe(&*panic)))),
                true,
            ),
        };
        let (sender, slot) = sync_channel(1);
        if slots.send(slot).is_err() || jobs.send((item, sender)).is_err() || last {
            return;
        }
    }
}

fn run_decoder<T>(jobs: &Mutex<Receiver<Job<T>>>, decode: Decode<T>) {
    loop {
        // Nothing can panic while the lock is held, so a poisoned lock is as good as a clean one.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((item, sender)) = job else { return };
        let picture = finish(item, decode);
        // A receiver that is gone no longer wants the picture.
        let _ = sender.send(picture);
    }
}

fn finish<T>(item: Item, decode: Decode<T>) -> Picture<T> {
    let label = item.label();
    let image = match item {
        Item::Broken(_, error) | Item::Cut(_, error) => Err(error),
        item => catch_unwind(AssertUnwindSafe(|| decode(item)))
            .unwrap_or_else(|panic| Err(Error::at(&label.path, describe(&*panic)))),
    };
    Picture { label, image }
}

impl Item {
    fn label(&self) -> Label {
        let place = match self {
            Item::Frame(Frame { place, .. }) | Item::Cut(place, _) => Some(place.clone()),
            _ => None,
        };
        let path = match self {
            Item::File(path) => path.clone(),
            Item::Memory(name, _) => PathBuf::from(name),
            Item::Url(url) => PathBuf::from(without_password(url)),
            Item::Fetched(name, _) | Item::Broken(name, _) => PathBuf::from(name),
            Item::Frame(Frame { place, .. }) | Item::Cut(place, _) => place.video.name.clone(),
        };
        Label { path, place }
    }
}

/// What a panic said.
pub fn describe(panic: &(dyn Any + Send)) -> String {
    let message =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", message.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Decodes `ok-N` to a picture N wide, panics at `panic`, fails at anything else.
    fn decode_name(item: Item) -> Result<Image> {
        let Item::File(path) = item else { return Err(Error::failed("not a file")) };
        let name = path.to_string_lossy();
        assert!(name != "panic", "asked to");
        let Some(width) = name.strip_prefix("ok-").and_then(|n| n.parse::<usize>().ok()) else {
            return Err(Error::failed(format!("{name}: bad")));
        };
        // Later pictures are done sooner, so that only the slots keep the order.
        thread::yield_now();
        Ok(Image::from_rgb8(width, 1, vec![0; width * 3])?)
    }

    fn all(mut pipeline: Pipeline<Image>) -> impl Iterator<Item = Picture<Image>> {
        std::iter::from_fn(move || pipeline.next(|| false))
    }

    fn files(names: &[&str]) -> Vec<Item> {
        names.iter().map(|name| Item::File(name.into())).collect()
    }

    #[test]
    fn order_is_that_of_the_sources() {
        let items: Vec<_> = (1..200).map(|n| Item::File(format!("ok-{n}").into())).collect();
        let pipeline = Pipeline::start(items.into_iter(), 4, 3, decode_name).unwrap();
        let widths: Vec<_> = all(pipeline).map(|picture| picture.image.unwrap().width()).collect();
        assert_eq!(widths, (1..200).collect::<Vec<_>>());
    }

    #[test]
    fn failures_and_panics_stay_with_their_picture() {
        let items = files(&["ok-1", "panic", "bad", "ok-2", "panic", "ok-3"]);
        let pipeline = Pipeline::start(items.into_iter(), 2, 1, decode_name).unwrap();
        let texts: Vec<_> = all(pipeline)
            .map(|picture| match picture.image {
                Ok(image) => image.width().to_string(),
                Err(error) => error.chain(),
            })
            .collect();
        assert_eq!(
            texts,
            ["1", "panic: panicked: asked to", "bad: bad", "2", "panic: panicked: asked to", "3"]
        );
    }

    #[test]
    fn a_panic_among_the_sources_is_told() {
        let items = (0..3).map(|n| {
            assert!(n < 2, "no more");
            Item::File(format!("ok-{}", n + 1).into())
        });
        let pictures: Vec<_> = all(Pipeline::start(items, 2, 2, decode_name).unwrap()).collect();
        assert_eq!(pictures.len(), 3);
        assert!(pictures[2].image.as_ref().unwrap_err().chain().contains("no more"));
    }

    #[test]
    fn only_a_few_are_decoded_ahead() {
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let items = (0..1000).map(|_| {
            TAKEN.fetch_add(1, Ordering::SeqCst);
            Item::File("ok-1".into())
        });
        let mut pipeline = Pipeline::start(items, 4, 2, decode_name).unwrap();
        for _ in 0..10 {
            pipeline.next(|| false).unwrap();
        }
        // Ten are out, four wait, and one may be in the feeder's hands.
        assert!(TAKEN.load(Ordering::SeqCst) <= 10 + 4 + 1 + 1);
    }

    #[test]
    fn a_wait_ends_when_nothing_more_is_wanted() {
        let (sender, source) = sync_channel::<Item>(1);
        let mut pipeline = Pipeline::start(source.into_iter(), 1, 1, decode_name).unwrap();
        let n_looks = std::cell::Cell::new(0);
        let stop = || {
            n_looks.set(n_looks.get() + 1);
            n_looks.get() > 2
        };
        assert!(pipeline.next(stop).is_none());
        // It was the wait that ended, not the source.
        sender.send(Item::File("ok-5".into())).unwrap();
        assert_eq!(pipeline.next(|| false).unwrap().image.unwrap().width(), 5);
    }

    #[test]
    fn dropping_the_pipeline_ends_its_threads() {
        let (sender, ended) = sync_channel::<()>(1);
        let items = (0..).map(move |n| {
            let _keep = &sender;
            Item::File(format!("ok-{}", n % 7 + 1).into())
        });
        drop(Pipeline::start(items, 1, 1, decode_name).unwrap());
        // The sender is dropped with the items, which ends this wait.
        assert!(ended.recv().is_err());
    }
}
