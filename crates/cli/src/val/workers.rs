//! Threads over pictures: each has a session of its own, and takes the next picture that nobody has taken.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use ferroyolo::image::LetterboxScratch;
use ferroyolo::results::Speed;
use ferroyolo::{Image, Model, PredictOptions, Session};

use super::coco;
use super::fit::{Fit, Fitted, named};
use super::judge::{Score, judge};
use super::truth::{Truth, Truths};
use crate::error::{Error, Result};

/// What the threads share.
pub struct Work<'a> {
    /// The model, which takes one thread for a run.
    pub model: &'a Model,
    /// How to predict.
    pub options: PredictOptions,
    /// How to fit pictures to the network.
    pub fit: Fit,
    /// Size of the network's input for each picture.
    pub inputs: &'a [[usize; 2]],
    /// The pictures, and what is true of them.
    pub truths: &'a Truths,
    /// COCO's numbers of the pictures, if what is found is to be saved.
    pub image_ids: Option<Vec<u64>>,
}

/// What came of a picture.
pub struct Outcome {
    /// Index of the picture.
    pub idx: usize,
    /// What the picture adds to the metrics.
    pub score: Result<Score>,
    /// What was found in it, if that is to be saved: entries of COCO's list as JSON.
    pub entries: Vec<String>,
    /// How long it took.
    pub speed: Speed,
}

/// Works through all pictures on `n_threads` threads, and gives `each` the outcomes as they come.
///
/// Errors if `each` does; the threads then end with their pictures.
pub fn run(work: &Work<'_>, n_threads: usize, mut each: impl FnMut(Outcome) -> Result<()>) -> Result<()> {
    let next = AtomicUsize::new(0);
    let n_pictures = work.truths.pictures.len();
    thread::scope(|scope| {
        let (sender, outcomes) = channel();
        for idx in 0..n_threads.clamp(1, n_pictures.max(1)) {
            let (sender, next) = (sender.clone(), &next);
            let worker = move || {
                let mut session = work.model.session();
                let mut scratch = LetterboxScratch::default();
                loop {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    if idx >= n_pictures {
                        return;
                    }
                    let looked =
                        catch_unwind(AssertUnwindSafe(|| look(work, idx, &mut session, &mut scratch)));
                    let outcome = looked.unwrap_or_else(|panic| {
                        // What a panic left half done is not used again.
                        session = work.model.session();
                        let error = named(&work.truths.pictures[idx], Error::failed(describe(&*panic)));
                        Outcome { idx, score: Err(error), entries: Vec::new(), speed: Speed::default() }
                    });
                    if sender.send(outcome).is_err() {
                        return;
                    }
                }
            };
            let started = thread::Builder::new().name(format!("val-{idx}")).spawn_scoped(scope, worker);
            started.map_err(|error| Error::named("can't start a thread", error))?;
        }
        drop(sender);
        take(outcomes, &mut each)
    })
}

/// The receiver ends with this, so that threads stop early if `each` fails.
fn take(outcomes: Receiver<Outcome>, each: &mut impl FnMut(Outcome) -> Result<()>) -> Result<()> {
    outcomes.into_iter().try_for_each(each)
}

fn look(work: &Work<'_>, idx: usize, session: &mut Session, scratch: &mut LetterboxScratch) -> Outcome {
    let mut outcome =
        Outcome { idx, score: Ok(Score::Class(0, Vec::new())), entries: Vec::new(), speed: Speed::default() };
    let path = &work.truths.pictures[idx];
    let looked = look_at(work, path, session, scratch, &mut outcome);
    outcome.score = looked.map_err(|error| named(path, error));
    outcome
}

fn look_at(
    work: &Work<'_>,
    path: &Path,
    session: &mut Session,
    scratch: &mut LetterboxScratch,
    outcome: &mut Outcome,
) -> Result<Score> {
    let idx = outcome.idx;
    let truth = work.truths.of(idx)?;
    let image = Image::open(path)?;
    let start = Instant::now();
    // Classifiers crop their pictures themselves.
    let (fitted, imgsz) = match truth {
        Truth::Class(_) => (Fitted::untouched(image), work.fit.imgsz),
        _ => (work.fit.apply(&image, work.inputs[idx], scratch)?, work.inputs[idx]),
    };
    let fitting_ms = start.elapsed().as_secs_f64() * 1e3;
    let options = PredictOptions { imgsz: Some(imgsz), ..work.options.clone() };
    let results = session.predict_whole(&[&fitted.image], &options)?;
    let results = results.first().ok_or_else(|| Error::failed("the network gave no result"))?;
    let mut score = judge(results, &fitted, &truth, work.truths.names.len())?;
    if let Score::Objects(objects) = &mut score {
        // Masks of all pictures together would fill the memory.
        let found = std::mem::take(&mut objects.found);
        if let Some(ids) = &work.image_ids {
            let entry = |detection| coco::entry(ids[idx], path, detection, &fitted).to_string();
            outcome.entries = found.iter().map(entry).collect();
        }
    }
    outcome.speed = Speed { preprocess_ms: results.speed.preprocess_ms + fitting_ms, ..results.speed };
    Ok(score)
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let message =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", message.unwrap_or("no message"))
}
