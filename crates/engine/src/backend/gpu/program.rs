//! A plan as dispatches.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ferroyolo_kernels::View;

use super::device::{Gpu, PipelineKey};
use super::job::{GpuWeights, Job};
use super::picture;
use super::variant::{Choose, PRODUCT_SHADERS, Variant, variants};
use crate::error::{Error, Result};
use crate::graph::{Graph, Order, Plan, Target, ValueId};
use crate::ops::{Hw, Op, StepIo, gpu};

/// Plans for graphics processors: no halo, no scratch memory, pixels in whole vectors, rounds.
pub(crate) struct GpuTarget;

impl Target for GpuTarget {
    fn halo(&self, _: &Op) -> usize {
        0
    }

    fn scratch_len(&self, _: &Op, _: &[Hw]) -> usize {
        0
    }

    fn pixel_stride(&self, channels: usize) -> usize {
        channels.next_multiple_of(4)
    }

    fn order(&self) -> Order {
        Order::Rounds
    }
}

/// Elements that are copied between host and device are whole groups of this many, so that byte counts are, too.
const GROUP: usize = 16;

/// A plan as a device carries it out. Shared by sessions.
#[derive(Debug)]
pub(crate) struct Program {
    /// What scales pictures into the input, what the network computes, and what looks for objects in its outputs.
    stages: [Vec<Dispatch>; 3],
    /// The step of the plan that each job of the network belongs to.
    steps: Vec<usize>,
    /// The jobs of all dispatches.
    pub(super) jobs: wgpu::Buffer,
    pub(super) arena_len: usize,
    pub(super) input: Upload,
    /// Elements that the host reads, in order, without overlap.
    pub(super) outputs: Vec<Range<usize>>,
    pub(super) found: FoundLayout,
    errand: Option<Dispatch>,
}

/// The buffer of what is found, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundLayout {
    /// All of it. The first ones are the parameters that the host sends with each run.
    pub len: usize,
    /// So many of the first ones are read by the host with each run.
    pub n_read: usize,
}

/// What looks for objects in the outputs of a network.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    pub layout: FoundLayout,
    /// Each with its round.
    pub jobs: Vec<(usize, Job)>,
    /// See [`Stages::errand`].
    pub errand: Option<Job>,
}

/// What is done on a device, each job with its round.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// Scales pictures into the input.
    pub input: Vec<(usize, Job)>,
    pub network: Vec<(usize, Job)>,
    /// Looks for objects in the outputs.
    pub found: Vec<(usize, Job)>,
    /// What can be asked for after a run, with another buffer in place of that of what is found.
    pub errand: Option<Job>,
}

/// What the host writes, and where the device wants it.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Elements of the host's arena; the device's begin at the same place.
    pub range: Range<usize>,
    /// Elements of a pixel there, and from a pixel to the next on the device.
    pub pixel: [usize; 2],
}

impl Upload {
    /// Elements that lie alike on both sides.
    pub(crate) fn alike(range: Range<usize>) -> Self {
        Self { range, pixel: [1, 1] }
    }

    /// Elements on the device.
    pub(super) fn len(&self) -> usize {
        let [n, stride] = self.pixel;
        if n == stride { self.range.len() } else { self.range.len() / n * stride }
    }

    /// The values as they go to the device, zeros between the pixels.
    pub(super) fn values<'a>(&self, host: &'a [f32]) -> Cow<'a, [f32]> {
        let values = &host[self.range.clone()];
        let [n, stride] = self.pixel;
        if n == stride {
            return Cow::Borrowed(values);
        }
        let mut apart = vec![0.0; values.len() / n * stride];
        for (to, from) in apart.chunks_exact_mut(stride).zip(values.chunks_exact(n)) {
            to[..n].copy_from_slice(from);
        }
        Cow::Owned(apart)
    }
}

/// Jobs that run together.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub pipeline: Arc<wgpu::ComputePipeline>,
    pub key: PipelineKey,
    /// Bytes of [`Program::jobs`].
    pub jobs: Range<u64>,
    /// Bytes of the weights.
    pub weights: Range<u64>,
    pub workgroups: [u32; 2],
    /// The places of its jobs among those of the stage.
    pub places: Vec<usize>,
}

impl Dispatch {
    /// Appends this to a pass.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, group: &wgpu::BindGroup) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, group, &[]);
        let [x, y] = self.workgroups;
        pass.dispatch_workgroups(x, y, 1);
    }
}

/// A dispatch that is being put together.
struct Draft {
    key: PipelineKey,
    jobs: Vec<Job>,
    /// The places of the jobs among those of the stage.
    places: Vec<usize>,
    /// Vectors of four.
    weights: Option<Range<u32>>,
}

impl Draft {
    /// Cuts its jobs into workgroups, if they are products. Errors if the device can do them in no way.
    fn cut(&mut self, gpu: &Gpu, variants: &[Variant], choose: &mut dyn Choose) -> Result<()> {
        if self.jobs.iter().all(|job| job.product.is_none()) {
            return Ok(());
        }
        let mut variants: Vec<&Variant> =
            variants.iter().filter(|variant| variant.fits(&self.jobs)).collect();
        let mut failure = None;
        while !variants.is_empty() {
            let idx = match (choose.choose(gpu, &variants, &self.jobs), failure) {
                (Ok(idx), _) => idx,
                (Err(_), Some(failure)) | (Err(failure), None) => return Err(failure),
            };
            let variant = variants.remove(idx);
            let mut key = PipelineKey { shader: variant.shader, ..self.key.clone() };
            key.overrides.extend(variant.overrides(&self.jobs));
            // A driver that compiles some ways on matrix units may still fail with others.
            if variant.shader.matrix.is_some()
                && let Err(error) = gpu.pipeline(&key)
            {
                gpu.check()?;
                failure = Some(error);
                continue;
            }
            self.key = key;
            self.jobs.iter_mut().for_each(|job| variant.cut(job));
            return Ok(());
        }
        Err(failure.unwrap_or_else(|| {
            let message = format!("the workgroups of {} are too small for convolutions", gpu.adapter().name);
            Error::limit("gpu", message)
        }))
    }

    /// Errors if a job needs more than the device has: neither wgpu nor every driver looks at workgroup memory.
    /// Errors, too, if shaders that compute products would leave the arena, since they do not look themselves.
    fn check(&self, gpu: &Gpu, window: u64, arena_len: usize) -> Result<()> {
        let name = &gpu.adapter().name;
        if PRODUCT_SHADERS.contains(&self.key.shader) && self.jobs.iter().any(|job| job.product.is_none()) {
            let message = format!("a job of {} does not tell what it reaches", self.key.shader.name);
            return Err(Error::unsupported("gpu", message));
        }
        // The buffer ends with a whole vector.
        let has = arena_len.next_multiple_of(4);
        let ends = self.jobs.iter().filter_map(|job| job.product).map(|product| product.arena_end);
        if let Some(end) = ends.max().filter(|&end| end > has) {
            let message = format!("a layer reaches up to {end} of an arena of {arena_len} elements");
            return Err(Error::limit("gpu", message));
        }
        let has = gpu.device.limits().max_compute_workgroup_storage_size as usize;
        if let Some(needs) = self.jobs.iter().map(|job| job.workgroup_bytes).find(|&needs| needs > has) {
            let message = format!("{needs} bytes of workgroup memory are needed, {name} has {has}");
            return Err(Error::limit("gpu", message));
        }
        let n_vectors = self.weights.as_ref().map_or(0, |range| u64::from(range.end - range.start));
        if n_vectors > window {
            let message = format!("a layer has {n_vectors} x 4 weights, {name} reaches {window} x 4");
            return Err(Error::limit("gpu", message));
        }
        Ok(())
    }
}

impl Program {
    /// Compiles what is not compiled yet. Errors if the device's limits are too small.
    pub(crate) fn new(
        gpu: &Gpu,
        graph: &Graph,
        weights: &GpuWeights,
        plan: &Plan,
        wanted: &[ValueId],
        choose: &mut dyn Choose,
        finder: Option<Finder>,
    ) -> Result<Self> {
        check_arena(gpu, plan.arena_len)?;
        // The step of each job.
        let mut steps = Vec::new();
        let jobs = plan.steps.iter().enumerate().flat_map(|(idx, step)| {
            let io = StepIo { inputs: &step.inputs, output: step.output, scratch: step.scratch };
            let jobs = gpu::jobs(&graph.nodes[step.node].op, weights, &io);
            steps.resize(steps.len() + jobs.len(), idx);
            jobs.into_iter().map(|job| (step.round, job))
        });
        let finder = finder.unwrap_or_default();
        let stages = Stages {
            input: picture::jobs(&plan.input).into_iter().map(|job| (1, job)).collect(),
            network: jobs.collect(),
            found: finder.jobs,
            errand: finder.errand,
        };
        let (picture, pixel) = (plan.picture, [plan.picture.pixel_stride, plan.input.pixel_stride]);
        let range = picture.offset..picture.offset + picture.n * picture.image_stride;
        // A pixel of a whole vector is a whole number of bytes in any number format.
        let range = if pixel[0] == pixel[1] { whole_groups(range) } else { range };
        let input = Upload { range, pixel };
        let outputs = output_ranges(plan, wanted);
        let program = Self::of_stages_by(choose, gpu, stages, plan.arena_len, input, outputs, finder.layout)?;
        Ok(Self { steps, ..program })
    }

    /// As [`Program::of_stages_by`], with convolutions carried out in what is likely the fastest way.
    #[cfg(test)]
    pub(crate) fn of_stages(
        gpu: &Gpu,
        stages: Stages,
        arena_len: usize,
        input: Upload,
        outputs: Vec<Range<usize>>,
        found: FoundLayout,
    ) -> Result<Self> {
        Self::of_stages_by(&mut super::Guess, gpu, stages, arena_len, input, outputs, found)
    }

    /// A program of jobs, with convolutions carried out as `choose` says.
    pub(crate) fn of_stages_by(
        choose: &mut dyn Choose,
        gpu: &Gpu,
        stages: Stages,
        arena_len: usize,
        input: Upload,
        outputs: Vec<Range<usize>>,
        found: FoundLayout,
    ) -> Result<Self> {
        let mut words = Vec::new();
        let Stages { input: pictures, network, found: finders, errand } = stages;
        let stages = [
            dispatches(gpu, pictures, arena_len, choose, &mut words)?,
            dispatches(gpu, network, arena_len, choose, &mut words)?,
            dispatches(gpu, finders, arena_len, choose, &mut words)?,
        ];
        let errand = errand.map(|job| (1, job)).into_iter().collect();
        let errand = dispatches(gpu, errand, arena_len, choose, &mut words)?.pop();
        let jobs = gpu.buffer_with("jobs", bytemuck::cast_slice(&words), wgpu::BufferUsages::STORAGE)?;
        Ok(Self { stages, steps: Vec::new(), jobs, arena_len, input, outputs, found, errand })
    }

    /// The dispatches of each stage, in order.
    pub(super) fn stages(&self) -> [&[Dispatch]; 3] {
        self.stages.each_ref().map(Vec::as_slice)
    }

    /// Of each dispatch of some stages the name of its shader, and the steps of the plan that it carries out.
    pub(super) fn described(&self, stages: [bool; 3]) -> Vec<(&'static str, Vec<usize>)> {
        let mut all = Vec::new();
        for (idx, stage) in self.stages.iter().enumerate().filter(|(idx, _)| stages[*idx]) {
            for dispatch in stage {
                // Only the network has steps.
                let places = if idx == 1 { dispatch.places.as_slice() } else { &[] };
                let mut steps: Vec<usize> =
                    places.iter().filter_map(|&place| self.steps.get(place).copied()).collect();
                steps.dedup();
                all.push((dispatch.key.shader.name, steps));
            }
        }
        all
    }

    /// What can be asked for after a run. Its number of workgroups is told then.
    pub(super) fn errand(&self) -> Option<&Dispatch> {
        self.errand.as_ref()
    }

    /// How often the device is asked to compute something for a picture, errands not counted.
    pub(crate) fn n_dispatches(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }
}

/// Jobs with their rounds as dispatches; their words are appended to `words`.
fn dispatches(
    gpu: &Gpu,
    jobs: Vec<(usize, Job)>,
    arena_len: usize,
    choose: &mut dyn Choose,
    words: &mut Vec<u32>,
) -> Result<Vec<Dispatch>> {
    let limits = gpu.device.limits();
    let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
    let vector_bytes = 4 * gpu.element_bytes();
    // The window begins at an aligned place before the first weight.
    let window = gpu.max_binding_bytes().saturating_sub(alignment) / vector_bytes;
    let mut dispatches = Vec::new();
    let variants = variants(gpu);
    for mut draft in drafts(jobs.into_iter(), window) {
        draft.cut(gpu, &variants, choose)?;
        draft.check(gpu, window, arena_len)?;
        let window = draft.weights.map_or(0..0, |range| {
            let start = u64::from(range.start) * vector_bytes / alignment * alignment;
            start..u64::from(range.end) * vector_bytes
        });
        let first_vector = u32::try_from(window.start / vector_bytes).unwrap_or(u32::MAX);
        words.resize(words.len().next_multiple_of((alignment as usize).div_ceil(4)), 0);
        let first_word = words.len();
        let mut first_workgroup = 0u32;
        for job in draft.jobs {
            let place = words.len();
            words.extend(&job.words);
            words[place] = first_workgroup;
            if let Some((_, members)) = job.weights {
                members.iter().for_each(|member| words[place + member] -= first_vector);
            }
            first_workgroup = u32::try_from(job.workgroups)
                .ok()
                .and_then(|n| first_workgroup.checked_add(n))
                .ok_or_else(|| Error::limit("gpu", "a picture of too many pixels"))?;
        }
        let workgroups = grid(gpu, first_workgroup)?;
        dispatches.push(Dispatch {
            pipeline: gpu.pipeline(&draft.key)?,
            key: draft.key,
            jobs: first_word as u64 * 4..words.len() as u64 * 4,
            weights: window,
            workgroups,
            places: draft.places,
        });
    }
    Ok(dispatches)
}

/// Errors if a shader can't reach all of an arena.
fn check_arena(gpu: &Gpu, arena_len: usize) -> Result<()> {
    let bytes = arena_len as u64 * gpu.element_bytes() + gpu.note_bytes();
    let limit = gpu.max_binding_bytes();
    if bytes <= limit {
        return Ok(());
    }
    let name = &gpu.adapter().name;
    Err(Error::limit("gpu", format!("{bytes} bytes are needed for activations, {name} reaches {limit}")))
}

/// Jobs of one round and one pipeline together, as far as their weights lie within `window` vectors.
fn drafts(jobs: impl Iterator<Item = (usize, Job)>, window: u64) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut round_start = 0;
    let mut last_round = 0;
    for (place, (round, job)) in jobs.enumerate() {
        if round != last_round {
            (last_round, round_start) = (round, drafts.len());
        }
        let key = PipelineKey { shader: job.shader, lanes: job.lanes, overrides: job.overrides.clone() };
        let reads = job.weights.as_ref().map(|(range, _)| range.clone());
        let fits = |draft: &&mut Draft| {
            let all = union(draft.weights.clone(), reads.clone());
            draft.key == key && all.is_none_or(|all| u64::from(all.end - all.start) <= window)
        };
        match drafts[round_start..].iter_mut().find(fits) {
            Some(draft) => {
                draft.weights = union(draft.weights.take(), reads);
                draft.jobs.push(job);
                draft.places.push(place);
            }
            None => drafts.push(Draft { key, jobs: vec![job], places: vec![place], weights: reads }),
        }
    }
    drafts
}

/// The range that holds both.
fn union(a: Option<Range<u32>>, b: Option<Range<u32>>) -> Option<Range<u32>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.start.min(b.start)..a.end.max(b.end)),
        (a, b) => a.or(b),
    }
}

/// At least `n` workgroups as a dispatch of the device. Errors if it has no room for so many.
pub(super) fn grid(gpu: &Gpu, n: u32) -> Result<[u32; 2]> {
    let side = gpu.device.limits().max_compute_workgroups_per_dimension;
    rows(n, side).ok_or_else(|| {
        let message = format!("{n} workgroups are needed, {} has {side} rows of {side}", gpu.adapter().name);
        Error::limit("gpu", message)
    })
}

/// At least `n` workgroups in full rows of at most `side`. None if there are more than `side` rows.
fn rows(n: u32, side: u32) -> Option<[u32; 2]> {
    let [x, y] = if n <= side { [n, 1] } else { [side, n.div_ceil(side)] };
    (y <= side).then_some([x, y])
}

fn whole_groups(range: Range<usize>) -> Range<usize> {
    range.start / GROUP * GROUP..range.end.next_multiple_of(GROUP)
}

/// What of the arena a view covers, in whole groups.
pub(crate) fn elements(view: &View) -> Range<usize> {
    let last = view.offset + (view.n - 1) * view.image_stride + (view.pixels() - 1) * view.pixel_stride;
    whole_groups(view.offset..last + view.c)
}

/// What of the arena the wanted values cover.
fn output_ranges(plan: &Plan, wanted: &[ValueId]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> =
        wanted.iter().filter_map(|value| plan.views[value.0]).map(|view| elements(&view)).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::for_tests;
    use crate::error::ErrorKind;
    use crate::ops::conv2d::gpu::{ConvJob, conv_job, finish};

    #[test]
    fn grids_hold_all_workgroups() {
        assert_eq!(rows(1, 65535), Some([1, 1]));
        assert_eq!(rows(65535, 65535), Some([65535, 1]));
        assert_eq!(rows(65536, 65535), Some([65535, 2]));
        assert_eq!(rows(1000, 256), Some([256, 4]));
        assert_eq!(rows(16, 4), Some([4, 4]));
        assert_eq!(rows(17, 4), None);
    }

    fn job(round: usize, weights: Range<u32>) -> (usize, Job) {
        let job = Job {
            shader: ferroyolo_shaders::CONV2D,
            overrides: Vec::new(),
            lanes: ferroyolo_shaders::Lanes::Four,
            workgroups: 1,
            workgroup_bytes: 0,
            words: vec![0; 28],
            weights: Some((weights, &[21, 22])),
            product: None,
        };
        (round, job)
    }

    #[test]
    fn jobs_of_a_round_go_together_as_far_as_weights_reach() {
        let jobs = [job(1, 0..10), job(2, 10..20), job(2, 20..40), job(2, 90..95), job(3, 40..50)];
        let drafts = drafts(jobs.into_iter(), 30);
        let sizes: Vec<_> = drafts.iter().map(|draft| (draft.jobs.len(), draft.weights.clone())).collect();
        assert_eq!(sizes, [(1, Some(0..10)), (2, Some(10..40)), (1, Some(90..95)), (1, Some(40..50))]);
    }

    /// Shaders that compute products do not look themselves whether they stay within the arena.
    #[test]
    fn convolutions_beyond_the_arena_are_refused() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let [input, output] = [0, 512].map(|offset| View::buffer(offset, 1, 8, 8, 8, 0));
        let program = |change: fn(&mut ConvJob), arena_len: usize| {
            let mut job = ConvJob { bias: 16, ..conv_job(&input, &output, [8, 8]) };
            change(&mut job);
            let network = vec![(1, finish(job, &[input, output]))];
            let stages = Stages { network, ..Stages::default() };
            let upload = Upload::alike(0..512);
            Program::of_stages(&gpu, stages, arena_len, upload, Vec::new(), FoundLayout::default())
        };
        program(|_| (), 1024).expect("both fit");
        let changes: [fn(&mut ConvJob); 8] = [
            |job| job.input += 516,
            |job| job.input_stride += 16,
            |job| job.in_w *= 3,
            |job| job.output += 4,
            |job| job.output_stride += 4,
            |job| job.shift_w += 1,
            |job| (job.residual, job.residual_stride) = (516, 8),
            |job| job.row_pixels = 0,
        ];
        for (idx, change) in changes.into_iter().enumerate() {
            let error = program(change, 1024).map(|_| idx).expect_err("a layer that leaves the arena");
            assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
            assert!(error.to_string().contains("of an arena of 1024 elements"), "{error}");
        }
        program(|_| (), 1020).expect_err("an arena that is too small");
    }

    #[test]
    fn convolutions_that_do_not_tell_what_they_reach_are_refused() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let stages = Stages { network: vec![job(1, 0..10)], ..Stages::default() };
        let upload = Upload::alike(0..512);
        let error = Program::of_stages(&gpu, stages, 1024, upload, Vec::new(), FoundLayout::default())
            .expect_err("a job without a product");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }

    #[test]
    fn pixels_are_moved_apart() {
        let host: Vec<f32> = (0..10u8).map(f32::from).collect();
        let upload = Upload { range: 2..8, pixel: [3, 4] };
        assert_eq!(*upload.values(&host), [2.0, 3.0, 4.0, 0.0, 5.0, 6.0, 7.0, 0.0]);
        assert_eq!(*Upload::alike(2..8).values(&host), host[2..8]);
    }

    #[test]
    fn unions_and_groups() {
        assert_eq!(union(None, Some(2..3)), Some(2..3));
        assert_eq!(union(Some(7..9), Some(2..3)), Some(2..9));
        assert_eq!(whole_groups(17..33), 16..48);
    }
}
