//! `ferroyolo val`: how good a model is on a labelled data set.

pub mod args;
mod coco;
mod fit;
mod judge;
mod plots;
mod summary;
mod truth;
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use ferroyolo::results::Speed;
use ferroyolo::{Head, Model, PredictOptions, Task};
use serde_json::{Value, json};

use crate::commands::input_size;
use crate::error::{Error, Outcome, Result};
use crate::model::{self, head_name};
use crate::output::console::{self, Progress};
use crate::output::file::{refuse_to_overwrite, write_atomically};
use crate::output::json::{JsonSink, is_stdout, print_line};

use args::Val;
use fit::{Fit, shape_of};
use summary::{Gathered, Summary};
use truth::Truths;
use workers::Work;

/// Confidence from which on detections count; many unsure ones are part of a curve.
const CONF: f32 = 0.001;

/// The same for turned boxes, whose suppression is slower.
const CONF_OBB: f32 = 0.01;

/// Least border of inputs that pictures share, in strides.
const BORDER: f64 = 0.5;

/// Measures and prints.
pub fn run(args: &Val) -> Result<Outcome> {
    // Pictures are looked at side by side, which is faster than several threads for one.
    let n_threads =
        args.model.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let loaded = model::load(&args.model, Some(1), args.quiet)?;
    let options = options(args, &loaded.model)?;
    let truths = Truths::open(args, &loaded.model)?;
    check_outputs(args, &truths, loaded.path.as_deref())?;
    if !args.quiet {
        loaded.tell_processor(n_threads);
    }

    let imgsz = input_size(args.imgsz, &loaded.model);
    let fit = Fit {
        imgsz,
        stride: loaded.model.stride(),
        placement: loaded.model.placement(),
        pad_value: loaded.model.pad_value(),
        border: if loaded.model.task() == Task::Semantic { 0.0 } else { BORDER },
    };
    let inputs = inputs(args, &fit, &truths, loaded.model.task());
    let image_ids = args.save_json.is_some().then(|| coco::image_ids(&truths.pictures));
    let work = Work { model: &loaded.model, options, fit, inputs: &inputs, truths: &truths, image_ids };
    let (summary, found) = measure(args, &work, n_threads)?;

    let is_for_people = !args.json.as_deref().is_some_and(is_stdout);
    // A table of zeros would be taken for a result.
    if is_for_people && summary.n_pictures > 0 {
        print_line(&summary.table(&truths.names))?;
    }
    if !args.quiet {
        console::notice(&summary.told());
    }
    if let Some(target) = &args.json {
        let json = to_json(args, &loaded, imgsz, &summary, &truths.names);
        JsonSink::open(target, loaded.path.as_deref())?.write(&json)?;
    }
    if let Some(path) = &args.save_json {
        write_atomically(path, found.as_bytes())?;
    }
    if let Some(directory) = &args.save {
        fs::create_dir_all(directory).map_err(|error| Error::at(directory, error))?;
        let saved = plots::save(directory, &summary, &truths.names)?;
        if !args.quiet {
            console::notice(&format!("saved {} plot(s) in {}", saved.len(), directory.display()));
        }
    }
    if summary.n_pictures == 0 {
        return Err(Error::failed(format!("{}: no picture could be measured", args.data.display())));
    }
    Ok(if summary.n_failed > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

fn options(args: &Val, model: &Model) -> Result<PredictOptions> {
    if args.head != Head::Auto && !model.heads().contains(&args.head) {
        let names: Vec<_> = model.heads().iter().map(|&head| head_name(head)).collect();
        let asked = head_name(args.head);
        return Err(Error::Usage(format!("--head {asked}: this model has {}", names.join(", "))));
    }
    let conf = if model.task() == Task::Obb { CONF_OBB } else { CONF };
    Ok(PredictOptions {
        conf: args.conf.unwrap_or(conf),
        iou: args.iou,
        max_det: args.max_det,
        agnostic_nms: args.agnostic_nms,
        // Pictures come fitted already.
        rect: false,
        head: args.head,
        multi_label: true,
        ..PredictOptions::default()
    })
}

/// Errors before the work rather than after it.
fn check_outputs(args: &Val, truths: &Truths, model: Option<&Path>) -> Result<()> {
    let inputs = || truths.pictures.iter().map(PathBuf::as_path).chain([args.data.as_path()]).chain(model);
    if let Some(directory) = args.save.as_ref().filter(|directory| directory.exists() && !directory.is_dir())
    {
        return Err(Error::failed(format!("--save {}: is no folder", directory.display())));
    }
    for (flag, target) in [("--json", &args.json), ("--save-json", &args.save_json)] {
        let Some(target) = target else { continue };
        if !is_stdout(target) {
            refuse_to_overwrite(flag, target, inputs())?;
            let labels: Vec<PathBuf> = truths.files().collect();
            refuse_to_overwrite(flag, target, labels.iter().map(PathBuf::as_path))?;
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                return Err(Error::failed(format!("{flag} {}: no such folder", folder.display())));
            }
        } else if flag == "--save-json" {
            return Err(Error::Usage("--save-json -: expected the path of a file".into()));
        }
    }
    Ok(())
}

/// Size of the network's input for each picture.
fn inputs(args: &Val, fit: &Fit, truths: &Truths, task: Task) -> Vec<[usize; 2]> {
    if task == Task::Classify || args.no_rect {
        return vec![fit.imgsz; truths.pictures.len()];
    }
    let shapes: Vec<_> = truths.pictures.iter().map(|path| shape_of(path)).collect();
    fit.inputs(&shapes, args.batch, true)
}

/// Looks at all pictures; returns the metrics, and what `--save-json` writes.
fn measure(args: &Val, work: &Work<'_>, n_threads: usize) -> Result<(Summary, String)> {
    let n_pictures = work.truths.pictures.len();
    let progress = Progress::new(Some(n_pictures), !args.quiet);
    let mut speed = Speed::default();
    let mut n_failed = 0;
    // Taken in the order of the pictures, so that the result is the same however the threads ran; what comes too early
    // waits.
    let (mut next, mut waiting) = (0, BTreeMap::new());
    let mut gathered = Gathered::new(work.truths.names.len());
    let mut found = String::from("[");
    workers::run(work, n_threads, |outcome| {
        let score = match outcome.score {
            Ok(score) => {
                speed.preprocess_ms += outcome.speed.preprocess_ms;
                speed.inference_ms += outcome.speed.inference_ms;
                speed.postprocess_ms += outcome.speed.postprocess_ms;
                Some((score, outcome.entries))
            }
            Err(error) => {
                n_failed += 1;
                progress.aside(|| console::error(&error));
                None
            }
        };
        waiting.insert(outcome.idx, score);
        while let Some(score) = waiting.remove(&next) {
            next += 1;
            let Some((score, entries)) = score else { continue };
            gathered.add(&score);
            for entry in entries {
                found.push_str(if found.len() > 1 { ",\n " } else { "" });
                found.push_str(&entry);
            }
        }
        progress.step();
        Ok(())
    })?;
    found.push_str("]\n");
    let n_done = (n_pictures - n_failed).max(1) as f64;
    let speed = Speed {
        preprocess_ms: speed.preprocess_ms / n_done,
        inference_ms: speed.inference_ms / n_done,
        postprocess_ms: speed.postprocess_ms / n_done,
    };
    Ok((gathered.finish(work.model.task(), n_failed, speed), found))
}

fn to_json(
    args: &Val,
    loaded: &model::Loaded,
    imgsz: [usize; 2],
    summary: &Summary,
    names: &[String],
) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("model".into(), json!(loaded.name));
    object.insert("data".into(), json!(args.data.to_string_lossy()));
    object.insert("split".into(), json!(args.split.as_str()));
    object.insert("task".into(), json!(loaded.model.task().as_str()));
    object.insert("imgsz".into(), json!(imgsz));
    object.append(&mut summary.to_json(names));
    Value::Object(object)
}
