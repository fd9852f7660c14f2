//! `ferroyolo predict`: pictures in, boxes out, in the order of the sources.

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use ferroyolo::{Head, Model, PredictOptions, Task};
use ferroyolo_concurrency::process::signals::Shutdown;

use super::input_size;
use crate::args::Predict;
use crate::crew::{Crew, Predicted, ProcessCrew, Sharing, Staffing, ThreadCrew};
use crate::error::{Error, Outcome, Result};
use crate::fetch::{is_offline, patience};
use crate::input::pipeline::Pipeline;
use crate::input::sources::{self, Reading, Sources};
use crate::input::video::{Children, Tools};
use crate::model::{self, Loaded, head_name};
use crate::output::console::{self, Progress};
use crate::output::json::{JsonSink, is_stdout, refuse_other_than_json};
use crate::output::report::Report;
use crate::output::save::{Reads, Saver};

/// Most boxes for an image, unless `--max-det` says otherwise.
const DEFAULT_MAX_DET: usize = 300;

/// More decoding threads than this are never waited for.
const MAX_DECODERS: usize = 4;

/// Runs the network over all sources.
pub fn run(args: &Predict) -> Result<Outcome> {
    let staffing = Staffing::of(args.policy, args.workers, args.model.threads).with_batch(args.batch);
    let loaded = model::load(&args.model, staffing.threads, args.quiet)?;
    let options = options(args, &loaded.model)?;
    if !args.quiet {
        loaded.tell_processor(loaded.model.threads() * staffing.at_a_time());
    }
    // On each way out, nothing that was started for a video is left behind.
    let children = Ended(Children::default());
    let tools = Arc::new(Tools::new(children.0.clone(), patience()?));
    let reading = Reading {
        tools: Arc::clone(&tools),
        vid_stride: args.vid_stride as u64,
        is_offline: is_offline(args.model.offline),
    };
    let sources = sources::find(&args.source, loaded.model.task(), &reading);
    let mut report = report(args, &sources, &loaded, tools)?;
    // From here on the first Ctrl-C ends in order: what is on its way is finished and told.
    let shutdown = Shutdown::install().map_err(|error| Error::named("signals", error))?;
    let stop = || shutdown.requested().is_some();
    match staffing.sharing {
        Sharing::Threads(policy) => {
            let crew = ThreadCrew::start(&loaded.model, policy, staffing.n_workers, &options)?;
            predict(args, staffing, sources, &crew, &mut report, stop)?;
        }
        Sharing::Processes => {
            let model_args = loaded.args_for_others(&args.model);
            // Only the workers need it.
            drop(loaded);
            let crew = ProcessCrew::start(&model_args, staffing, &options, report.wants_images())?;
            predict(args, staffing, sources, &crew, &mut report, stop)?;
        }
    }
    report.finish();
    if let Some(request) = shutdown.requested() {
        console::warning(&format!(
            "stopped by a signal: {} image(s) done, the rest not begun",
            report.n_done()
        ));
        return Ok(Outcome::Stopped(request.exit_code()));
    }
    Ok(if report.n_failures() > 0 { Outcome::SomeFailed } else { Outcome::Done })
}

/// Ends the children when it goes.
struct Ended(Children);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn report(args: &Predict, sources: &Sources, loaded: &Loaded, tools: Arc<Tools>) -> Result<Report> {
    let reads = Reads { sources, model: loaded.path.as_deref(), task: loaded.model.task() };
    let mut saver = Saver::new(args, &reads, tools)?;
    let json = args.json.as_deref().map(|target| {
        if sources.total.is_none() {
            refuse_other_than_json(target)?;
        }
        let inputs = sources.files.iter().map(PathBuf::as_path).chain(loaded.path.as_deref());
        JsonSink::open(target, inputs)
    });
    let json = json.transpose()?;
    if let (Some(saver), Some(target)) =
        (&mut saver, args.json.as_deref().filter(|target| !is_stdout(target)))
    {
        saver.keep_json(target);
    }
    let json_on_terminal = args.json.as_deref().is_some_and(is_stdout) && io::stdout().is_terminal();
    let show_progress = !args.quiet && !json_on_terminal;
    // How many frames there will be is not known.
    let expected = sources.total.filter(|_| !sources.has_video);
    Ok(Report::new(args, sources.total, Progress::new(expected, show_progress), json, saver))
}

fn options(args: &Predict, model: &Model) -> Result<PredictOptions> {
    let task = model.task();
    let has_boxes = matches!(task, Task::Detect | Task::Segment | Task::Pose);
    let is_map = matches!(task, Task::Semantic | Task::Depth);
    let finds_objects = has_boxes || task == Task::Obb;
    for (flag, is_given, is_possible) in [
        ("--classes", args.classes.is_some(), finds_objects),
        ("--max-det", args.max_det.is_some(), finds_objects),
        ("--agnostic-nms", args.agnostic_nms, finds_objects),
        ("--multi-label", args.multi_label, finds_objects),
        ("--save-txt", args.save_txt, !is_map),
        ("--save-crop", args.save_crop, has_boxes),
        ("--save-masks", args.save_masks, task == Task::Segment),
        ("--retina-masks", args.retina_masks, task == Task::Segment),
    ] {
        if is_given && !is_possible {
            return Err(Error::Usage(format!("{flag}: not with a model for {task}")));
        }
    }
    if args.agnostic_nms && args.head == Head::OneToOne {
        return Err(Error::Usage("--agnostic-nms: not with --head one2one, which suppresses nothing".into()));
    }
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
        max_det: args.max_det.unwrap_or(DEFAULT_MAX_DET),
        classes: args.classes.clone(),
        agnostic_nms: args.agnostic_nms,
        rect: !args.no_rect,
        head: args.head,
        multi_label: args.multi_label,
        retina_masks: args.retina_masks,
    })
}

/// Hands the pictures to `crew`, batch by batch, while another thread reports what comes back, in order.
///
/// So pictures are decoded, predicted and saved at the same time, and never more than a few are held.
fn predict<C: Crew>(
    args: &Predict,
    staffing: Staffing,
    sources: Sources,
    crew: &C,
    report: &mut Report,
    stop: impl Fn() -> bool,
) -> Result<()> {
    let n_cpus = thread::available_parallelism().map_or(1, usize::from);
    let n_decoders = (n_cpus / 2).clamp(1, MAX_DECODERS);
    // One batch for each worker is decoded while another is in the network.
    let ahead = (args.batch * staffing.n_workers).max(2);
    let mut pictures = Pipeline::start(sources.items, ahead, n_decoders, C::DECODE)?;
    thread::scope(|scope| {
        let (sender, pending) = sync_channel(staffing.n_workers);
        let reporter = scope.spawn(move || report_all(crew, &pending, report));
        loop {
            let mut batch = Vec::new();
            while batch.len() < args.batch
                && let Some(picture) = pictures.next(|| stop() || reporter.is_finished())
            {
                batch.push(picture);
            }
            // Nobody takes results any more if reporting has failed.
            if batch.is_empty() || sender.send(crew.submit(batch)).is_err() {
                break;
            }
        }
        drop(sender);
        reporter.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn report_all<C: Crew>(crew: &C, pending: &Receiver<C::Pending>, report: &mut Report) -> Result<()> {
    for batch in pending {
        for Predicted { label, image, results } in crew.finish(batch) {
            match results {
                Ok(results) => report.picture(&label, image.as_ref(), &results)?,
                Err(error) => report.failure(&label, &error)?,
            }
        }
    }
    Ok(())
}
