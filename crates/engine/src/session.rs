//! Running a model: working memory, and the way from pictures to results.

#[cfg(feature = "gpu")]
mod gpu;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroyolo_kernels::{Activation, Arena, clear_halo, load_planar, store_planar};
use serde::{Deserialize, Serialize};

#[cfg(feature = "gpu")]
use self::gpu::RunningBatch;
#[cfg(feature = "gpu")]
use crate::backend::gpu::Traffic;
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::image::{Image, LetterboxScratch};
use crate::model::{Head, Inner};
use crate::modules::{Branches, Extra, NetworkHead};
use crate::network::{OnDevice, PlanKey, Planned};
use crate::profile::{Profile, ProfileRow};
use crate::results::{Results, Speed, Task};
use crate::tasks::detect::{Decoder, Filter, Scratch};
use crate::tasks::finish::{Extent, FinishScratch, Run, Source, Wanted};
use crate::tasks::fit::Fit;
use crate::tasks::map;
use crate::tasks::nms::NmsOptions;
use crate::tasks::segment::MaskSize;
use crate::tensor::{Tensor, TensorView};

/// What counts as a detection, and how pictures are fitted to the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictOptions {
    /// Input size `[height, width]` in pixels, at most [`PredictOptions::MAX_SIDE`]; the checkpoint's own if absent.
    pub imgsz: Option<[usize; 2]>,
    /// Scores have to be larger than this, 0 to 1.
    pub conf: f32,
    /// Of two boxes that overlap more than this (intersection over union, 0 to 1), the one with the lower score goes.
    pub iou: f32,
    /// Detections per picture at most.
    pub max_det: usize,
    /// Class indices to report; all if absent.
    pub classes: Option<Vec<usize>>,
    /// Let boxes of different classes suppress each other.
    pub agnostic_nms: bool,
    /// Pad the input only up to the next multiple of the stride, if all pictures of a batch have the same size.
    pub rect: bool,
    /// Which branch of the head to use.
    pub head: Head,
    /// Report every class of a box that passes `conf`, not only the best one, as COCO's evaluation does.
    pub multi_label: bool,
    /// Make masks of the picture's size, instead of that of the network's input. Only of networks that segment objects.
    pub retina_masks: bool,
}

impl PredictOptions {
    /// Largest side of the input in pixels.
    pub const MAX_SIDE: usize = 8192;
    /// Pictures that one batch may hold.
    pub const MAX_BATCH: usize = 4096;

    /// These options for one of several pictures of these shapes, `[height, width]`: it is padded as it would be in a
    /// batch of them.
    #[must_use]
    pub fn for_one_of(&self, shapes: impl IntoIterator<Item = [usize; 2]>) -> Self {
        let mut shapes = shapes.into_iter();
        let first = shapes.next();
        Self { rect: self.rect && shapes.all(|shape| Some(shape) == first), ..self.clone() }
    }
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            imgsz: None,
            conf: 0.25,
            iou: 0.7,
            max_det: 300,
            classes: None,
            agnostic_nms: false,
            rect: true,
            head: Head::Auto,
            multi_label: false,
            retina_masks: false,
        }
    }
}

/// Raw outputs of a network, valid until the session's next run.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    raw: &'a RawOutputs,
}

impl<'a> Outputs<'a> {
    /// What the network gives, by its task; absent if only another head was run.
    ///
    /// - detect: `[N, 4 + classes, anchors]`: center x, center y, width and height in pixels of the input, then the
    ///   scores
    /// - segment: the same, then the mask coefficients
    /// - pose: the same, then the keypoints: x and y in pixels of the input, and the visibility where there is one
    /// - obb: the same, then the angle in radians by which the box is turned around its center
    /// - classify: `[N, classes]`, shares that sum to one
    /// - semantic: `[N, classes, h, w]`, logits
    /// - depth: `[N, 1, h, w]`, metres
    #[must_use]
    pub fn output0(&self) -> Option<TensorView<'a>> {
        self.raw.output0.view()
    }

    /// `[N, boxes, 6 + extra]`: corners in pixels of the input (obb: center, width and height), score, class, then mask
    /// coefficients, keypoints or the angle as in [`Outputs::output0`]; rows by falling score. Only of a one-to-one
    /// head.
    #[must_use]
    pub fn one2one(&self) -> Option<TensorView<'a>> {
        self.raw.one2one.view()
    }

    /// `[N, prototypes, h, w]`: the maps that masks are mixed from. Only of networks that segment objects.
    #[must_use]
    pub fn proto(&self) -> Option<TensorView<'a>> {
        self.raw.proto.view()
    }
}

/// Everything of a session that is not shared.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    plan: Option<(PlanKey, Arc<Planned>)>,
    arena: Option<Arena>,
    device: OnDevice,
    raw: RawOutputs,
    letterbox: LetterboxScratch,
    finish: FinishScratch,
    queue: VecDeque<Batch>,
}

/// A batch of pictures on its way to results.
#[derive(Debug)]
enum Batch {
    Done(Result<Vec<Results>>),
    #[cfg(feature = "gpu")]
    Running(Box<RunningBatch>),
}

/// A batch of pictures before its run, and what is wanted of it.
#[derive(Debug)]
struct Prepared {
    fits: Vec<Fit>,
    image_hws: Vec<[usize; 2]>,
    planned: Arc<Planned>,
    options: PredictOptions,
    branches: Branches,
    extent: Extent,
    start: Instant,
}

#[derive(Debug, Default)]
struct RawOutputs {
    output0: RawOutput,
    one2one: RawOutput,
    proto: RawOutput,
}

/// An output tensor that keeps its memory from run to run. Without extents it was not computed.
#[derive(Debug, Default)]
struct RawOutput {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl RawOutput {
    fn view(&self) -> Option<TensorView<'_>> {
        (!self.shape.is_empty()).then_some(TensorView { shape: &self.shape, data: &self.data })
    }

    fn reset<S: AsRef<[usize]>>(&mut self, shape: Option<S>) {
        self.shape.clear();
        let len = shape.map_or(0, |shape| {
            self.shape.extend(shape.as_ref());
            shape.as_ref().iter().product()
        });
        self.data.resize(len, 0.0);
    }
}

/// Working memory for runs of one model, one at a time.
///
/// The memory fits the last input shape and is reused; a run on the same shape allocates no tensors. Sessions of one
/// model share its weights. A session may move between threads but serves one at a time, which `&mut self` says.
#[derive(Debug)]
pub struct Session {
    model: Arc<Inner>,
    state: SessionState,
}

impl Session {
    pub(crate) fn new(model: Arc<Inner>, state: SessionState) -> Self {
        Self { model, state }
    }

    pub(crate) fn into_state(self) -> SessionState {
        self.state
    }

    /// Bytes of the arena that holds all activations, of all of them on a GPU; zero before the first run.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        #[cfg(feature = "gpu")]
        if self.model.network.gpu().is_some() {
            return self.state.device.arena_bytes() as usize;
        }
        self.state.arena.as_ref().map_or(0, |arena| arena.len() * size_of::<f32>())
    }

    /// Bytes that the last finished run sent to the GPU and read from it; `None` on the CPU.
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn traffic(&self) -> Option<Traffic> {
        self.model.network.gpu().map(|_| self.state.device.traffic())
    }

    /// Dispatches to the GPU in one run of the last input shape; `None` on the CPU, and before the first run.
    #[must_use]
    pub fn dispatches(&self) -> Option<usize> {
        self.state.plan.as_ref()?.1.dispatches()
    }

    /// Runs the network, with all heads it has, on `images`: `[N, 3, H, W]`, RGB from 0 to 1.
    ///
    /// Errors with `ErrorKind::Shape` unless H and W are multiples of the coarsest stride, with `ErrorKind::Argument`
    /// if a value is not finite, with `ErrorKind::Limit` if the input is too large, and with `ErrorKind::Overflow` if a
    /// value of it or of a layer is too large for 16-bit floats where these are used.
    pub fn run(&mut self, images: &Tensor) -> Result<Outputs<'_>> {
        let has_one2one = self.model.network.head().has_one2one();
        self.run_branches(images, Branches { one2many: true, one2one: has_one2one })
    }

    /// As [`Session::run`], with one head only.
    ///
    /// Errors with `ErrorKind::Unsupported` if the checkpoint does not have that head.
    pub fn run_head(&mut self, images: &Tensor, head: Head) -> Result<Outputs<'_>> {
        let branches = self.branches(head)?;
        self.run_branches(images, branches)
    }

    /// Runs one head `n_runs` times on `[N, H, W]` grey pictures and returns the median times of its parts.
    ///
    /// For finding out where the time goes; the sum is above that of a plain run. Errors with `ErrorKind::Unsupported` on a
    /// GPU without time stamps.
    pub fn profile(&mut self, [n, h, w]: [usize; 3], n_runs: usize) -> Result<Profile> {
        #[cfg(feature = "gpu")]
        if self.model.network.gpu().is_some() {
            let image = Image::from_rgb8(w, h, vec![128; 3 * h * w])?;
            let options = PredictOptions { imgsz: Some([h, w]), rect: false, ..PredictOptions::default() };
            self.predict(&vec![&image; n], &options)?;
            return self.profile_last_run(n_runs);
        }
        let planned = self.prepare(([n, h, w], self.branches(Head::Auto)?))?;
        let plan = &planned.plan;
        let Self { model, state } = self;
        let arena = state.arena.as_mut().ok_or_else(no_arena)?;
        let mut times = vec![Vec::with_capacity(n_runs); plan.steps.len()];
        let mut runs = Vec::with_capacity(n_runs);
        for _ in 0..n_runs.max(1) {
            // Later buffers have taken the place of the picture.
            clear_halo(model.network.cpu().context(), arena, plan.picture);
            for image in 0..n {
                for row in arena.rows_mut(&plan.picture, image) {
                    row.fill(0.5);
                }
            }
            let start = Instant::now();
            let mut last = start;
            model.network.run_observed(plan, arena, |step, end| {
                times[step].push(end - last);
                last = end;
            })?;
            runs.push(last - start);
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let row = |(step, times)| {
            let step = model.network.describe(step);
            ProfileRow { name: step.op, steps: vec![step], time: median(times) }
        };
        Ok(Profile { rows: plan.steps.iter().zip(times).map(row).collect(), run: median(runs) })
    }

    /// Repeats `n_runs` times what the last run did on the GPU, and returns the median times of its dispatches by the
    /// device's own clock.
    ///
    /// Errors with `ErrorKind::Unsupported` on the CPU and on a GPU without time stamps, and with `ErrorKind::Argument` if
    /// there was no run.
    #[cfg(feature = "gpu")]
    pub fn profile_last_run(&mut self, n_runs: usize) -> Result<Profile> {
        let planned = self.state.plan.as_ref().map(|(_, planned)| planned);
        let planned = planned.ok_or_else(|| Error::argument("profile", "there was no run before it"))?;
        self.model.network.profile(planned, &self.state.device, n_runs)
    }

    fn run_branches(&mut self, images: &Tensor, branches: Branches) -> Result<Outputs<'_>> {
        let &[n, 3, h, w] = images.shape() else {
            return Err(Error::shape("images", format!("got {:?}, expected [N, 3, H, W]", images.shape())));
        };
        if let Some(at) = first_non_finite(images.data()) {
            return Err(Error::argument("images", format!("holds {} at element {at}", images.data()[at])));
        }
        let planned = self.prepare(([n, h, w], branches))?;
        let plan = &planned.plan;
        let Self { model, state } = self;
        let SessionState { arena, device, finish, raw, .. } = state;
        let arena = arena.as_mut().ok_or_else(no_arena)?;
        let context = model.network.cpu().context();
        context.threads.install(|| {
            clear_halo(context, arena, plan.picture);
            for (image, planes) in images.data().chunks_exact(3 * h * w).enumerate() {
                load_planar(context, arena, planes, 1.0, plan.picture, image);
            }
        });
        // Outside of the team, which must not wait while a GPU computes.
        model.network.run(&planned, arena, device)?;
        context.threads.install(|| decode_raw(model, plan, arena, n, &mut finish.decode, raw));
        Ok(Outputs { raw: &state.raw })
    }

    /// Finds what the network was trained for in a batch of pictures; one result per picture, in order.
    ///
    /// Pictures of different sizes are fitted to the full input size, those of one size to the smallest rectangle
    /// that holds them, if `options.rect` says so. Classifiers see the middle of a picture, depth networks the picture
    /// stretched to the input.
    ///
    /// Errors with `ErrorKind::Argument` if an option makes no sense for the network, and with `ErrorKind::Weights` if
    /// a network for whole pictures gives values that are not finite. Objects with such values are left out. On a GPU in
    /// 16-bit floats, errors with `ErrorKind::Overflow` if a value of any layer is too large for them.
    pub fn predict(&mut self, images: &[&Image], options: &PredictOptions) -> Result<Vec<Results>> {
        self.predict_to(images, options, Extent::Cut)
    }

    /// As [`Session::predict`], for those who measure a network: objects are told as the network has them.
    ///
    /// Boxes and keypoints may reach out of the picture, objects whose mask has no pixel stay, and masks come in the
    /// size of the network's prototypes too ([`Masks::coarse`](crate::results::Masks::coarse)).
    pub fn predict_whole(&mut self, images: &[&Image], options: &PredictOptions) -> Result<Vec<Results>> {
        self.predict_to(images, options, Extent::Whole)
    }

    fn predict_to(
        &mut self,
        images: &[&Image],
        options: &PredictOptions,
        extent: Extent,
    ) -> Result<Vec<Results>> {
        let batch = self.start(images, options, extent)?;
        self.end(batch)
    }

    /// Begins to find what the network was trained for in a batch of pictures; [`Session::dequeue`] gives the results.
    ///
    /// On a GPU, up to three batches are on their way at the same time: while the device computes one, the next one is
    /// sent and the results of the last one are made. More than that wait for the oldest, whose results are kept. On the
    /// CPU, the results are made right here.
    ///
    /// Errors as [`Session::predict`] does; then nothing was added. On a GPU some errors show up only with the results.
    pub fn enqueue(&mut self, images: &[&Image], options: &PredictOptions) -> Result<()> {
        #[cfg(feature = "gpu")]
        self.make_room();
        let batch = self.start(images, options, Extent::Cut)?;
        self.state.queue.push_back(batch);
        Ok(())
    }

    /// The results of the oldest batch of [`Session::enqueue`] that have not been taken; `None` if there is none.
    pub fn dequeue(&mut self) -> Option<Result<Vec<Results>>> {
        let batch = self.state.queue.pop_front()?;
        Some(self.end(batch))
    }

    /// Brings pictures into the network. The CPU also carries it out, a GPU has then just begun.
    fn start(&mut self, images: &[&Image], options: &PredictOptions, extent: Extent) -> Result<Batch> {
        if images.is_empty() {
            return Ok(Batch::Done(Ok(Vec::new())));
        }
        self.check(options)?;
        let branches = self.branches(options.head)?;
        let start = Instant::now();

        let imgsz = options.imgsz.unwrap_or(self.model.imgsz);
        if imgsz.iter().any(|&side| side > PredictOptions::MAX_SIDE) {
            return Err(self.wrong_size(imgsz));
        }
        let options = options.for_one_of(images.iter().map(|image| image.shape()));
        let fit = |image: &&Image| Fit::new(image.shape(), imgsz, options.rect, &self.model.fit);
        let fits = images.iter().map(fit).collect::<Result<Vec<_>>>()?;
        let [h, w] = fits[0].net_hw();
        let planned = self.plan(([images.len(), h, w], branches))?;
        let image_hws = images.iter().map(|image| image.shape()).collect();
        let prepared = Prepared { fits, image_hws, planned, options, branches, extent, start };
        #[cfg(feature = "gpu")]
        if self.model.network.gpu().is_some() {
            return self.start_on_gpu(images, prepared);
        }

        self.fit_to_arena(images, &prepared)?;
        let preprocessed = Instant::now();
        let Self { model, state } = self;
        let SessionState { arena, device, .. } = state;
        model.network.run(&prepared.planned, arena.as_mut().ok_or_else(no_arena)?, device)?;
        let arena = state.arena.as_ref().ok_or_else(no_arena)?;
        let source = Source::Maps(arena);
        results(model, source, &prepared, preprocessed, &mut state.finish).map(|all| Batch::Done(Ok(all)))
    }

    /// Waits for a batch.
    fn end(&mut self, batch: Batch) -> Result<Vec<Results>> {
        match batch {
            Batch::Done(results) => results,
            #[cfg(feature = "gpu")]
            Batch::Running(running) => self.end_on_gpu(*running),
        }
    }

    /// Scales the pictures of a batch into the arena on the host.
    fn fit_to_arena(&mut self, images: &[&Image], prepared: &Prepared) -> Result<()> {
        let plan = &prepared.planned.plan;
        self.make_arena(plan.arena_len)?;
        let Self { model, state } = self;
        let SessionState { arena, letterbox: scratch, .. } = state;
        let arena = arena.as_mut().ok_or_else(no_arena)?;
        clear_halo(model.network.cpu().context(), arena, plan.picture);
        for (idx, (image, fit)) in images.iter().zip(&prepared.fits).enumerate() {
            let rows = &mut arena.as_mut_slice()[plan.picture.index(idx, 0, 0)..];
            fit.write(image, rows, plan.picture.row_stride, scratch)?;
        }
        Ok(())
    }

    fn stride(&self) -> usize {
        self.model.network.head().strides().iter().copied().max().unwrap_or(1)
    }

    fn branches(&self, head: Head) -> Result<Branches> {
        let has_one2one = self.model.network.head().has_one2one();
        match head {
            Head::Auto | Head::OneToMany => Ok(Branches { one2many: true, one2one: false }),
            Head::OneToOne if has_one2one => Ok(Branches { one2many: false, one2one: true }),
            Head::OneToOne => Err(Error::unsupported("head", "this checkpoint has no one-to-one head")),
        }
    }

    /// Makes plan and arena fit the input of `key`.
    fn prepare(&mut self, key: PlanKey) -> Result<Arc<Planned>> {
        let planned = self.plan(key)?;
        self.make_arena(planned.plan.arena_len)?;
        Ok(planned)
    }

    /// The plan for the input of `key`.
    fn plan(&mut self, key: PlanKey) -> Result<Arc<Planned>> {
        if let Some((known, planned)) = &self.state.plan
            && *known == key
        {
            return Ok(Arc::clone(planned));
        }
        let ([n, h, w], _) = key;
        let most = PredictOptions::MAX_BATCH;
        if !(1..=most).contains(&n) {
            return Err(Error::argument("batch", format!("got {n} pictures, expected 1 to {most}")));
        }
        let stride = self.stride();
        let most = PredictOptions::MAX_SIDE;
        if [h, w].iter().any(|&side| side == 0 || side > most || side % stride != 0) {
            return Err(self.wrong_size([h, w]));
        }
        let planned = self.model.network.plan(key)?;
        self.state.plan = Some((key, Arc::clone(&planned)));
        Ok(planned)
    }

    /// Makes the arena on the host at least so many floats long.
    fn make_arena(&mut self, len: usize) -> Result<()> {
        if self.state.arena.as_ref().is_none_or(|arena| arena.len() < len) {
            // The old one goes first, so that both never take memory together.
            self.state.arena = None;
            self.state.arena = Some(self.model.network.cpu().arena(len)?);
        }
        Ok(())
    }

    fn wrong_size(&self, [h, w]: [usize; 2]) -> Error {
        let (stride, most) = (self.stride(), PredictOptions::MAX_SIDE);
        let message =
            format!("got {h}x{w}, expected sides that are multiples of {stride} up to {most} pixels");
        Error::shape("input", message)
    }

    fn check(&self, options: &PredictOptions) -> Result<()> {
        for (name, value) in [("conf", options.conf), ("iou", options.iou)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::argument(name, format!("got {value}, expected 0 to 1")));
            }
        }
        let task = self.model.network.head().task();
        if options.classes.is_some() && matches!(task, Task::Classify | Task::Semantic | Task::Depth) {
            let message = format!("a network for {task} finds no objects whose class could be chosen");
            return Err(Error::argument("classes", message));
        }
        let n_classes = self.model.names.len();
        if let Some(class) = options.classes.iter().flatten().find(|class| **class >= n_classes) {
            return Err(Error::argument(
                "classes",
                format!("got {class}, the model has classes 0 to {}", n_classes - 1),
            ));
        }
        Ok(())
    }
}

/// The results of a batch whose run is through.
fn results(
    model: &Inner,
    source: Source<'_>,
    prepared: &Prepared,
    preprocessed: Instant,
    scratch: &mut FinishScratch,
) -> Result<Vec<Results>> {
    let inferred = Instant::now();
    let Prepared { fits, image_hws, planned, options, branches, extent, start } = prepared;
    let context = model.network.cpu().context();
    let run = Run { context, head: model.network.head(), plan: &planned.plan, source, names: &model.names };
    let wanted = Wanted { extent: *extent, ..wanted(options, *branches) };
    let finish = |(idx, (image_hw, fit)): (usize, (&[usize; 2], &Fit))| {
        run.finish(idx, *image_hw, fit, &wanted, scratch)
    };
    let all = image_hws.iter().zip(fits).enumerate().map(finish).collect::<Result<Vec<_>>>()?;
    let per_image = |duration: Duration| duration.as_secs_f64() * 1e3 / fits.len() as f64;
    let speed = Speed {
        preprocess_ms: per_image(preprocessed - *start),
        inference_ms: per_image(inferred - preprocessed),
        postprocess_ms: per_image(inferred.elapsed()),
    };
    let input_shape = fits[0].net_hw();
    Ok(all.into_iter().map(|results| results.with_input_shape(input_shape).with_speed(speed)).collect())
}

/// The options as the way from outputs to results takes them.
fn wanted(options: &PredictOptions, branches: Branches) -> Wanted<'_> {
    Wanted {
        filter: Filter {
            conf: options.conf,
            classes: options.classes.as_deref(),
            multi_label: options.multi_label,
        },
        nms: NmsOptions {
            iou: options.iou,
            max_det: options.max_det,
            agnostic: options.agnostic_nms,
            ..NmsOptions::default()
        },
        one2one: branches.one2one,
        mask_size: if options.retina_masks { MaskSize::Picture } else { MaskSize::Input },
        extent: Extent::Cut,
    }
}

/// Writes the raw outputs of all branches that the plan computes.
fn decode_raw(
    model: &Inner,
    plan: &Plan,
    arena: &Arena,
    n: usize,
    scratch: &mut Scratch,
    raw: &mut RawOutputs,
) {
    let context = model.network.cpu().context();
    let RawOutputs { output0, one2one, proto } = raw;
    let head = match model.network.head() {
        NetworkHead::Detect(head) => head,
        NetworkHead::Map(head) => {
            let view = plan.views[head.map.0];
            output0.reset(view.map(|view| map::raw_shape(head, &view)));
            if let Some(view) = view {
                for (image, out) in output0.data.chunks_exact_mut(view.c * view.pixels()).enumerate() {
                    map::write_raw(head, context, arena, view, image, out);
                }
            }
            return;
        }
    };
    let decoder = Decoder::new(head, &head.one2many, plan);
    output0.reset(decoder.as_ref().map(|decoder| [n, decoder.n_values(), decoder.n_anchors()]));
    if let Some(decoder) = decoder {
        let len = decoder.n_values() * decoder.n_anchors();
        for (image, out) in output0.data.chunks_exact_mut(len).enumerate() {
            decoder.write_raw(context, arena, image, out);
        }
    }
    let decoder = head.one2one.as_ref().and_then(|branch| Decoder::new(head, branch, plan));
    let row_len = 6 + head.extra.len();
    one2one.reset(decoder.as_ref().map(|decoder| [n, decoder.k(), row_len]));
    if let Some(decoder) = decoder {
        let mut extra = Vec::with_capacity(head.extra.len());
        for (image, out) in one2one.data.chunks_exact_mut(row_len * decoder.k()).enumerate() {
            decoder.top_k(context, arena, image, scratch, |row, found| {
                let [x1, y1, x2, y2] = found.xyxy;
                let place = match head.extra {
                    Extra::Angle { .. } => [(x1 + x2) / 2.0, (y1 + y2) / 2.0, x2 - x1, y2 - y1],
                    _ => found.xyxy,
                };
                let (row, extra_out) = out[row_len * row..][..row_len].split_at_mut(6);
                row[..4].copy_from_slice(&place);
                row[4..].copy_from_slice(&[found.score, found.class as f32]);
                decoder.extra(arena, image, found.anchor as usize, &mut extra);
                extra_out.copy_from_slice(&extra);
            });
        }
    }
    let view = head.proto().and_then(|value| plan.views[value.0]);
    proto.reset(view.map(|view| [n, view.c, view.h, view.w]));
    if let Some(view) = view {
        for (image, out) in proto.data.chunks_exact_mut(view.c * view.pixels()).enumerate() {
            store_planar(context, arena, view, image, out, view.pixels(), 0, Activation::None);
        }
    }
}

/// The first element that is NaN or infinite.
///
/// Whole runs are tested without leaving early, which the compiler turns into vector code.
fn first_non_finite(values: &[f32]) -> Option<usize> {
    const RUN: usize = 1024;
    let is_finite = |run: &[f32]| run.iter().fold(true, |all, value| all & value.is_finite());
    let run = values.chunks(RUN).position(|run| !is_finite(run))?;
    let within = values[run * RUN..].iter().position(|value| !value.is_finite())?;
    Some(run * RUN + within)
}

fn no_arena() -> Error {
    Error::limit("arena", "was not allocated")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A later picture makes nothing on the device, also while others are on their way, and when masks are made.
    #[cfg(feature = "gpu")]
    #[test]
    fn pictures_make_nothing_on_the_device() {
        use crate::{Device, Model, ModelOptions};
        let Some(gpu) = crate::backend::gpu::for_tests(ferroyolo_shaders::Element::F32) else { return };
        let device = Device::Gpu(Some(gpu.adapter().index));
        for name in ["demo", "segment"] {
            let path = format!("{}/../cli/assets/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
            let model =
                Model::open(path, &ModelOptions { device, ..ModelOptions::default() }).expect("a model");
            let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets/sample.png");
            let image = Image::open(sample).expect("the sample picture");
            let options = PredictOptions { imgsz: Some([160, 160]), ..PredictOptions::default() };
            let mut session = model.session();
            let mut run = || {
                (0..4).for_each(|_| session.enqueue(&[&image], &options).expect("a start"));
                let mut n_objects = 0;
                while let Some(results) = session.dequeue() {
                    n_objects += results.expect("results")[0].boxes.len();
                }
                n_objects
            };
            assert!(run() > 0, "{name}: nothing was found");
            let n_made = model.inner().network.gpu().expect("the device").n_made();
            assert!(n_made > 0);
            run();
            assert_eq!(model.inner().network.gpu().expect("the device").n_made(), n_made, "{name}");
        }
    }

    /// What is on its way when a session or the device goes harms nobody, and is told to those who wait.
    #[cfg(feature = "gpu")]
    #[test]
    fn batches_on_their_way_may_be_left() {
        use crate::error::ErrorKind;
        use crate::{Device, Model, ModelOptions};
        let Some(gpu) = crate::backend::gpu::for_tests(ferroyolo_shaders::Element::F32) else { return };
        let device = Device::Gpu(Some(gpu.adapter().index));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets/segment.safetensors");
        let model = Model::open(path, &ModelOptions { device, ..ModelOptions::default() }).expect("a model");
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets/sample.png");
        let image = Image::open(sample).expect("the sample picture");
        let options = |side| PredictOptions { imgsz: Some([side, side]), ..PredictOptions::default() };
        let boxes = |results: &[Results]| results[0].boxes.xyxy().to_vec();
        let want = [160, 96].map(|side| {
            let results = model.session().predict(&[&image], &options(side)).expect("a run");
            boxes(&results)
        });
        for n in 1..5 {
            let mut session = model.session();
            (0..n).for_each(|_| session.enqueue(&[&image], &options(160)).expect("a start"));
        }
        let mut session = model.session();
        for side in [160, 96, 160, 96, 96] {
            session.enqueue(&[&image], &options(side)).expect("a start");
        }
        for idx in [0, 1, 0] {
            let results = session.dequeue().expect("a batch").expect("results");
            assert_eq!(boxes(&results), want[idx]);
        }
        session.enqueue(&[&image], &options(160)).expect("a start");
        model.inner().network.gpu().expect("the device").destroy();
        for _ in 0..3 {
            let error = session.dequeue().expect("a batch").expect_err("the device is gone");
            assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        }
        assert!(session.dequeue().is_none());
        let error = session.enqueue(&[&image], &options(160)).expect_err("the device is gone");
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        assert!(session.dequeue().is_none());
    }

    #[test]
    fn values_that_are_not_finite_are_found() {
        for len in [0, 1, 1023, 1024, 3000] {
            let values = vec![1.0; len];
            assert_eq!(first_non_finite(&values), None);
            for at in [0, 5, 1023, 1024, 2999].into_iter().filter(|at| *at < len) {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = values.clone();
                    values[at] = bad;
                    assert_eq!(first_non_finite(&values), Some(at));
                }
            }
        }
    }
}
