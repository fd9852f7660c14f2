//! A network ready to run: graph, packed weights, and the plans made so far.

use std::sync::{Arc, Mutex, PoisonError};

use ferroyolo_kernels::{Arena, clear_halo};

use crate::backend::Cpu;
use crate::error::Result;
use crate::graph::{Graph, Layout, Plan, ValueId, fuse};
use crate::modules::{Branch, DetectHead};
use crate::ops::{Op, PackedWeights, StepIo};

/// Plans that are kept. Pictures of many proportions each want their own.
const MAX_PLANS: usize = 32;

/// Which branches of the head are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Branches {
    pub one2many: bool,
    pub one2one: bool,
}

/// Identifies a plan: `[n, h, w]` of the input, and what is computed.
pub(crate) type PlanKey = ([usize; 3], Branches);

/// The immutable part of a model. Shared by all its sessions.
#[derive(Debug)]
pub(crate) struct Network {
    cpu: Cpu,
    graph: Graph,
    layout: Layout,
    packed: Vec<PackedWeights>,
    head: DetectHead,
    /// Most recently used last.
    plans: Mutex<Vec<(PlanKey, Arc<Plan>)>>,
}

impl Network {
    /// Fuses the graph and packs its weights for the CPU.
    pub(crate) fn new(mut graph: Graph, head: DetectHead, cpu: Cpu) -> Self {
        fuse(&mut graph);
        let layout = Layout::of(&graph);
        let weights = std::mem::take(&mut graph.weights);
        let mut packed = Vec::with_capacity(weights.len());
        for node in &mut graph.nodes {
            if let Op::Conv2d(conv) = &mut node.op {
                let packed_idx = packed.len();
                packed.push(PackedWeights::pack(conv, &weights[conv.weights]));
                conv.weights = packed_idx;
            }
        }
        Self { cpu, graph, layout, packed, head, plans: Mutex::new(Vec::new()) }
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(crate) fn head(&self) -> &DetectHead {
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
        let wanted = self.wanted(branches);
        let plan =
            Plan::new(&self.graph, &self.layout, &self.packed, self.cpu.n_threads(), shape, &wanted).map(Arc::new)?;
        if plans.len() == MAX_PLANS {
            plans.remove(0);
        }
        plans.push((key, Arc::clone(&plan)));
        Ok(plan)
    }

    /// Takes the picture in the arena through the steps of the plan. Allocates nothing.
    pub(crate) fn run(&self, plan: &Plan, arena: &mut Arena) {
        let context = self.cpu.context();
        context.threads.install(|| {
            for step in &plan.steps {
                for &buffer in &step.clear {
                    clear_halo(context, arena, buffer);
                }
                let io = StepIo { inputs: &step.inputs, output: step.output, scratch: step.scratch };
                self.graph.nodes[step.node].op.kernel().run_cpu(context, arena, &self.packed, &io);
            }
        });
    }

    fn wanted(&self, branches: Branches) -> Vec<ValueId> {
        let one2many = branches.one2many.then_some(&self.head.one2many);
        let one2one = self.head.one2one.as_ref().filter(|_| branches.one2one);
        [one2many, one2one].into_iter().flatten().flat_map(Branch::outputs).collect()
    }
}
