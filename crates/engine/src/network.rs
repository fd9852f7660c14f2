//! A network ready to run: graph, packed weights, and the plans made so far.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ferroyolo_kernels::{Arena, View, clear_halo};

use crate::backend::Cpu;
use crate::error::Result;
use crate::graph::{Graph, Plan, Step, ValueId, fuse};
use crate::modules::{Branches, NetworkHead};
use crate::ops::{PackedWeights, StepIo};

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
    packed: Vec<PackedWeights>,
    head: NetworkHead,
    /// Most recently used last.
    plans: Mutex<Vec<(PlanKey, Arc<Plan>)>>,
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
        Self { cpu, graph, packed, head, plans: Mutex::new(Vec::new()) }
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(crate) fn head(&self) -> &NetworkHead {
        &self.head
    }

    /// Bytes of the packed weights.
    pub(crate) fn weights_bytes(&self) -> usize {
        self.packed.iter().map(PackedWeights::bytes).sum()
    }

    /// The plan for pictures of one shape; made at the first call.
    pub(crate) fn plan(&self, key: PlanKey) -> Result<Arc<Plan>> {
        // The list is consistent at every instant, so a panic elsewhere while it was locked does no harm.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idx) = plans.iter().position(|(known, _)| *known == key) {
            let known = plans.remove(idx);
            let plan = Arc::clone(&known.1);
            plans.push(known);
            return Ok(plan);
        }
        let (shape, branches) = key;
        let wanted = self.head.wanted(branches);
        let plan =
            Plan::new(&self.graph, &self.packed, self.cpu.n_threads(), shape, &wanted).map(Arc::new)?;
        let size = |value: ValueId| plan.views[value.0].map(|view| [view.h, view.w]);
        self.head.check_sizes([shape[1], shape[2]], size)?;
        if plans.len() == MAX_PLANS {
            plans.remove(0);
        }
        plans.push((key, Arc::clone(&plan)));
        Ok(plan)
    }

    /// Takes the picture in the arena through the steps of the plan. Allocates nothing.
    pub(crate) fn run(&self, plan: &Plan, arena: &mut Arena) {
        self.run_observed(plan, arena, |_, _| ());
    }

    /// As [`Network::run`], telling `observe` after each step its index and the time at which it ended.
    pub(crate) fn run_observed(
        &self,
        plan: &Plan,
        arena: &mut Arena,
        mut observe: impl FnMut(usize, Instant) + Send,
    ) {
        let context = self.cpu.context();
        context.threads.install(|| {
            for (idx, step) in plan.steps.iter().enumerate() {
                for &buffer in &step.clear {
                    clear_halo(context, arena, buffer);
                }
                let io = StepIo { inputs: &step.inputs, output: step.output, scratch: step.scratch };
                self.graph.nodes[step.node].op.kernel().run_cpu(context, arena, &self.packed, &io);
                observe(idx, Instant::now());
            }
        });
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
