//! A whole graph by the scalar references of its ops, to judge fusion, layout, plan and kernels together.

use std::sync::Arc;

#[cfg(feature = "gpu")]
use ferroyolo_kernels::View;
use ferroyolo_kernels::{Activation, Arena, Isa, clear_halo, load_planar, store_planar};
#[cfg(feature = "gpu")]
use ferroyolo_shaders::Element;

use super::{Graph, ValueId};
use crate::backend::Cpu;
use crate::modules::Branches;
use crate::network::{Network, OnDevice};
use crate::{Tensor, modules, weights};

/// Largest difference from the reference, relative to the largest value of an output.
const TOLERANCE: f32 = 1e-4;

/// All values of `graph` for one input.
fn interpret(graph: &Graph, input: &Tensor) -> Vec<Option<Arc<Tensor>>> {
    let mut values: Vec<Option<Arc<Tensor>>> = vec![None; graph.channels.len()];
    values[graph.input.0] = Some(Arc::new(input.clone()));
    for node in &graph.nodes {
        let inputs: Vec<Arc<Tensor>> =
            node.inputs.iter().map(|input| values[input.0].clone().expect("computed before")).collect();
        let inputs: Vec<&Tensor> = inputs.iter().map(AsRef::as_ref).collect();
        values[node.output.0] = Some(Arc::new(node.op.kernel().reference(&inputs, &graph.weights)));
    }
    values
}

/// Runs the model file on `[2, 3, h, w]` and compares the values that its head decodes with the references.
fn check(name: &str, hw: [usize; 2]) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    let bytes = std::fs::read(format!("{root}{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (document, weights) = weights::read(&bytes).expect("a model file");
    let (graph, head) = modules::build_network(&document, weights).expect("a network");
    let outputs: Vec<ValueId> = head.outputs();
    let [h, w] = hw;
    let pixels: Vec<f32> = (0..2 * 3 * h * w).map(|idx| ((idx * 7919) % 1009) as f32 / 1009.0).collect();
    let images = Tensor::new(vec![2, 3, h, w], pixels).expect("a shape that fits");
    let want = interpret(&graph, &images);

    for isa in Isa::available() {
        let cpu = Cpu::new(Some(2), Some(isa)).expect("threads");
        let network = Network::new(graph.clone(), head.clone(), cpu);
        compare(&format!("{name} on {isa:?}"), &network, &outputs, &images, &want);
    }
    #[cfg(feature = "gpu")]
    check_rounds(name, &graph, &outputs, [2, h, w]);
    #[cfg(feature = "gpu")]
    if let Some(gpu) = crate::backend::gpu::for_tests(Element::F32) {
        let cpu = Cpu::new(Some(2), None).expect("threads");
        let network = Network::on_gpu(graph, head, cpu, gpu).expect("a device with memory");
        compare(&format!("{name} on the GPU"), &network, &outputs, &images, &want);
    }
}

/// The ops of a round neither take what another of them gives, nor write where another reads or writes.
#[cfg(feature = "gpu")]
fn check_rounds(name: &str, graph: &Graph, outputs: &[ValueId], shape: [usize; 3]) {
    let mut graph = graph.clone();
    super::fuse(&mut graph);
    super::flatten_pools(&mut graph);
    let plan = super::Plan::new(&graph, &crate::backend::gpu::GpuTarget, shape, outputs).expect("a plan");
    assert!(plan.steps.is_sorted_by_key(|step| step.round), "{name}: rounds go back");
    let elements = |view: &View| {
        let view = *view;
        let pixels =
            (0..view.n).flat_map(move |n| (0..view.h).flat_map(move |y| (0..view.w).map(move |x| (n, y, x))));
        pixels.flat_map(move |(n, y, x)| view.index(n, y, x)..view.index(n, y, x) + view.c)
    };
    // Which step has written an element last, and in which round.
    let mut writer = vec![(0, usize::MAX); plan.arena_len];
    let mut n_together = 0;
    for steps in plan.steps.chunk_by(|a, b| a.round == b.round) {
        let round = steps[0].round;
        n_together += usize::from(steps.len() > 1);
        for step in steps {
            for at in elements(&step.output) {
                let other = writer[at];
                let place = &graph.nodes[step.node].at;
                assert_ne!(other.0, round, "{name}: {place} writes what node {} writes", other.1);
                writer[at] = (round, step.node);
            }
        }
        for step in steps {
            for at in step.inputs.iter().flat_map(elements) {
                let (written, node) = writer[at];
                let place = &graph.nodes[step.node].at;
                // A concatenation covers the inputs that lie in place.
                let is_own = node == step.node;
                assert!(written != round || is_own, "{name}: {place} reads what node {node} writes");
            }
        }
    }
    // Only a head of several maps is sure to have alike branches.
    assert!(n_together > 0 || outputs.len() == 1, "{name}: no round has two ops");
}

fn compare(
    what: &str,
    network: &Network,
    outputs: &[ValueId],
    images: &Tensor,
    want: &[Option<Arc<Tensor>>],
) {
    let &[n, c, h, w] = images.shape() else { panic!("{what}: expected NCHW") };
    let planned = network.plan(([n, h, w], Branches { one2many: true, one2one: true })).expect("a plan");
    let plan = &planned.plan;
    let context = network.cpu().context();
    let mut arena = Arena::new(plan.arena_len).expect("memory");
    // What an earlier picture left behind must not show.
    arena.as_mut_slice().fill(f32::NAN);
    clear_halo(context, &mut arena, plan.picture);
    for (image, planes) in images.data().chunks_exact(c * h * w).enumerate() {
        load_planar(context, &mut arena, planes, 1.0, plan.picture, image);
    }
    network
        .run(&planned, &mut arena, &mut OnDevice::default())
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    for &output in outputs {
        let view = plan.views[output.0].expect("a planned output");
        let want = want[output.0].as_ref().expect("a computed output");
        let scale = want.data().iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        let (pixels, len) = (view.pixels(), view.c * view.pixels());
        let mut got = vec![0.0; len];
        for (image, want) in want.data().chunks_exact(len).enumerate() {
            store_planar(context, &arena, view, image, &mut got, pixels, 0, Activation::None);
            let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
            let is_close = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= TOLERANCE * scale);
            assert!(is_close, "{what}, output {output:?}, image {image}: differs by {worst}");
        }
    }
}

#[test]
fn demo_network_equals_its_references() {
    check("crates/cli/assets/demo.safetensors", [32, 64]);
}

#[test]
fn narrow_networks_equal_their_references() {
    for name in [
        "detect8",
        "detect10",
        "detect26",
        "detectx",
        "segment9",
        "segment26",
        "pose8",
        "pose26",
        "obb12",
        "obb26",
        "classify",
        "semantic26",
        "depth26",
    ] {
        // So that maps of stride 16 can be cut into four areas.
        check(&format!("tests/goldens/{name}.model.safetensors"), [64, 32]);
    }
}
