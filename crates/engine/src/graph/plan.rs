//! Everything about one input shape that can be known before a picture comes: sizes, places, steps.

use std::ops::Range;

use ferroyolo_kernels::{Scratch, View};

use super::{Graph, Layout, ValueId};
use crate::error::{Error, Result};
use crate::ops::{Hw, Op, concat};

/// Floats between places in the arena: a cache line.
const ALIGNMENT: usize = 16;

/// Bytes an arena may have. A YOLO11x at 1280 x 1280 needs about 2 GB.
const MAX_ARENA_BYTES: usize = 64 << 30;

/// What a processor asks of a plan.
pub(crate) trait Target {
    /// Zero pixels that it reads around the inputs of `op`.
    fn halo(&self, op: &Op) -> usize;

    /// Floats of scratch memory that it wants for `op` on inputs of these sizes.
    fn scratch_len(&self, op: &Op, inputs: &[Hw]) -> usize;

    /// Floats from a pixel to the next in a buffer of `channels` channels. What is more than those belongs to nobody.
    fn pixel_stride(&self, channels: usize) -> usize {
        channels
    }

    /// When each op runs.
    fn order(&self) -> Order;
}

/// When the ops of a plan run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One after the other, as they stand in the graph.
    Sequence,
    /// In rounds, each op as late as its users allow. The ops of a round have nothing to do with each other, and alike
    /// branches of a head fall into the same rounds.
    #[cfg(feature = "gpu")]
    Rounds,
}

/// The steps that take pictures of one shape to the wanted values, and where everything lies.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the pictures are read, `[N, H, W, 3]`.
    #[cfg(feature = "gpu")]
    pub input: View,
    /// Where the pictures are written: as `input`, but nothing lies between the pixels. A target that wants them apart
    /// moves them.
    pub picture: View,
    /// Each computed value's place, by id.
    pub views: Vec<Option<View>>,
    pub steps: Vec<Step>,
    /// Floats of the arena.
    pub arena_len: usize,
}

/// One op on places in the arena.
#[derive(Debug)]
pub(crate) struct Step {
    /// Index into [`Graph::nodes`].
    pub node: usize,
    /// Steps of the same round may run in any order, or together.
    #[cfg(feature = "gpu")]
    pub round: usize,
    /// Buffers that come to life with this step and whose border has to be zero.
    pub clear: Vec<View>,
    pub inputs: Vec<View>,
    pub output: View,
    pub scratch: Scratch,
}

/// A stretch of the arena and the steps during which it holds something.
#[derive(Clone, Debug)]
struct Tenancy {
    len: usize,
    steps: Range<usize>,
    offset: usize,
}

impl Plan {
    /// A plan for `[n, 3, h, w]` pictures that computes `wanted` and what they need.
    ///
    /// Errors with `ErrorKind::Shape` where an op does not fit, and with `ErrorKind::Limit` where the arena would be
    /// larger than memory.
    pub(crate) fn new(
        graph: &Graph,
        target: &dyn Target,
        [n, h, w]: [usize; 3],
        wanted: &[ValueId],
    ) -> Result<Self> {
        let needed = needed_nodes(graph, wanted);
        let layout = Layout::of(graph, &needed);
        let sizes = infer_sizes(graph, &needed, [h, w])?;
        let buffers = Buffers::new(graph, &layout, &needed, &sizes, wanted, target);

        let mut tenancies = Vec::new();
        let mut roots = Vec::new();
        for (root, life) in buffers.lives() {
            let len = buffers.view(root, n, 0).and_then(|view| element_end(&view));
            let len = len.ok_or_else(|| too_large(n, h, w))?;
            tenancies.push(Tenancy { len, steps: life, offset: 0 });
            roots.push(root);
        }
        let mut scratch = vec![None; graph.nodes.len()];
        for &node_idx in &buffers.step_nodes {
            let node = &graph.nodes[node_idx];
            let inputs: Vec<Hw> = node.inputs.iter().map(|input| sizes[input.0]).collect();
            let len = target.scratch_len(&node.op, &inputs);
            if len > 0 {
                let step = buffers.step_of[node_idx];
                scratch[node_idx] = Some(tenancies.len());
                tenancies.push(Tenancy { len, steps: step..step + 1, offset: 0 });
            }
        }
        let arena_len = assign_offsets(&mut tenancies).ok_or_else(|| too_large(n, h, w))?;
        if arena_len > MAX_ARENA_BYTES / size_of::<f32>() {
            return Err(too_large(n, h, w));
        }

        let mut whole = vec![None; graph.channels.len()];
        for (root, tenancy) in roots.iter().zip(&tenancies) {
            whole[root.0] = buffers.view(*root, n, tenancy.offset);
        }
        let mut views = vec![None; graph.channels.len()];
        for (idx, view) in views.iter_mut().enumerate() {
            let (root, channel) = layout.resolve(ValueId(idx));
            let is_computed = sizes[idx] != [0, 0];
            *view = whole[root.0]
                .filter(|_| is_computed)
                .map(|all: View| all.channels(channel, graph.channels[idx]));
        }
        let place =
            |value: ValueId| views[value.0].ok_or_else(|| Error::shape("plan", "a value without a place"));

        let mut steps = Vec::new();
        for &node_idx in &buffers.step_nodes {
            let node = &graph.nodes[node_idx];
            let round = buffers.step_of[node_idx];
            let inputs: Vec<View> = node.inputs.iter().map(|&input| place(input)).collect::<Result<_>>()?;
            let output = place(node.output)?;
            let born = |(root, tenancy): (&ValueId, &Tenancy)| {
                whole[root.0].filter(|view| tenancy.steps.start == round && view.halo > 0)
            };
            steps.push(Step {
                node: node_idx,
                #[cfg(feature = "gpu")]
                round,
                clear: roots.iter().zip(&tenancies).filter_map(born).collect(),
                inputs,
                output,
                scratch: scratch[node_idx].map_or(Scratch { offset: 0, len: 0 }, |idx: usize| Scratch {
                    offset: tenancies[idx].offset,
                    len: tenancies[idx].len,
                }),
            });
        }
        // A concatenation whose inputs were all written in place has nothing left to do.
        steps.retain(|step| {
            !matches!(graph.nodes[step.node].op, Op::Concat(_))
                || concat::cpu::parts(&step.inputs, step.output).next().is_some()
                || !step.clear.is_empty()
        });
        let input = place(graph.input)?;
        let picture = if input.pixel_stride == input.c {
            input
        } else {
            View::buffer(input.offset, n, h, w, input.c, 0)
        };
        Ok(Self {
            #[cfg(feature = "gpu")]
            input,
            picture,
            views,
            steps,
            arena_len,
        })
    }
}

fn too_large(n: usize, h: usize, w: usize) -> Error {
    Error::limit(
        "input",
        format!("{n} pictures of {h}x{w} need more than {} GiB of memory", MAX_ARENA_BYTES >> 30),
    )
}

/// One past the last float that a buffer may touch, if that is a number.
fn element_end(view: &View) -> Option<usize> {
    view.n.checked_mul(view.image_stride)?.checked_next_multiple_of(ALIGNMENT)
}

/// For each node, whether any of `wanted` depends on it.
fn needed_nodes(graph: &Graph, wanted: &[ValueId]) -> Vec<bool> {
    let mut is_needed = vec![false; graph.channels.len()];
    wanted.iter().for_each(|value| is_needed[value.0] = true);
    let mut needed = vec![false; graph.nodes.len()];
    for (idx, node) in graph.nodes.iter().enumerate().rev() {
        if is_needed[node.output.0] {
            needed[idx] = true;
            node.inputs.iter().for_each(|input| is_needed[input.0] = true);
        }
    }
    needed
}

/// Height and width of each needed value; `[0, 0]` for the others.
fn infer_sizes(graph: &Graph, needed: &[bool], input: Hw) -> Result<Vec<Hw>> {
    let mut sizes = vec![[0, 0]; graph.channels.len()];
    sizes[graph.input.0] = input;
    for (node, _) in graph.nodes.iter().zip(needed).filter(|(_, needed)| **needed) {
        let inputs: Vec<Hw> = node.inputs.iter().map(|value| sizes[value.0]).collect();
        let size = node.op.kernel().output_hw(&inputs).map_err(|message| {
            Error::shape(&node.at, format!("{message} (with an input of {}x{})", input[0], input[1]))
        })?;
        sizes[node.output.0] = size;
    }
    Ok(sizes)
}

/// The round in which each node runs, counted from one, by its index; views have none of their own.
fn rounds(graph: &Graph, layout: &Layout, needed: &[bool], order: Order) -> Vec<usize> {
    let is_step = |idx: usize| needed[idx] && !matches!(graph.nodes[idx].op, Op::Slice(_));
    if order == Order::Sequence {
        let mut next = 0;
        let mut number = |idx| {
            next += usize::from(is_step(idx));
            next
        };
        return (0..graph.nodes.len()).map(&mut number).collect();
    }
    // Rounds until the end, first of what takes a value, then of what gives it.
    let mut after = vec![0usize; graph.channels.len()];
    let mut left = vec![0usize; graph.nodes.len()];
    for (idx, node) in graph.nodes.iter().enumerate().rev().filter(|(idx, _)| needed[*idx]) {
        let costs_nothing = match node.op {
            Op::Slice(_) => true,
            Op::Concat(_) => lies_in_place(graph, layout, &node.inputs, node.output),
            _ => false,
        };
        left[idx] = after[node.output.0] + usize::from(!costs_nothing);
        for input in &node.inputs {
            after[input.0] = after[input.0].max(left[idx]);
        }
    }
    let last = left.iter().copied().max().unwrap_or(0);
    left.iter().map(|left| last + 1 - (*left).max(1)).collect()
}

/// Whether all inputs of a concatenation are written where it wants them.
fn lies_in_place(graph: &Graph, layout: &Layout, inputs: &[ValueId], output: ValueId) -> bool {
    let (buffer, mut channel) = layout.resolve(output);
    inputs.iter().all(|&input| {
        let expected = (buffer, channel);
        channel += graph.channels[input.0];
        layout.resolve(input) == expected
    })
}

/// The buffers of a plan before they have a place. Rounds are counted from one: round zero writes the picture.
struct Buffers<'a> {
    graph: &'a Graph,
    sizes: &'a [Hw],
    target: &'a dyn Target,
    halo: Vec<usize>,
    life: Vec<Option<Range<usize>>>,
    step_nodes: Vec<usize>,
    step_of: Vec<usize>,
}

impl<'a> Buffers<'a> {
    fn new(
        graph: &'a Graph,
        layout: &Layout,
        needed: &[bool],
        sizes: &'a [Hw],
        wanted: &[ValueId],
        target: &'a dyn Target,
    ) -> Self {
        let n_values = graph.channels.len();
        let mut buffers = Self {
            graph,
            sizes,
            target,
            halo: vec![0; n_values],
            life: vec![None; n_values],
            step_nodes: Vec::new(),
            step_of: rounds(graph, layout, needed, target.order()),
        };
        buffers.touch(layout, graph.input, 0);
        for (idx, node) in graph.nodes.iter().enumerate().filter(|(idx, _)| needed[*idx]) {
            if matches!(node.op, Op::Slice(_)) {
                continue;
            }
            buffers.step_nodes.push(idx);
            let step = buffers.step_of[idx];
            buffers.touch(layout, node.output, step);
            for &input in &node.inputs {
                buffers.touch(layout, input, step);
                let (root, _) = layout.resolve(input);
                buffers.halo[root.0] = buffers.halo[root.0].max(target.halo(&node.op));
            }
        }
        buffers.step_nodes.sort_by_key(|&idx| buffers.step_of[idx]);
        let end = buffers.step_nodes.last().map_or(0, |&idx| buffers.step_of[idx]) + 1;
        for &value in wanted {
            buffers.touch(layout, value, end);
        }
        buffers
    }

    fn touch(&mut self, layout: &Layout, value: ValueId, step: usize) {
        let (root, _) = layout.resolve(value);
        let life = self.life[root.0].get_or_insert(step..step + 1);
        life.start = life.start.min(step);
        life.end = life.end.max(step + 1);
    }

    fn lives(&self) -> impl Iterator<Item = (ValueId, Range<usize>)> {
        self.life.iter().enumerate().filter_map(|(idx, life)| Some((ValueId(idx), life.clone()?)))
    }

    /// The whole buffer of `root` at `offset`, unless its size overflows.
    fn view(&self, root: ValueId, n: usize, offset: usize) -> Option<View> {
        let (c, halo) = (self.graph.channels[root.0], self.halo[root.0]);
        let [h, w] = self.sizes[root.0];
        let pixel_stride = self.target.pixel_stride(c);
        let row_stride = w.checked_add(2 * halo)?.checked_mul(pixel_stride)?;
        let image_stride = h.checked_add(2 * halo)?.checked_mul(row_stride)?;
        Some(View {
            offset: offset + halo * (row_stride + pixel_stride),
            n,
            h,
            w,
            c,
            pixel_stride,
            row_stride,
            image_stride,
            halo,
        })
    }
}

/// Packs the tenancies so that none that live at the same time overlap; returns the length of the arena.
///
/// Largest first, each at the lowest place that is free during its life: within a few percent of the peak of what is
/// alive at once for these networks.
fn assign_offsets(tenancies: &mut [Tenancy]) -> Option<usize> {
    let mut order: Vec<usize> = (0..tenancies.len()).collect();
    order.sort_by_key(|&idx| (std::cmp::Reverse(tenancies[idx].len), idx));
    let mut placed: Vec<usize> = Vec::new();
    let mut arena_len = 0usize;
    for idx in order {
        let mut neighbours: Vec<(usize, usize)> = placed
            .iter()
            .map(|&other| &tenancies[other])
            .filter(|other| {
                other.steps.start < tenancies[idx].steps.end && tenancies[idx].steps.start < other.steps.end
            })
            .map(|other| (other.offset, other.offset + other.len))
            .collect();
        neighbours.sort_unstable();
        let len = tenancies[idx].len.checked_next_multiple_of(ALIGNMENT)?;
        let mut offset = 0usize;
        for (start, end) in neighbours {
            if offset.checked_add(len)? <= start {
                break;
            }
            offset = offset.max(end.checked_next_multiple_of(ALIGNMENT)?);
        }
        tenancies[idx].offset = offset;
        arena_len = arena_len.max(offset.checked_add(len)?);
        placed.push(idx);
    }
    Some(arena_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
        a.start < b.end && b.start < a.end
    }

    proptest! {
        #[test]
        fn what_lives_together_never_overlaps(
            raw in prop::collection::vec((1usize..500, 0usize..20, 1usize..8), 0..40)
        ) {
            let mut tenancies: Vec<Tenancy> = raw
                .into_iter()
                .map(|(len, start, life)| Tenancy { len, steps: start..start + life, offset: 0 })
                .collect();
            let arena_len = assign_offsets(&mut tenancies).expect("small sizes");
            for (idx, a) in tenancies.iter().enumerate() {
                prop_assert_eq!(a.offset % ALIGNMENT, 0);
                prop_assert!(a.offset + a.len <= arena_len);
                for b in &tenancies[..idx] {
                    let apart = a.offset + a.len <= b.offset || b.offset + b.len <= a.offset;
                    prop_assert!(apart || !overlap(&a.steps, &b.steps));
                }
            }
        }
    }
}
