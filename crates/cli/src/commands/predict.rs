//! `ferroyolo predict`: pictures in, boxes out, in the order of the sources.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread;

use ferroyolo::{Head, Image, Model, PredictOptions, Results, Session};

use super::input_size;
use crate::args::Predict;
use crate::error::{Error, Outcome, Result};
use crate::input::pipeline::{Picture, Pipeline, decode};
use crate::input::sources;
use crate::model::{self, head_name};
use crate::output::json::{JsonSink, is_stdout};
use crate::output::report::Report;
use crate::output::save::Saver;

/// More decoding threads than this are never waited for.
const MAX_DECODERS: usize = 4;

/// Runs the network over all sources.
pub fn run(args: &Predict) -> Result<Outcome> {
    let loaded = model::load(&args.model, args.quiet)?;
    let options = options(args, &loaded.model)?;
    let sources = sources::find(&args.source);
    let saver = Saver::new(args, &sources.directories)?;
    let json = args.json.as_deref().map(|target| {
        let inputs = sources.files.iter().map(PathBuf::as_path).chain(loaded.path.as_deref());
        JsonSink::open(target, inputs)
    });
    let json = json.transpose()?;
    let json_on_terminal = args.json.as_deref().is_some_and(is_stdout) && io::stdout().is_terminal();
    let show_progress = !args.quiet && !json_on_terminal;
    let mut report = Report::new(args, sources.total, show_progress, json, saver);

    // One batch is decoded while another is in the network.
    let ahead = args.batch.max(2);
    let n_cpus = thread::available_parallelism().map_or(1, usize::from);
    let n_decoders = (n_cpus / 2).clamp(1, MAX_DECODERS);
    let mut pictures = Pipeline::start(sources.items, ahead, n_decoders, decode)?;
    let mut session = loaded.model.session();
    loop {
        let batch: Vec<_> = pictures.by_ref().take(args.batch).collect();
        if batch.is_empty() {
            break;
        }
        predict_batch(&mut session, &options, batch, &mut report)?;
    }
    report.finish();
    Ok(if report.n_failures() > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

fn options(args: &Predict, model: &Model) -> Result<PredictOptions> {
    let n_classes = model.n_classes();
    if let Some(class) = args.classes.iter().flatten().find(|&&class| class >= n_classes) {
        let last = n_classes.saturating_sub(1);
        return Err(Error::Usage(format!("--classes {class}: this model has the classes 0 to {last}")));
    }
    if args.head != Head::Auto && !model.heads().contains(&args.head) {
        let names: Vec<_> = model.heads().iter().map(|&head| head_name(head)).collect();
        let asked = head_name(args.head);
        return Err(Error::Usage(format!("--head {asked}: this model has {}", names.join(", "))));
    }
    Ok(PredictOptions {
        imgsz: Some(input_size(args.imgsz, model)),
        conf: args.conf,
        iou: args.iou,
        max_det: args.max_det,
        classes: args.classes.clone(),
        agnostic_nms: args.agnostic_nms,
        rect: !args.no_rect,
        head: args.head,
        multi_label: args.multi_label,
    })
}

/// Takes the readable pictures of `batch` through the network at once and reports all of them in order.
fn predict_batch(
    session: &mut Session,
    options: &PredictOptions,
    batch: Vec<Picture>,
    report: &mut Report,
) -> Result<()> {
    let images: Vec<&Image> = batch.iter().filter_map(|picture| picture.image.as_ref().ok()).collect();
    let mut results = predict_each(session, options, &images).into_iter();
    for Picture { path, image } in &batch {
        match image {
            Err(error) => report.failure(path, error)?,
            Ok(image) => match results.next() {
                Some(Ok(found)) => report.picture(path, image, &found.with_path(path))?,
                Some(Err(error)) => report.failure(path, &Error::at(path, error))?,
                None => report.failure(path, &without_result(path))?,
            },
        }
    }
    Ok(())
}

/// One outcome for each image: if the batch as a whole fails, each image is tried alone.
fn predict_each(
    session: &mut Session,
    options: &PredictOptions,
    images: &[&Image],
) -> Vec<ferroyolo::Result<Results>> {
    match session.predict(images, options) {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(error) if images.len() == 1 => vec![Err(error)],
        Err(_) => images.iter().flat_map(|&image| predict_each(session, options, &[image])).collect(),
    }
}

fn without_result(path: &Path) -> Error {
    Error::failed(format!("{}: the network gave no result", path.display()))
}
