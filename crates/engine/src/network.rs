//! A network ready to run: graph, packed weights, and the plans made so far.

use std::sync::Arc;
#[cfg(feature = "gpu")]
use std::time::Duration;
use std::time::Instant;

use ferroyolo_kernels::{Arena, View, clear_halo};

#[cfg(feature = "gpu")]
use crate::backend::gpu::{
    Choose, Frame, Gpu, GpuTarget, GpuWeights, Guess, Input, Program, Traffic, Tuner, Wanted, elements,
    first_overflow, images_beyond, overflow, times,
};
use crate::backend::{Cpu, CpuTarget};
#[cfg(feature = "gpu")]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::graph::flatten_pools;
use crate::graph::{Graph, Plan, Step, ValueId, fuse};
use crate::memo::Memo;
use crate::modules::{Branches, NetworkHead};
#[cfg(feature = "gpu")]
use crate::ops::gpu;
use crate::ops::{PackedWeights, StepIo};
#[cfg(feature = "gpu")]
use crate::profile::{Profile, ProfileRow};
#[cfg(feature = "gpu")]
use crate::tasks::found::{self, Layout};

/// Plans that are kept. Pictures of many proportions each want their own.
const MAX_PLANS: usize = 32;

/// Identifies a plan: `[n, h, w]` of the input, and what is computed.
pub(crate) type PlanKey = ([usize; 3], Branches);

/// One step of a plan, as a profile names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Name of the op.
    pub op: &'static str,
    /// Path of the module it comes from.
    pub at: String,
    /// `[N, C, H, W]` of each input; the second one of a convolution is its residual.
    pub inputs: Vec<[usize; 4]>,
    /// `[N, C, H, W]` of the output.
    pub output: [usize; 4],
    /// Multiply-accumulate operations of its definition, zero for ops that only move or compare.
    pub macs: u64,
}

/// The immutable part of a model. Shared by all its sessions.
#[derive(Debug)]
pub(crate) struct Network {
    cpu: Cpu,
    graph: Graph,
    place: Place,
    head: NetworkHead,
    plans: Memo<PlanKey, Arc<Planned>>,
}

/// Where the network runs, with its weights in the order that is read there.
#[derive(Debug)]
enum Place {
    Cpu(Vec<PackedWeights>),
    #[cfg(feature = "gpu")]
    Gpu(Box<OnGpu>),
}

/// A network on a graphics processor.
#[cfg(feature = "gpu")]
#[derive(Debug)]
struct OnGpu {
    gpu: Gpu,
    /// Where each op's values lie; the values themselves are in `buffer`.
    weights: GpuWeights,
    buffer: wgpu::Buffer,
    /// Measures how to convolve, if that is wanted.
    tuner: Option<Tuner>,
}

/// What is known about an input shape before a picture comes.
#[derive(Debug)]
pub(crate) struct Planned {
    pub plan: Plan,
    /// The plan as a graphics processor carries it out.
    #[cfg(feature = "gpu")]
    program: Option<Arc<Program>>,
    /// Of what the program can find in its outputs.
    #[cfg(feature = "gpu")]
    pub found: Option<Layout>,
}

impl Planned {
    /// The plan as a graphics processor carries it out.
    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn program(&self) -> Option<&Program> {
        self.program.as_deref()
    }

    /// Dispatches of a run on a graphics processor.
    pub(crate) fn dispatches(&self) -> Option<usize> {
        #[cfg(feature = "gpu")]
        return self.program.as_ref().map(|program| program.n_dispatches());
        #[cfg(not(feature = "gpu"))]
        None
    }
}

/// What a session keeps on the processor that its network runs on.
#[derive(Debug, Default)]
pub(crate) struct OnDevice {
    /// Those that have no run on the way.
    #[cfg(feature = "gpu")]
    frames: Vec<Frame>,
    #[cfg(feature = "gpu")]
    traffic: Traffic,
}

#[cfg(feature = "gpu")]
impl OnDevice {
    /// Bytes of all arenas.
    pub(crate) fn arena_bytes(&self) -> u64 {
        self.frames.iter().map(Frame::arena_bytes).sum()
    }

    /// Takes back a frame whose run is through.
    pub(crate) fn keep(&mut self, frame: Frame) {
        self.traffic = frame.traffic();
        self.frames.push(frame);
    }

    /// What the last finished run sent and read.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl Network {
    /// Fuses the graph and packs its weights for the CPU.
    pub(crate) fn new(mut graph: Graph, head: NetworkHead, cpu: Cpu) -> Self {
        fuse(&mut graph);
        let weights = std::mem::take(&mut graph.weights);
        let mut packed = Vec::with_capacity(weights.len());
        for node in &mut graph.nodes {
            if let Some((values, index)) = node.op.pack(&weights) {
                *index = packed.len();
                packed.push(values);
            }
        }
        Self { cpu, graph, place: Place::Cpu(packed), head, plans: Memo::new(MAX_PLANS) }
    }

    /// Fuses the graph and brings its weights to the GPU; the CPU does what comes before and after.
    #[cfg(feature = "gpu")]
    pub(crate) fn on_gpu(mut graph: Graph, head: NetworkHead, cpu: Cpu, gpu: Gpu) -> Result<Self> {
        fuse(&mut graph);
        flatten_pools(&mut graph);
        let values = std::mem::take(&mut graph.weights);
        let mut weights = GpuWeights::default();
        for node in &mut graph.nodes {
            let (place, first) = (weights.places.len(), weights.values.len());
            if let Some(index) = gpu::pack(&mut node.op, &values, &mut weights) {
                *index = place;
            }
            gpu.check_values(&weights.values[first..]).map_err(|error| error.with_at(&node.at))?;
        }
        let buffer = gpu.weights_buffer(&std::mem::take(&mut weights.values))?;
        let place = Place::Gpu(Box::new(OnGpu { gpu, weights, buffer, tuner: None }));
        Ok(Self { cpu, graph, place, head, plans: Memo::new(MAX_PLANS) })
    }

    /// The same on a GPU that is measured by `tuner` when plans are made.
    #[cfg(feature = "gpu")]
    pub(crate) fn with_tuner(mut self, tuner: Option<Tuner>) -> Self {
        if let Place::Gpu(on) = &mut self.place {
            on.tuner = tuner;
        }
        self
    }

    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn tuner(&self) -> Option<&Tuner> {
        match &self.place {
            Place::Cpu(_) => None,
            Place::Gpu(on) => on.tuner.as_ref(),
        }
    }

    /// The graphics processor that this runs on, if it does not run on the CPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match &self.place {
            Place::Cpu(_) => None,
            Place::Gpu(on) => Some(&on.gpu),
        }
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(crate) fn head(&self) -> &NetworkHead {
        &self.head
    }

    /// Bytes of the packed weights.
    pub(crate) fn weights_bytes(&self) -> usize {
        match &self.place {
            Place::Cpu(packed) => packed.iter().map(PackedWeights::bytes).sum(),
            #[cfg(feature = "gpu")]
            Place::Gpu(on) => on.buffer.size() as usize,
        }
    }

    /// The plan for pictures of one shape; made at the first call, for which only calls of the same shape wait.
    pub(crate) fn plan(&self, key: PlanKey) -> Result<Arc<Planned>> {
        self.plans.get(&key, || {
            let (shape, branches) = key;
            let wanted = self.head.wanted(branches);
            let planned = Arc::new(self.make_plan(shape, branches, &wanted)?);
            let size = |value: ValueId| planned.plan.views[value.0].map(|view| [view.h, view.w]);
            self.head.check_sizes([shape[1], shape[2]], size)?;
            Ok(planned)
        })
    }

    /// The weights on the CPU, if the network runs there.
    fn packed(&self) -> Option<&[PackedWeights]> {
        match &self.place {
            Place::Cpu(packed) => Some(packed),
            #[cfg(feature = "gpu")]
            Place::Gpu(_) => None,
        }
    }

    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "a GPU decodes one branch"))]
    fn make_plan(&self, shape: [usize; 3], branches: Branches, wanted: &[ValueId]) -> Result<Planned> {
        match &self.place {
            Place::Cpu(weights) => {
                let target = CpuTarget { weights, n_threads: self.cpu.n_threads() };
                let plan = Plan::new(&self.graph, &target, shape, wanted)?;
                Ok(Planned {
                    plan,
                    #[cfg(feature = "gpu")]
                    program: None,
                    #[cfg(feature = "gpu")]
                    found: None,
                })
            }
            #[cfg(feature = "gpu")]
            Place::Gpu(on) => {
                let plan = Plan::new(&self.graph, &GpuTarget, shape, wanted)?;
                let finder = found::gpu::finder(&self.head, branches, &plan, on.gpu.max_words());
                let (found, finder) = finder.unzip();
                let make = |choose: &mut dyn Choose| {
                    Program::new(&on.gpu, &self.graph, &on.weights, &plan, wanted, choose, finder)
                };
                let program = match &on.tuner {
                    Some(tuner) => {
                        let program = make(&mut tuner.chooser(&on.buffer, plan.arena_len))?;
                        tuner.keep();
                        program
                    }
                    None => make(&mut Guess)?,
                };
                on.gpu.save_pipelines();
                Ok(Planned { plan, program: Some(Arc::new(program)), found })
            }
        }
    }

    /// Takes the picture in the arena through the steps of the plan. Allocates nothing on the CPU.
    ///
    /// On a GPU, a frame of `device` is made to fit at the first run of a plan, and only the values that the head decodes
    /// are in the arena afterwards. Only there anything can go wrong.
    pub(crate) fn run(&self, planned: &Planned, arena: &mut Arena, device: &mut OnDevice) -> Result<()> {
        match (&self.place, device) {
            (Place::Cpu(_), _) => self.run_observed(&planned.plan, arena, |_, _| ()),
            #[cfg(feature = "gpu")]
            (Place::Gpu(on), device) => {
                let mut frame = Self::frame(on, planned, device)?;
                frame.start(&on.gpu, Input::Values(arena.as_slice()), Wanted::Values)?;
                self.finish(planned, &mut frame)?;
                frame.read_values(&on.gpu, arena.as_mut_slice())?;
                device.keep(frame);
                Ok(())
            }
        }
    }

    /// Starts a run on the GPU. What a failed one leaves behind is not used again.
    ///
    /// Errors with `ErrorKind::Unsupported` if the network runs on the CPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn start(
        &self,
        planned: &Planned,
        input: Input<'_>,
        wanted: Wanted<'_>,
        device: &mut OnDevice,
    ) -> Result<Frame> {
        let Place::Gpu(on) = &self.place else {
            return Err(Error::unsupported("cpu", "runs are not started there but carried out"));
        };
        let mut frame = Self::frame(on, planned, device)?;
        frame.start(&on.gpu, input, wanted)?;
        Ok(frame)
    }

    /// Waits for a run of the plan on the GPU. What a failed one leaves behind is not used again.
    ///
    /// Errors with `ErrorKind::Overflow`, naming the layer and the pictures, if a value was too large for 16-bit floats,
    /// and with `ErrorKind::Unsupported` if the network runs on the CPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn finish(&self, planned: &Planned, frame: &mut Frame) -> Result<()> {
        let Place::Gpu(on) = &self.place else {
            return Err(Error::unsupported("cpu", "runs are not started there but carried out"));
        };
        match frame.finish(&on.gpu) {
            Err(error) if error.kind() == ErrorKind::Overflow => {
                Err(self.locate_overflow(&on.gpu, planned, frame)?.unwrap_or(error))
            }
            done => done,
        }
    }

    /// What is told of a run that had too large values: the first layer that gives them, and for which pictures. `None` if
    /// it does not happen again.
    #[cfg(feature = "gpu")]
    fn locate_overflow(&self, gpu: &Gpu, planned: &Planned, frame: &mut Frame) -> Result<Option<Error>> {
        let plan = &planned.plan;
        let Some(dispatch) = first_overflow(gpu, frame)? else { return Ok(None) };
        let (_, steps) = frame.carried_out().swap_remove(dispatch);
        let mut arena = self.cpu.arena(plan.arena_len)?;
        for step in steps.into_iter().map(|step| &plan.steps[step]) {
            frame.fetch_values(gpu, elements(&step.output), arena.as_mut_slice())?;
            let images = images_beyond(arena.as_slice(), &step.output);
            if !images.is_empty() {
                return Ok(Some(overflow(&self.graph.nodes[step.node].at, &images, step.output.n)));
            }
        }
        Ok(Some(overflow("input", &[], plan.picture.n)))
    }

    /// A frame for the plan, best one that ran it before.
    #[cfg(feature = "gpu")]
    fn frame(on: &OnGpu, planned: &Planned, device: &mut OnDevice) -> Result<Frame> {
        let program = planned.program.as_ref().ok_or_else(|| Error::shape("plan", "without a program"))?;
        match device.frames.iter().position(|frame| frame.is_for(program)) {
            Some(idx) => Ok(device.frames.swap_remove(idx)),
            None => Frame::new(&on.gpu, Arc::clone(program), &on.buffer, device.frames.pop()),
        }
    }

    /// As [`Network::run`] on the CPU, telling `observe` after each step its index and the time at which it ended.
    ///
    /// Errors with `ErrorKind::Unsupported` if the network runs elsewhere.
    pub(crate) fn run_observed(
        &self,
        plan: &Plan,
        arena: &mut Arena,
        mut observe: impl FnMut(usize, Instant) + Send,
    ) -> Result<()> {
        let packed =
            self.packed().ok_or_else(|| Error::unsupported("gpu", "steps are not run one by one there"))?;
        let context = self.cpu.context();
        context.threads.install(|| {
            for (idx, step) in plan.steps.iter().enumerate() {
                for &buffer in &step.clear {
                    clear_halo(context, arena, buffer);
                }
                let io = StepIo { inputs: &step.inputs, output: step.output, scratch: step.scratch };
                self.graph.nodes[step.node].op.kernel().run_cpu(context, arena, packed, &io);
                observe(idx, Instant::now());
            }
        });
        Ok(())
    }

    /// How long the last run of `device` takes by the clock of the GPU: its dispatches with what they carry out, medians
    /// of `n_runs`, and all of it.
    ///
    /// Errors with `ErrorKind::Unsupported` if the network runs on the CPU or the GPU tells no times, and with
    /// `ErrorKind::Argument` if there was no run of this plan.
    #[cfg(feature = "gpu")]
    pub(crate) fn profile(&self, planned: &Planned, device: &OnDevice, n_runs: usize) -> Result<Profile> {
        let Place::Gpu(on) = &self.place else {
            return Err(Error::unsupported("cpu", "the CPU has no clock of its own for a profile"));
        };
        let program = planned.program.as_ref().ok_or_else(|| Error::shape("plan", "without a program"))?;
        let frame = device.frames.iter().rfind(|frame| frame.is_for(program));
        let frame = frame.ok_or_else(|| Error::argument("profile", "there was no run before it"))?;
        let times = times(&on.gpu, frame, n_runs)?;
        let row = |((name, steps), time): ((&'static str, Vec<usize>), Duration)| {
            let steps = steps.iter().map(|&step| self.describe(&planned.plan.steps[step])).collect();
            ProfileRow { name, steps, time }
        };
        let rows = frame.carried_out().into_iter().zip(times.dispatches).map(row).collect();
        Ok(Profile { rows, run: times.run })
    }

    /// What a step does, for a profile.
    pub(crate) fn describe(&self, step: &Step) -> StepInfo {
        let node = &self.graph.nodes[step.node];
        let shape = |view: &View| [view.n, view.c, view.h, view.w];
        StepInfo {
            op: node.op.kernel().name(),
            at: node.at.clone(),
            inputs: step.inputs.iter().map(shape).collect(),
            output: shape(&step.output),
            macs: node.op.kernel().macs([step.output.h, step.output.w]) * step.output.n as u64,
        }
    }
}
