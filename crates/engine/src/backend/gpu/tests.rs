//! What goes wrong on a device, and that shaders and Rust mean the same by a job.

use ferroyolo_shaders::{Element, Lanes, Shader};
use naga::TypeInner;

use super::{FoundLayout, Gpu, Program, Stages, Upload, for_tests, picture};
use crate::backend::Cpu;
use crate::error::ErrorKind;
use crate::graph::Graph;
use crate::modules::{Branches, NetworkHead};
use crate::network::{Network, OnDevice};
use crate::ops::{add, attention, conv2d, global_avg_pool, max_pool2d, upsample};
use crate::tasks::found;
use crate::{modules, weights};

fn members(shader: &Shader) -> Vec<String> {
    let module =
        naga::front::wgsl::parse_str(&shader.wgsl(Element::F32, Lanes::Four)).expect("a valid shader");
    let job = module.types.iter().find(|(_, found)| found.name.as_deref() == Some("Job")).expect("a Job").1;
    let TypeInner::Struct { members, .. } = &job.inner else { panic!("{}: Job is no struct", shader.name) };
    members.iter().map(|member| member.name.clone().expect("a name")).collect()
}

#[test]
fn jobs_are_laid_out_alike() {
    let all = [
        (ferroyolo_shaders::ADD, add::gpu::AddJob::FIELDS),
        (ferroyolo_shaders::ATTENTION, attention::gpu::AttentionJob::FIELDS),
        (ferroyolo_shaders::CONV2D, conv2d::gpu::ConvJob::FIELDS),
        (ferroyolo_shaders::CONV2D_MATRIX_8, conv2d::gpu::ConvJob::FIELDS),
        (ferroyolo_shaders::CONV2D_MATRIX_16, conv2d::gpu::ConvJob::FIELDS),
        (ferroyolo_shaders::CONV2D_DEPTHWISE, conv2d::gpu::DepthwiseJob::FIELDS),
        (ferroyolo_shaders::CONV2D_WIDE, conv2d::gpu::ConvJob::FIELDS),
        (ferroyolo_shaders::DETECTIONS, found::gpu::DetectionsJob::FIELDS),
        (ferroyolo_shaders::GLOBAL_AVG_POOL, global_avg_pool::gpu::MeanJob::FIELDS),
        (ferroyolo_shaders::LETTERBOX, picture::LetterboxJob::FIELDS),
        (ferroyolo_shaders::MASKS, found::masks::MasksJob::FIELDS),
        (ferroyolo_shaders::RESAMPLE, upsample::gpu::ResampleJob::FIELDS),
        (ferroyolo_shaders::TOP_K, found::gpu::TopKJob::FIELDS),
        (ferroyolo_shaders::WINDOW_POOL, max_pool2d::gpu::PoolJob::FIELDS),
    ];
    assert_eq!(all.len(), ferroyolo_shaders::SHADERS.len());
    for (shader, fields) in all {
        assert_eq!(members(&shader), fields, "{}", shader.name);
    }
    let is_weights =
        |fields: &[&str], places: &[usize]| places.iter().map(|&place| fields[place]).eq(["weights", "bias"]);
    assert_eq!(conv2d::gpu::ConvJob::FIELDS[conv2d::gpu::CONV_ACROSS], "tiles_across");
    assert!(is_weights(conv2d::gpu::ConvJob::FIELDS, conv2d::gpu::CONV_WEIGHTS));
    assert!(is_weights(conv2d::gpu::DepthwiseJob::FIELDS, conv2d::gpu::DEPTHWISE_WEIGHTS));
}

/// The model that ships with the command line.
pub(super) fn demo_bytes() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets/demo.safetensors");
    std::fs::read(path).expect("the demo model")
}

/// Its graph and head.
pub(super) fn demo_parts() -> (Graph, NetworkHead) {
    let bytes = demo_bytes();
    let (document, weights) = weights::read(&bytes).expect("a model file");
    modules::build_network(&document, weights).expect("a network")
}

/// Its network, on `gpu`.
pub(super) fn demo(gpu: Gpu) -> Network {
    let (graph, head) = demo_parts();
    Network::on_gpu(graph, head, Cpu::new(Some(1), None).expect("a thread"), gpu)
        .expect("a device with memory")
}

pub(super) const SMALL: ([usize; 3], Branches) = ([1, 64, 64], Branches { one2many: true, one2one: false });

#[test]
fn a_lost_device_is_told() {
    let Some(gpu) = for_tests(Element::F32) else { return };
    let network = demo(gpu);
    let planned = network.plan(SMALL).expect("a plan");
    let mut arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
    let mut device = OnDevice::default();
    network.run(&planned, &mut arena, &mut device).expect("a run");
    network.gpu().expect("the device").destroy();
    for _ in 0..2 {
        let error = network.run(&planned, &mut arena, &mut device).expect_err("the device is gone");
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    }
}

#[test]
fn a_limit_that_is_too_small_is_told() {
    let Some(index) = for_tests(Element::F32).map(|gpu| gpu.adapter().index) else { return };
    // Room for the weights, but not for the activations.
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..wgpu::Limits::default() };
    let network = demo(Gpu::open_within(Some(index), Element::F32, Some(limits)).expect("a device"));
    let error = network.plan(([1, 640, 640], SMALL.1)).expect_err("too small");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("needed for activations"), "{error}");
    network.plan(SMALL).expect("a small picture fits");
}

#[test]
fn weights_that_half_precision_can_not_hold_are_told() {
    let load = |element, value| {
        let (mut graph, head) = demo_parts();
        graph.weights[1].weight[3] = value;
        let gpu = for_tests(element)?;
        Some(Network::on_gpu(graph, head, Cpu::new(Some(1), None).expect("a thread"), gpu))
    };
    for value in [65520.0, -1e6] {
        let Some(loaded) = load(Element::F16, value) else { return };
        let error = loaded.expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::Weights, "{error}");
        assert!(error.at().starts_with("model."), "{error}");
        assert!(load(Element::F32, value).is_none_or(|loaded| loaded.is_ok()));
    }
    assert!(load(Element::F16, 65519.0).is_none_or(|loaded| loaded.is_ok()));
}

#[test]
fn workgroup_memory_that_is_too_small_is_told() {
    let Some(index) = for_tests(Element::F32).map(|gpu| gpu.adapter().index) else { return };
    let gpu = Gpu::open_within(Some(index), Element::F32, Some(wgpu::Limits::default())).expect("a device");
    let op = crate::ops::Attention { heads: 1, key_dim: 2048, head_dim: 32, areas: 1, scale: 1.0 };
    let view = |offset, c| ferroyolo_kernels::View::buffer(offset, 1, 2, 2, c, 0);
    let inputs = [view(0, 2048 + 2048 + 32)];
    let scratch = ferroyolo_kernels::Scratch { offset: 0, len: 0 };
    let io = crate::ops::StepIo { inputs: &inputs, output: view(1 << 16, 32), scratch };
    let stages = Stages { network: vec![(1, attention::gpu::job(&op, &io))], ..Stages::default() };
    let error =
        Program::of_stages(&gpu, stages, 1 << 17, Upload::alike(0..16), Vec::new(), FoundLayout::default())
            .expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("workgroup memory"), "{error}");
}

#[test]
fn sessions_change_between_shapes() {
    let Some(gpu) = for_tests(Element::F32) else { return };
    let network = demo(gpu);
    let mut device = OnDevice::default();
    let run = |shape: [usize; 3], device: &mut OnDevice| {
        let planned = network.plan((shape, SMALL.1)).expect("a plan");
        let mut arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
        network.run(&planned, &mut arena, device).expect("a run");
        let view = planned.plan.views.iter().flatten().last().copied().expect("an output");
        arena.as_slice()[view.offset..][..view.c].to_vec()
    };
    for shape in [[1, 64, 64], [2, 96, 64], [1, 32, 128], [1, 64, 64]] {
        assert_eq!(run(shape, &mut device), run(shape, &mut OnDevice::default()), "{shape:?}");
    }
}
