//! Whether matrix units compute right.

use std::error::Error as _;
use std::sync::Arc;

use ferroyolo_kernels::{Activation, Scratch, View};
use ferroyolo_shaders::Element;

use super::Frame;
use super::device::Gpu;
use super::job::{GpuWeights, Job, Packer};
use super::program::{FoundLayout, Program, Stages, Upload};
use super::variant::{Choose, Variant, variants};
use super::verdict::Refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{Conv2d, ConvWeights, StepIo, conv2d};

/// Largest difference from the plain shader, relative to the larger of one and the largest value.
fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => 2e-5,
        Element::F16 => 4e-3,
    }
}

/// Ways on matrix units that are tried. Not all, for the sake of time: one with a subgroup for each block, and one whose
/// blocks are shared.
const MAX_TRIED: usize = 2;

/// Convolves small maps on the device's matrix units and by the plain shader. Errors with what is wrong if that fails, or
/// if the results differ.
pub(super) fn check(gpu: &Gpu) -> std::result::Result<(), Refusal> {
    match n_ways(gpu) {
        0 => {
            let why = "its workgroups are too small for cooperative matrices".to_owned();
            Err(Refusal { why, is_lasting: false })
        }
        n => check_ways(gpu, n.min(MAX_TRIED)),
    }
}

/// How many ways there are on the device's matrix units.
fn n_ways(gpu: &Gpu) -> usize {
    variants(gpu).iter().filter(|variant| variant.shader.matrix.is_some()).count()
}

fn check_ways(gpu: &Gpu, n_ways: usize) -> std::result::Result<(), Refusal> {
    // Maps and channels of odd sizes, so that there are rests everywhere.
    let strided = Conv2d {
        in_channels: 20,
        out_channels: 36,
        kernel: [3; 2],
        stride: [2; 2],
        padding: [1; 2],
        groups: 1,
        activation: Activation::Silu,
        weights: 0,
    };
    let pointwise = Conv2d { kernel: [1; 2], stride: [1; 2], padding: [0; 2], ..strided.clone() };
    for (op, has_residual) in [(strided, false), (pointwise, true)] {
        let difference = difference(gpu, n_ways, op, has_residual).map_err(|error| Refusal {
            why: format!("its driver fails with cooperative matrices: {}", chain(&error)),
            // Another time there may be memory, or more patience.
            is_lasting: error.kind() != ErrorKind::Limit && gpu.is_patient(),
        })?;
        // Written so that what is no number is refused, too.
        let agrees = difference <= tolerance(gpu.element());
        if !agrees {
            let why = format!("its cooperative matrices compute wrong: they are off by {difference:.1e}");
            return Err(Refusal { why, is_lasting: true });
        }
    }
    // A device that is lost says so by the way.
    gpu.check().map_err(|_| Refusal {
        why: "the device was lost when its cooperative matrices were tried".to_owned(),
        is_lasting: true,
    })
}

/// The error and its causes in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Takes the plain shader for the first dispatch, and then one way after the other that there is on matrix units.
#[derive(Debug)]
struct InTurn(usize);

impl Choose for InTurn {
    fn choose(&mut self, gpu: &Gpu, variants: &[&Variant], _: &[Job]) -> Result<usize> {
        let wants_matrix = self.0 > 0;
        let is_meant = |idx: &usize| variants[*idx].shader.matrix.is_some() == wants_matrix;
        let found = (0..variants.len()).filter(is_meant).nth(self.0.saturating_sub(1));
        self.0 += 1;
        found.ok_or_else(|| Error::device("gpu", format!("{} can't be tried", gpu.adapter().name)))
    }
}

/// How far the results of `op` by the first `n_ways` on matrix units are from those of the plain shader, relative to the
/// larger of one and the largest value.
fn difference(gpu: &Gpu, n_ways: usize, mut op: Conv2d, has_residual: bool) -> Result<f32> {
    let [n, in_h, in_w] = [2, 11, 9];
    let [h, w] = [0, 1].map(|i| ([in_h, in_w][i] + 2 * op.padding[i] - op.kernel[i]) / op.stride[i] + 1);
    let input = View::buffer(0, n, in_h, in_w, op.in_channels, 0);
    let first = (n * input.image_stride).next_multiple_of(16);
    // The residual, the output of the plain shader, and those of the ways.
    let map = |idx: usize| {
        let view = View::buffer(0, n, h, w, op.out_channels, 0);
        View { offset: first + idx * (n * view.image_stride).next_multiple_of(16), ..view }
    };
    let inputs: Vec<View> = std::iter::once(input).chain(has_residual.then(|| map(0))).collect();
    let len = map(n_ways + 2).offset;

    let fan_in = op.in_channels * op.kernel[0] * op.kernel[1];
    let values = ConvWeights {
        weight: noise(op.out_channels * fan_in, 1).map(|value| value / (fan_in as f32).sqrt()).collect(),
        bias: noise(op.out_channels, 2).collect(),
    };
    let mut weights = GpuWeights::default();
    conv2d::gpu::pack(&op, &values, &mut Packer(&mut weights));
    op.weights = 0;
    let job = |idx: usize| {
        let scratch = Scratch { offset: 0, len: 0 };
        conv2d::gpu::job(&op, &weights, &StepIo { inputs: &inputs, output: map(idx), scratch })
    };
    // A round for each, so that each is a dispatch of its own.
    let network = (1..n_ways + 2).map(|idx| (idx, job(idx))).collect();
    let stages = Stages { network, ..Stages::default() };
    let upload = Upload { range: 0..len, pixel: [1, 1] };
    let outputs = std::iter::once(0..len).collect();
    let program =
        Program::of_stages_by(&mut InTurn(0), gpu, stages, len, upload, outputs, FoundLayout::default())?;

    let mut arena: Vec<f32> = noise(len, 3).collect();
    let mut frame = Frame::new(gpu, Arc::new(program), &gpu.weights_buffer(&weights.values)?, None)?;
    frame.run(gpu, &mut arena)?;
    let result = |idx: usize| &arena[map(idx).offset..][..n * map(idx).image_stride];
    let want = result(1);
    let scale = want.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
    let differences =
        (2..n_ways + 2).flat_map(|idx| result(idx).iter().zip(want).map(|(a, b)| (a - b).abs()));
    // A maximum that keeps what is no number.
    let largest = differences.fold(0.0, |largest, value| if value <= largest { largest } else { value });
    Ok(largest / scale)
}

/// Numbers between -1 and 1 that depend on the seed and the position only.
fn noise(len: usize, seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

#[cfg(test)]
mod tests {
    use ferroyolo_shaders::CONV2D_MATRIX_8;

    use super::*;
    use crate::backend::gpu::for_tests;
    use crate::backend::gpu::matrix::MatrixUnits;
    use crate::backend::gpu::tests::{SMALL, demo};
    use crate::network::OnDevice;

    /// A device with matrix units, which few have that are there on machines without a graphics processor.
    fn device() -> Option<(Gpu, MatrixUnits)> {
        let gpu = for_tests(Element::F16)?;
        let units = gpu.matrix_units();
        if units.is_none() {
            let why = gpu.matrix_refusal().unwrap_or_default();
            eprintln!("skipped on matrix units: {}: {why}", gpu.adapter().name);
        }
        Some((gpu, units?))
    }

    #[test]
    fn all_ways_agree_for_subgroups_of_any_size() {
        let Some((mut gpu, units)) = device() else { return };
        let [smallest, largest] = units.subgroup;
        // Workgroups that are made for larger subgroups than the device has are shared by more of them.
        for most in [largest, 2 * largest, 4 * largest] {
            gpu = gpu.with_units(MatrixUnits { subgroup: [smallest, most], ..units });
            check_ways(&gpu, n_ways(&gpu)).expect("the plain shader's results");
        }
    }

    /// The device has not been opened for it, so that nothing with matrices can be compiled.
    #[test]
    fn what_does_not_compile_is_refused_and_passed_over() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        if gpu.matrix_units().is_some() {
            return;
        }
        let gpu = gpu.with_units(MatrixUnits { shader: CONV2D_MATRIX_8, subgroup: [8, 8] });
        assert!(n_ways(&gpu) > 0);
        let refusal = check(&gpu).expect_err("a shader that can't be compiled").why;
        assert!(refusal.starts_with("its driver fails with cooperative matrices: "), "{refusal}");
        assert!(!refusal.contains("can't be tried"), "{refusal}");

        let network = demo(gpu);
        let planned = network.plan(SMALL).expect("a plan of plain ways");
        let mut arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
        network.run(&planned, &mut arena, &mut OnDevice::default()).expect("a run");
    }

    #[test]
    fn wrong_results_are_refused() {
        let Some((gpu, units)) = device() else { return };
        // Too few invocations for the subgroups that there are: some blocks are never summed.
        let half = units.subgroup[0] / 2;
        let gpu = gpu.with_units(MatrixUnits { subgroup: [half; 2], ..units });
        let refusal = check(&gpu).expect_err("results with holes").why;
        assert!(refusal.contains("compute wrong"), "{refusal}");
    }
}
