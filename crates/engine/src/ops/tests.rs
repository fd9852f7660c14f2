//! Every op on every instruction set against its scalar reference.

use ferroyolo_kernels::{
    Activation, Arena, Context, Isa, Scratch, Threads, View, clear_halo, load_planar, store_planar,
};
use proptest::prelude::*;

use super::{
    Add, Attention, AvgPool2d, Concat, Conv2d, ConvTranspose2d, ConvWeights, GlobalAvgPool, Hw, Kernel as _,
    MaxPool2d, Op, PackedWeights, ResizeBilinear, Slice, StepIo, Upsample, UpsampleLike, ZeroPad,
};
use crate::Tensor;
use crate::testing::cases;

/// Largest difference from the reference, relative to the larger of one and the largest expected value.
const TOLERANCE: f32 = 2e-5;

/// What lies around an operand in memory.
#[derive(Clone, Copy, Debug)]
enum Surroundings {
    /// A buffer of its own.
    Alone,
    /// Some channels of a wider buffer.
    Within,
    /// Some channels of a wider buffer, each pixel at a multiple of four.
    #[cfg(feature = "gpu")]
    Aligned,
}

/// Numbers between -1 and 1 that depend on the seed and the position only.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Runs `op` on inputs of `[n, c, h, w]` on every instruction set and compares with the reference.
fn check(op: &Op, weights: &[ConvWeights], inputs: &[[usize; 4]]) {
    let tensors = tensors(inputs);
    let want = op.kernel().reference(&tensors.iter().collect::<Vec<_>>(), weights);
    #[cfg(feature = "gpu")]
    on_gpu::check(op, weights, &tensors, &want, on_gpu::Ways::Some);
    for isa in Isa::available() {
        for n_threads in [1, 3] {
            for surroundings in [Surroundings::Alone, Surroundings::Within] {
                let threads = Threads::new(n_threads).expect("threads");
                let got = run(op, weights, &tensors, Context { isa, threads: &threads }, surroundings);
                let scale = want.data().iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
                assert_eq!(got.shape(), want.shape());
                for (idx, (g, w)) in got.data().iter().zip(want.data()).enumerate() {
                    // Written so that what is no number is told, too.
                    let agrees = (g - w).abs() <= TOLERANCE * scale;
                    assert!(
                        agrees,
                        "{op:?} on {isa:?} {surroundings:?}: element {idx}: got {g}, expected {w}"
                    );
                }
            }
        }
    }
}

/// Noise of these shapes.
fn tensors(shapes: &[[usize; 4]]) -> Vec<Tensor> {
    let tensor = |(seed, shape): (u64, &[usize; 4])| {
        Tensor::new(shape.to_vec(), noise(shape.iter().product(), seed)).expect("a shape")
    };
    (1..).zip(shapes).map(tensor).collect()
}

/// A buffer in the arena for `[n, c, h, w]`, and the view of the operand within it.
fn place(next: &mut usize, [n, c, h, w]: [usize; 4], halo: usize, surroundings: Surroundings) -> [View; 2] {
    let (before, all) = match surroundings {
        Surroundings::Alone => (0, c),
        Surroundings::Within => (5, c + 10),
        #[cfg(feature = "gpu")]
        Surroundings::Aligned => (4, c.next_multiple_of(4) + 8),
    };
    let buffer = View::buffer(*next, n, h, w, all, halo);
    *next += View::buffer_len(n, h, w, all, halo).next_multiple_of(16);
    [buffer, buffer.channels(before, c)]
}

fn run(
    op: &Op,
    weights: &[ConvWeights],
    inputs: &[Tensor],
    context: Context<'_>,
    surroundings: Surroundings,
) -> Tensor {
    let kernel = op.kernel();
    let shapes: Vec<[usize; 4]> = inputs.iter().map(|t| t.shape().try_into().expect("NCHW")).collect();
    let packed: Vec<PackedWeights> = op.clone().pack(weights).map(|(packed, _)| packed).into_iter().collect();
    let sizes: Vec<Hw> = shapes.iter().map(|&[_, _, h, w]| [h, w]).collect();
    let channels: Vec<usize> = shapes.iter().map(|shape| shape[1]).collect();
    let [h, w] = kernel.output_hw(&sizes).expect("inputs that fit");
    let out_shape = [shapes[0][0], kernel.output_channels(&channels).expect("inputs that fit"), h, w];

    let mut next = 0;
    let places: Vec<[View; 2]> =
        shapes.iter().map(|&shape| place(&mut next, shape, kernel.halo(), surroundings)).collect();
    let [_, output] = place(&mut next, out_shape, 1, surroundings);
    let scratch = Scratch { offset: next, len: kernel.scratch_len(&packed, &sizes, context.threads.n()) };
    let mut arena = Arena::new(next + scratch.len).expect("memory");
    arena.as_mut_slice().fill(7.5);
    for (tensor, [buffer, view]) in inputs.iter().zip(&places) {
        clear_halo(context, &mut arena, *buffer);
        let len = tensor.data().len() / view.n;
        for (image, planes) in tensor.data().chunks_exact(len).enumerate() {
            load_planar(context, &mut arena, planes, 1.0, *view, image);
        }
    }
    let untouched = |arena: &Arena| {
        let mut rest = arena.as_slice()[..next].to_vec();
        for (image, y, x) in super::triples(output.n, output.h, output.w) {
            rest[output.index(image, y, x)..][..output.c].fill(0.0);
        }
        rest
    };
    let before = untouched(&arena);
    let views: Vec<View> = places.iter().map(|[_, view]| *view).collect();
    let io = StepIo { inputs: &views, output, scratch };
    context.threads.install(|| op.kernel().run_cpu(context, &mut arena, &packed, &io));
    assert!(untouched(&arena) == before, "{op:?}: wrote beside its output");

    let mut out = Tensor::zeros(out_shape.to_vec()).expect("a shape");
    let (pixels, len) = (h * w, out_shape[1] * h * w);
    for (image, planes) in out.data_mut().chunks_exact_mut(len).enumerate() {
        store_planar(context, &arena, output, image, planes, pixels, 0, Activation::None);
    }
    out
}

/// A convolution with random weights on `[n, in_channels, h, w]`.
#[derive(Clone, Copy, Debug)]
struct ConvCase {
    nhw: [usize; 3],
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    groups: usize,
    activation: Activation,
    residual: bool,
}

const CONV: ConvCase = ConvCase {
    nhw: [1, 5, 7],
    channels: [8, 16],
    kernel: [3, 3],
    stride: 1,
    groups: 1,
    activation: Activation::Silu,
    residual: false,
};

fn check_conv(case: ConvCase) {
    let (op, weights, inputs) = conv(case);
    check(&op, &[weights], &inputs);
}

/// The op, its weights and the shapes of its inputs.
fn conv(case: ConvCase) -> (Op, ConvWeights, Vec<[usize; 4]>) {
    let ConvCase { nhw: [n, h, w], channels: [ic, oc], kernel, stride, groups, activation, residual } = case;
    let conv = Conv2d {
        in_channels: ic,
        out_channels: oc,
        kernel,
        stride: [stride; 2],
        padding: kernel.map(|side| side / 2),
        groups,
        activation,
        weights: 0,
    };
    let fan_in = ic / groups * kernel[0] * kernel[1];
    let weight = noise(oc * fan_in, 11).iter().map(|value| value / (fan_in as f32).sqrt()).collect();
    let weights = ConvWeights { weight, bias: noise(oc, 12) };
    let op = Op::Conv2d(conv);
    let mut inputs = vec![[n, ic, h, w]];
    if residual {
        let [oh, ow] = op.kernel().output_hw(&[[h, w]]).expect("a shape that fits");
        inputs.push([n, oc, oh, ow]);
    }
    (op, weights, inputs)
}

/// The same cases on a graphics processor, or a program that stands in for one.
#[cfg(feature = "gpu")]
mod on_gpu {
    use std::sync::{Arc, OnceLock};

    use ferroyolo_kernels::{
        Activation, Arena, Context, Isa, Scratch, Threads, View, load_planar, store_planar,
    };
    use ferroyolo_shaders::{Element, Reduce};

    use super::{Surroundings, place};
    use crate::Tensor;
    use crate::backend::gpu::{
        Choose, FoundLayout, Frame, Gpu, GpuWeights, Guess, Nth, Program, Stages, Upload, Variant, for_tests,
        for_tests_in_rows, variants,
    };
    use crate::ops::{ConvWeights, Op, StepIo, gpu};

    /// Largest differences from the reference, relative to the larger of one and the largest expected value. Inputs and
    /// weights are rounded to 16 bits, too.
    const TOLERANCES: [(Element, f32); 2] = [(Element::F32, 2e-5), (Element::F16, 6e-3)];

    /// The device of all cases with the smallest limits.
    fn smallest() -> Option<&'static Gpu> {
        static DEVICE: OnceLock<Option<Gpu>> = OnceLock::new();
        DEVICE.get_or_init(|| for_tests_in_rows(Element::F32)).as_ref()
    }

    /// The device of all cases with these numbers, which puts together in this way what invocations have.
    fn device(element: Element, reduce: Reduce) -> Option<&'static Gpu> {
        static DEVICES: [OnceLock<Option<Gpu>>; 4] = [const { OnceLock::new() }; 4];
        let idx = 2 * usize::from(element == Element::F16) + usize::from(reduce == Reduce::Subgroups);
        let open = || {
            let gpu = for_tests(element)?;
            let name = gpu.adapter().name.clone();
            let gpu = gpu.reducing(reduce);
            if gpu.is_none() {
                eprintln!("skipped with subgroups: {name} has none");
            }
            gpu
        };
        DEVICES[idx].get_or_init(open).as_ref()
    }

    /// The ways to put together what invocations have that make a difference to `op`.
    fn reductions(op: &Op) -> &'static [Reduce] {
        match op {
            Op::Attention(_) | Op::GlobalAvgPool(_) => &Reduce::ALL,
            _ => &[Reduce::Barriers],
        }
    }

    /// Which ways to convolve are tried.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Ways {
        /// Three, others for other shapes.
        Some,
        All,
    }

    pub(super) fn check(op: &Op, weights: &[ConvWeights], inputs: &[Tensor], want: &Tensor, ways: Ways) {
        let devices = TOLERANCES.iter().flat_map(|&(element, tolerance)| {
            let of_way = move |&reduce| Some((device(element, reduce)?, tolerance));
            reductions(op).iter().filter_map(of_way)
        });
        for (gpu, tolerance) in devices {
            for surroundings in [Surroundings::Alone, Surroundings::Within, Surroundings::Aligned] {
                let case = Case { op, weights, inputs, surroundings };
                for mut choice in choices(gpu, &case, ways) {
                    compare(gpu, &case, want, tolerance, &mut *choice);
                }
            }
        }
        let Some(gpu) = smallest() else { return };
        let case = Case { op, weights, inputs, surroundings: Surroundings::Aligned };
        compare(gpu, &case, want, TOLERANCES[0].1, &mut Guess);
    }

    /// Compares each way that asks for vectors ahead with the one that is the same otherwise.
    pub(super) fn check_ahead(op: &Op, weights: &[ConvWeights], inputs: &[Tensor]) {
        let shapes: Vec<[usize; 2]> =
            inputs.iter().map(|tensor| [tensor.shape()[2], tensor.shape()[3]]).collect();
        let [h, w] = op.kernel().output_hw(&shapes).expect("inputs that fit");
        let channels: Vec<usize> = inputs.iter().map(|tensor| tensor.shape()[1]).collect();
        let out_channels = op.kernel().output_channels(&channels).expect("inputs that fit");
        let out_shape = [inputs[0].shape()[0], out_channels, h, w];
        let devices = TOLERANCES.iter().filter_map(|&(element, _)| device(element, Reduce::Barriers));
        for gpu in devices {
            let ways = variants(gpu);
            let case = Case { op, weights, inputs, surroundings: Surroundings::Aligned };
            let mut n_compared = 0;
            for (idx, way) in ways.iter().enumerate().filter(|(_, way)| way.is_ahead) {
                let is_twin = |other: &Variant| other.clone().ahead().name() == way.name();
                let twin = ways.iter().position(|other| !other.is_ahead && is_twin(other)).expect("its like");
                let [got, want] = [idx, twin].map(|idx| run(gpu, &case, &out_shape, &mut Nth(idx)));
                let bits = |tensor: &Tensor| tensor.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(&got) == bits(&want), "{op:?}: {}", way.name());
                n_compared += 1;
            }
            assert!(n_compared > 0);
        }
    }

    fn compare(gpu: &Gpu, case: &Case<'_>, want: &Tensor, tolerance: f32, choice: &mut dyn Choose) {
        let got = run(gpu, case, want.shape(), choice);
        let scale = want.data().iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        for (idx, (g, w)) in got.data().iter().zip(want.data()).enumerate() {
            // Written so that what is no number is told, too.
            let agrees = (g - w).abs() <= tolerance * scale;
            let Case { op, surroundings, .. } = case;
            assert!(
                agrees,
                "{op:?} on the GPU, tolerance {tolerance}, {:?} {surroundings:?} {choice:?}: element {idx}: got {g}, \
                 expected {w}",
                gpu.reduction()
            );
        }
    }

    /// The ways in which an op is tried: of convolutions that lie as in a network several.
    fn choices(gpu: &Gpu, case: &Case<'_>, ways: Ways) -> Vec<Box<dyn Choose>> {
        let n = variants(gpu).len();
        let first: usize = case.inputs.iter().flat_map(Tensor::shape).sum();
        let indices = match (case.op, case.surroundings, ways) {
            (Op::Conv2d(_) | Op::ConvTranspose2d(_), Surroundings::Aligned, Ways::Some) => {
                vec![first, first + n / 3, first + 2 * n / 3]
            }
            (Op::Conv2d(_), Surroundings::Aligned, Ways::All) => (0..n).collect(),
            _ => return vec![Box::new(Guess)],
        };
        indices.into_iter().map(|idx| Box::new(Nth(idx)) as Box<dyn Choose>).collect()
    }

    /// An op and its operands.
    struct Case<'a> {
        op: &'a Op,
        weights: &'a [ConvWeights],
        inputs: &'a [Tensor],
        surroundings: Surroundings,
    }

    fn run(gpu: &Gpu, case: &Case<'_>, out_shape: &[usize], choice: &mut dyn Choose) -> Tensor {
        let &Case { op, weights, inputs, surroundings } = case;
        let threads = Threads::new(1).expect("a thread");
        let context = Context { isa: Isa::best(), threads: &threads };
        let mut next = 0;
        let nchw = |shape: &[usize]| -> [usize; 4] { shape.try_into().expect("NCHW") };
        let mut view = |shape: &[usize]| place(&mut next, nchw(shape), 0, surroundings)[1];
        let views: Vec<View> = inputs.iter().map(|tensor| view(tensor.shape())).collect();
        let output = view(out_shape);
        let mut arena = Arena::new(next).expect("memory");
        // Nothing of what lies around may get into a sum, not even times zero.
        arena.as_mut_slice().fill(f32::NAN);
        for (tensor, view) in inputs.iter().zip(&views) {
            for (image, planes) in tensor.data().chunks_exact(view.c * view.pixels()).enumerate() {
                load_planar(context, &mut arena, planes, 1.0, *view, image);
            }
        }
        let mut op = op.clone();
        let mut packed = GpuWeights::default();
        gpu::pack(&mut op, weights, &mut packed);
        let io = StepIo { inputs: &views, output, scratch: Scratch { offset: 0, len: 0 } };
        let network = gpu::jobs(&op, &packed, &io).into_iter().map(|job| (1, job)).collect();
        let stages = Stages { network, ..Stages::default() };
        let upload = Upload::alike(0..next);
        let outputs = std::iter::once(0..next).collect();
        let found = FoundLayout::default();
        let program =
            Program::of_stages_by(choice, gpu, stages, next, upload, outputs, found).expect("a program");
        let buffer = gpu.weights_buffer(&packed.values).expect("memory");
        let mut frame = Frame::new(gpu, Arc::new(program), &buffer, None).expect("a frame");
        let untouched = |arena: &Arena| {
            let mut rest = arena.as_slice().to_vec();
            for (image, y, x) in crate::ops::triples(output.n, output.h, output.w) {
                rest[output.index(image, y, x)..][..output.c].fill(0.0);
            }
            gpu.rounded(&rest).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let before = untouched(&arena);
        frame.run(gpu, arena.as_mut_slice()).expect("a run");
        assert!(untouched(&arena) == before, "{op:?} on the GPU: wrote beside its output");

        let mut out = Tensor::zeros(out_shape.to_vec()).expect("a shape");
        let (pixels, len) = (output.pixels(), output.c * output.pixels());
        for (image, planes) in out.data_mut().chunks_exact_mut(len).enumerate() {
            store_planar(context, &arena, output, image, planes, pixels, 0, Activation::None);
        }
        out
    }
}

#[test]
fn conv_kernels_and_strides() {
    for kernel in [[1, 1], [2, 2], [3, 3], [5, 5], [6, 6], [7, 7], [1, 3]] {
        for stride in [1, 2] {
            check_conv(ConvCase { kernel, stride, nhw: [1, 9, 11], ..CONV });
        }
    }
}

#[cfg(feature = "gpu")]
#[test]
fn every_way_to_convolve_equals_the_definition() {
    // Rests of tiles in both directions, a pixel taken once, and an inner dimension that is no whole number of rounds.
    for case in [
        ConvCase { nhw: [2, 9, 11], channels: [21, 150], stride: 2, residual: false, ..CONV },
        ConvCase { nhw: [1, 13, 12], channels: [40, 68], kernel: [1, 1], residual: true, ..CONV },
        // One round only, and rounds of many cells of the kernel.
        ConvCase { nhw: [1, 6, 7], channels: [3, 5], kernel: [1, 1], stride: 2, ..CONV },
        ConvCase { nhw: [1, 10, 9], channels: [3, 20], ..CONV },
    ] {
        let (op, weights, inputs) = conv(case);
        let (tensors, weights) = (tensors(&inputs), [weights]);
        let want = op.kernel().reference(&tensors.iter().collect::<Vec<_>>(), &weights);
        on_gpu::check(&op, &weights, &tensors, &want, on_gpu::Ways::All);
    }
}

/// Vectors that are asked for ahead go into the same sums in the same order.
#[cfg(feature = "gpu")]
#[test]
fn ways_that_ask_ahead_equal_the_others_to_the_bit() {
    for case in [
        ConvCase { nhw: [1, 9, 11], channels: [21, 38], residual: true, ..CONV },
        ConvCase { nhw: [2, 6, 7], channels: [132, 36], kernel: [1, 1], ..CONV },
    ] {
        let (op, weights, inputs) = conv(case);
        on_gpu::check_ahead(&op, &[weights], &tensors(&inputs));
    }
}

#[test]
fn conv_channel_counts() {
    for channels in [[1, 1], [3, 16], [8, 17], [24, 80], [33, 48], [64, 64], [40, 96]] {
        check_conv(ConvCase { channels, ..CONV });
        check_conv(ConvCase { channels, kernel: [1, 1], ..CONV });
    }
}

#[test]
fn conv_map_sizes() {
    for nhw in [[1, 1, 1], [1, 2, 3], [3, 4, 4], [2, 13, 20], [1, 7, 33], [1, 40, 40]] {
        check_conv(ConvCase { nhw, channels: [32, 32], ..CONV });
        check_conv(ConvCase { nhw, channels: [32, 32], stride: 2, ..CONV });
    }
}

#[test]
fn conv_epilogues() {
    for activation in [Activation::None, Activation::Relu, Activation::Silu] {
        for channels in [[16, 12], [32, 64]] {
            check_conv(ConvCase { activation, channels, residual: true, nhw: [2, 8, 8], ..CONV });
        }
    }
}

#[test]
fn conv_depthwise() {
    for channels in [3, 16, 24, 80] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)] {
            let channels = [channels; 2];
            check_conv(ConvCase {
                channels,
                kernel: [kernel; 2],
                stride,
                groups: channels[0],
                nhw: [2, 9, 13],
                ..CONV
            });
        }
    }
    check_conv(ConvCase { channels: [24; 2], groups: 24, residual: true, ..CONV });
}

#[test]
fn max_pool() {
    for (kernel, stride, padding) in [(5, 1, 2), (9, 1, 4), (13, 1, 6), (2, 2, 0), (3, 2, 1)] {
        for shape in [[1, 16, 8, 8], [2, 5, 9, 4], [1, 33, 13, 20]] {
            check(&Op::MaxPool2d(MaxPool2d { kernel, stride, padding }), &[], &[shape]);
        }
    }
}

#[test]
fn data_movement() {
    for shape in [[1, 16, 3, 5], [2, 7, 4, 4], [1, 1, 1, 1], [1, 40, 9, 2]] {
        check(&Op::Upsample(Upsample { factor: 2 }), &[], &[shape]);
        check(&Op::Upsample(Upsample { factor: 3 }), &[], &[shape]);
        check(&Op::Add(Add), &[], &[shape, shape]);
        let [n, c, h, w] = shape;
        for factor in [1, 2, 4] {
            check(&Op::UpsampleLike(UpsampleLike), &[], &[shape, [n, 2, h * factor, w * factor]]);
        }
        check(&Op::ZeroPad(ZeroPad { top: 0, bottom: 1, left: 0, right: 1 }), &[], &[shape]);
        check(&Op::ZeroPad(ZeroPad { top: 2, bottom: 0, left: 1, right: 3 }), &[], &[shape]);
        check(&Op::Concat(Concat), &[], &[shape, [n, c + 3, h, w], shape]);
    }
}

#[test]
fn averages() {
    for shape in [[1, 16, 8, 8], [2, 5, 9, 4], [1, 33, 13, 20]] {
        check(&Op::AvgPool2d(AvgPool2d { kernel: 2, stride: 1 }), &[], &[shape]);
        check(&Op::AvgPool2d(AvgPool2d { kernel: 3, stride: 2 }), &[], &[shape]);
        check(&Op::GlobalAvgPool(GlobalAvgPool), &[], &[shape]);
    }
}

#[test]
fn bilinear() {
    for shape in [[1, 16, 3, 5], [2, 7, 4, 4], [1, 1, 1, 1], [1, 40, 9, 2]] {
        for (factor, align_corners) in [(2, true), (2, false), (3, true), (4, false), (1, true)] {
            check(&Op::ResizeBilinear(ResizeBilinear { factor, align_corners }), &[], &[shape]);
        }
    }
}

#[test]
fn conv_transpose() {
    for channels in [[8, 16], [32, 32], [5, 7], [1, 40]] {
        for (nhw, kernel) in [([1, 4, 5], [2, 2]), ([2, 3, 3], [2, 2]), ([1, 6, 2], [3, 1])] {
            let ([ic, oc], [n, h, w]) = (channels, nhw);
            let activation = if kernel == [2, 2] { Activation::None } else { Activation::Silu };
            let op = ConvTranspose2d { in_channels: ic, out_channels: oc, kernel, activation, weights: 0 };
            let weight = noise(ic * oc * kernel[0] * kernel[1], 13);
            let weights = [ConvWeights { weight, bias: noise(oc, 14) }];
            check(&Op::ConvTranspose2d(op), &weights, &[[n, ic, h, w]]);
        }
    }
}

#[test]
fn attention_within_areas() {
    for (heads, dim) in [(1, 8), (2, 32), (3, 7)] {
        for ([n, h, w], areas) in [([1, 4, 4], 4), ([2, 6, 10], 4), ([1, 8, 5], 4), ([1, 6, 2], 3)] {
            let op = Attention { heads, key_dim: dim, head_dim: dim, areas, scale: 0.3 };
            check(&Op::Attention(op), &[], &[[n, heads * 3 * dim, h, w]]);
        }
    }
    let op = Attention { heads: 1, key_dim: 2, head_dim: 2, areas: 4, scale: 1.0 };
    assert_eq!(op.output_hw(&[[3, 5]]).unwrap_err(), "3x5 cells can't be cut into 4 equal areas");
}

#[test]
fn attention() {
    for (heads, key_dim, head_dim) in [(1, 4, 8), (2, 16, 32), (2, 32, 64), (3, 5, 7)] {
        for nhw in [[1, 4, 4], [2, 3, 7], [1, 20, 20]] {
            check_attention(nhw, [heads, key_dim, head_dim], 1);
        }
    }
    // More channels than one workgroup of a graphics processor sums, by whole vectors and not.
    for head_dim in [260, 518] {
        check_attention([1, 3, 5], [2, 3, head_dim], 1);
    }
}

/// Attention of `[heads, key_dim, head_dim]` with the usual scale.
fn check_attention([n, h, w]: [usize; 3], [heads, key_dim, head_dim]: [usize; 3], areas: usize) {
    let scale = (key_dim as f32).powf(-0.5);
    let op = Op::Attention(Attention { heads, key_dim, head_dim, areas, scale });
    check(&op, &[], &[[n, heads * (2 * key_dim + head_dim), h, w]]);
}

#[test]
fn inputs_that_do_not_fit_are_told() {
    let conv = Op::Conv2d(Conv2d {
        in_channels: 4,
        out_channels: 8,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [0, 0],
        groups: 1,
        activation: Activation::None,
        weights: 0,
    });
    assert_eq!(conv.kernel().output_channels(&[5]).unwrap_err(), "got 5 input channels, expected 4");
    assert!(conv.kernel().output_channels(&[4, 7]).is_err());
    assert!(conv.kernel().output_hw(&[[2, 9]]).is_err());
    assert!(conv.kernel().output_hw(&[[9, 9], [9, 9]]).is_err());
    let slice = Op::Slice(Slice { from: 3, len: 2 });
    assert_eq!(slice.kernel().output_channels(&[5]), Ok(2));
    assert!(slice.kernel().output_channels(&[4]).is_err());
    assert!(Op::Add(Add).kernel().output_channels(&[4, 5]).is_err());
    assert!(Op::Add(Add).kernel().output_hw(&[[1, 2], [2, 1]]).is_err());
    assert!(Op::Concat(Concat).kernel().output_hw(&[[1, 2], [2, 1]]).is_err());
    let attention = Op::Attention(Attention { heads: 2, key_dim: 3, head_dim: 4, areas: 1, scale: 1.0 });
    assert_eq!(attention.kernel().output_channels(&[20]), Ok(8));
    assert!(attention.kernel().output_channels(&[21]).is_err());
    assert!(GlobalAvgPool.output_hw(&[[0, 4]]).is_err());
    assert!(AvgPool2d { kernel: 2, stride: 1 }.output_hw(&[[1, 4]]).is_err());
    for (from, to) in [([2, 2], [5, 4]), ([2, 2], [4, 8]), ([4, 4], [2, 2])] {
        assert!(UpsampleLike.output_hw(&[from, to]).is_err());
    }
    let resize = ResizeBilinear { factor: 64, align_corners: true };
    assert!(resize.output_hw(&[[1 << 20, 1]]).is_err());
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_convolution_equals_its_definition(
        nhw in (1usize..3, 1usize..14, 1usize..20),
        channels in (1usize..50, 1usize..70),
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        stride in 1usize..3,
        residual: bool,
    ) {
        let (n, h, w) = nhw;
        check_conv(ConvCase {
            nhw: [n, h, w],
            channels: [channels.0, channels.1],
            kernel: [kernel; 2],
            stride,
            residual,
            ..CONV
        });
    }

    #[test]
    fn any_attention_equals_its_definition(
        nhw in (1usize..3, 1usize..14, 1usize..18),
        heads in 1usize..3,
        key_dim in prop::sample::select(vec![1usize, 6, 32]),
        head_dim in 1usize..80,
        areas in 1usize..4,
    ) {
        let (n, h, w) = nhw;
        check_attention([n, h * areas, w], [heads, key_dim, head_dim], areas);
    }

    #[test]
    fn any_mean_equals_its_definition(
        n in 1usize..3,
        channels in 1usize..40,
        hw in (1usize..24, 1usize..24),
    ) {
        check(&Op::GlobalAvgPool(GlobalAvgPool), &[], &[[n, channels, hw.0, hw.1]]);
    }
}
