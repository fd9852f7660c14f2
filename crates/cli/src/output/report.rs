//! What `predict` tells about each picture, and about all of them at the end.

use std::sync::Arc;
use std::time::Instant;

use ferroyolo::{Image, Results};
use serde::Serialize;

use super::console::{self, Progress, printable};
use super::json::{JsonSink, print_line};
use super::save::Saver;
use crate::args::Predict;
use crate::error::{Error, Result};
use crate::fetch::url::{hide_passwords, without_password};
use crate::input::pipeline::Label;
use crate::input::video::{Place, Video};

/// Tells results in the order in which they are given to it.
pub struct Report {
    lines: bool,
    quiet: bool,
    json: Option<JsonSink>,
    saver: Option<Saver>,
    progress: Progress,
    total: Option<usize>,
    /// Sources that were seen, a video once.
    n_seen: usize,
    /// The video of the last frame, as long as nothing else has come.
    video: Option<Arc<Video>>,
    n_done: usize,
    n_failures: usize,
    /// Milliseconds for preprocessing, inference and postprocessing of all pictures.
    speed_ms: [f64; 3],
    start: Instant,
}

/// Stands in for the results of a picture that can't be had.
#[derive(Serialize)]
struct Failure<'a> {
    path: &'a str,
    error: &'a str,
}

impl Report {
    /// Tells what `args` ask for; `total` is the number of sources to come, if it is known.
    pub fn new(
        args: &Predict,
        total: Option<usize>,
        progress: Progress,
        json: Option<JsonSink>,
        saver: Option<Saver>,
    ) -> Self {
        let to_stdout = matches!(json, Some(JsonSink::Stdout));
        Self {
            lines: !args.quiet && !to_stdout,
            quiet: args.quiet,
            json,
            saver,
            progress,
            total,
            n_seen: 0,
            video: None,
            n_done: 0,
            n_failures: 0,
            speed_ms: [0.0; 3],
            start: Instant::now(),
        }
    }

    /// Whether pictures have to come with their pixels.
    pub fn wants_images(&self) -> bool {
        self.saver.is_some()
    }

    /// Counts what `label` names, unless it is of the video that is counted already.
    fn count(&mut self, label: &Label) {
        let video = label.place.as_ref().map(|place| Arc::clone(&place.video));
        let is_same = match (&self.video, &video) {
            (Some(last), Some(video)) => Arc::ptr_eq(last, video),
            _ => false,
        };
        if !is_same {
            self.n_seen += 1;
            self.video = video;
        }
    }

    /// Tells what was found in a picture, and saves what is to be saved of it.
    pub fn picture(&mut self, label: &Label, image: Option<&Image>, results: &Results) -> Result<()> {
        if let Some(Err(error)) = self.saver.as_ref().map(|saver| saver.refuse_replaced(label)) {
            return self.failure(label, &error);
        }
        let path = &label.path;
        self.count(label);
        self.n_done += 1;
        let speed = &results.speed;
        for (sum, ms) in
            self.speed_ms.iter_mut().zip([speed.preprocess_ms, speed.inference_ms, speed.postprocess_ms])
        {
            *sum += ms;
        }
        if self.lines {
            let total = self.total.map_or_else(|| "?".into(), |n| n.to_string());
            let [h, w] = results.input_shape;
            let kind = if label.place.is_some() { "video" } else { "image" };
            let frame = label.place.as_ref().map(frame_of).unwrap_or_default();
            let line = format!(
                "{kind} {}/{total} {frame}{}: {h}x{w} {}, {:.1}ms",
                self.n_seen,
                printable(path.display()),
                printable(results.verbose()),
                speed.inference_ms
            );
            self.progress.aside(|| print_line(&line))?;
        }
        if let Some(json) = &mut self.json {
            let mut object = results.to_json();
            if let (Some(place), Some(object)) = (&label.place, object.as_object_mut()) {
                object.shift_insert(1, "frame".into(), place.number.into());
                object.shift_insert(2, "time_s".into(), ((place.time_s() * 1e6).round() / 1e6).into());
            }
            self.progress.aside(|| json.write(&object))?;
        }
        if let Some(saver) = &mut self.saver {
            let ended = saver.turn_to(label);
            let saved = match image {
                Some(image) => saver.save(label, image, results),
                None => Err(Error::failed(format!("{}: not saved, its pixels are gone", path.display()))),
            };
            for error in [ended, saved].into_iter().filter_map(Result::err) {
                self.n_failures += 1;
                self.progress.aside(|| console::error(&error));
            }
        }
        self.progress.step();
        Ok(())
    }

    /// Tells why there is nothing about a picture.
    pub fn failure(&mut self, label: &Label, error: &Error) -> Result<()> {
        self.count(label);
        self.n_failures += 1;
        self.progress.aside(|| console::error(error));
        if let Some(json) = &mut self.json {
            // It may be a URL that was not taken for one.
            let path = without_password(&label.path.to_string_lossy());
            let chain = hide_passwords(&error.chain(), &[]);
            let message =
                chain.strip_prefix(&*path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&chain);
            self.progress.aside(|| json.write(&Failure { path: &path, error: message }))?;
        }
        self.progress.step();
        Ok(())
    }

    /// Ends what is being saved, and tells the speed, and where files were saved.
    pub fn finish(&mut self) {
        if let Some(Err(error)) = self.saver.as_mut().map(Saver::finish) {
            self.n_failures += 1;
            self.progress.aside(|| console::error(&error));
        }
        if self.quiet {
            return;
        }
        let seconds = self.start.elapsed().as_secs_f64();
        if self.n_done > 0 {
            let n = self.n_done as f64;
            let [preprocess, inference, postprocess] = self.speed_ms.map(|ms| ms / n);
            let line = format!(
                "speed: {preprocess:.1}ms preprocess, {inference:.1}ms inference, {postprocess:.1}ms postprocess \
                 per image, {:.1} images/s",
                n / seconds.max(f64::MIN_POSITIVE)
            );
            self.progress.aside(|| console::notice(&line));
        }
        if let Some(saved) = self.saver.as_ref().and_then(Saver::told) {
            self.progress.aside(|| console::notice(&saved));
        }
    }

    /// How many pictures were predicted.
    pub fn n_done(&self) -> usize {
        self.n_done
    }

    /// How many pictures could not be read, predicted or saved.
    pub fn n_failures(&self) -> usize {
        self.n_failures
    }
}

/// `(frame 12/300) `, or without the number of frames where that is not known.
fn frame_of(place: &Place) -> String {
    match place.video.n_frames {
        // An estimate may be too low.
        Some(n_frames) => format!("(frame {}/{}) ", place.number, n_frames.max(place.number)),
        None => format!("(frame {}) ", place.number),
    }
}
