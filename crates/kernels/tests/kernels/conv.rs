use ferroyolo_kernels::{
    Activation, Arena, Context, Conv2d, ConvSpec, Isa, PackedConv, Scratch, Threads, View, conv2d,
};
use proptest::prelude::*;

use crate::support::{Layout, Noise, activated, at, cases, check, noisy_arena};

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    in_hw: [usize; 2],
    ic: usize,
    oc: usize,
    k: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    /// Rows and columns of the output beyond those of `out_hw`, as far as the halo reaches.
    extra: usize,
    /// Channels of the input's and the output's buffers before and after the slice.
    around: [[usize; 2]; 2],
    halo: usize,
    act: Activation,
    residual: bool,
    scale: bool,
}

const BASE: Case = Case {
    n: 1,
    in_hw: [8, 8],
    ic: 16,
    oc: 16,
    k: [3, 3],
    stride: [1, 1],
    pad: [1, 1],
    extra: 0,
    around: [[0, 0], [0, 0]],
    halo: 1,
    act: Activation::Silu,
    residual: false,
    scale: true,
};

fn run(case: &Case) {
    let Case { n, in_hw, ic, oc, k, stride, pad, around, halo, act, .. } = *case;
    let spec = ConvSpec { oc, ic, kernel: k, stride, padding: pad };
    let out_hw = spec.out_hw(in_hw).map(|s| s + case.extra);
    let mut noise = Noise::new(7);
    let weight = noise.floats(oc * ic * k[0] * k[1]);
    let scale = case.scale.then(|| noise.floats(oc));
    let bias = case.scale.then(|| noise.floats(oc));
    let packed = PackedConv::new(spec, &weight, scale.as_deref(), bias.as_deref());

    let mut layout = Layout::default();
    let [i, o] = around;
    let input = layout.slice([n, in_hw[0], in_hw[1]], i[0] + ic + i[1], i[0], ic, halo);
    let output = layout.slice([n, out_hw[0], out_hw[1]], o[0] + oc + o[1], o[0], oc, 1);
    let residual = case.residual.then(|| layout.buffer([n, out_hw[0], out_hw[1]], oc, 0));
    let scratch = layout.scratch(packed.scratch_len(out_hw[0], out_hw[1], 3));
    let arena = noisy_arena(layout.len, 3, &[input]);

    let op = Conv2d { weights: &packed, activation: act, input, output, residual, scratch };
    check(
        &arena,
        &output,
        scratch,
        |ctx, arena| conv2d(ctx, arena, &op),
        |data, image, y, x, channel| {
            let scale = scale.as_ref().map_or(1.0, |s| f64::from(s[channel]));
            let mut sum = bias.as_ref().map_or(0.0, |b| f64::from(b[channel]));
            // A Winograd tile has the rounding errors of all its pixels, so outputs at the edge, which have fewer
            // terms, may be as far off as those in the middle.
            let len = ic * k[0] * k[1];
            let weights = weight[channel * len..][..len].iter().map(|w| f64::from(w.abs()) * scale.abs());
            let of_tile = if k == [3, 3] { weights.sum::<f64>() / 2.0 } else { 0.0 };
            let mut magnitude = of_tile + sum.abs();
            for ky in 0..k[0] {
                for kx in 0..k[1] {
                    let iy = (y * stride[0] + ky) as isize - pad[0] as isize;
                    let ix = (x * stride[1] + kx) as isize - pad[1] as isize;
                    for c in 0..ic {
                        let w = f64::from(weight[((channel * ic + c) * k[0] + ky) * k[1] + kx]);
                        let term = f64::from(data[at(&input, image, iy, ix) + c]) * w * scale;
                        sum += term;
                        magnitude += term.abs();
                    }
                }
            }
            let residual = residual.map(|r| f64::from(data[r.index(image, y, x) + channel]));
            activated(act, sum, magnitude, residual)
        },
    );
}

#[test]
fn channel_counts() {
    for ic in [1, 3, 8, 16, 17, 24, 80] {
        for oc in [1, 8, 16, 17, 24, 33, 48, 64, 80] {
            run(&Case { ic, oc, in_hw: [5, 7], ..BASE });
            run(&Case { ic, oc, in_hw: [5, 7], k: [1, 1], pad: [0, 0], halo: 0, ..BASE });
        }
    }
}

#[test]
fn widths() {
    for w in 1..=23 {
        for oc in [16, 32, 48] {
            run(&Case { in_hw: [3, w], oc, ..BASE });
        }
    }
}

#[test]
fn kernels_strides_and_paddings() {
    for k in [1, 2, 3, 5, 6, 7] {
        for stride in [1, 2, 3] {
            for pad in 0..=k / 2 {
                run(&Case {
                    in_hw: [11, 9],
                    k: [k, k],
                    stride: [stride; 2],
                    pad: [pad; 2],
                    halo: pad,
                    ic: 5,
                    oc: 20,
                    ..BASE
                });
            }
        }
    }
}

#[test]
fn oblong_kernels() {
    run(&Case { k: [1, 5], pad: [0, 2], halo: 2, stride: [1, 2], ..BASE });
    run(&Case { k: [4, 3], pad: [1, 1], stride: [2, 1], ..BASE });
}

#[test]
fn halo_wider_than_the_padding() {
    run(&Case { halo: 3, ..BASE });
    run(&Case { halo: 2, k: [1, 1], pad: [0, 0], ..BASE });
}

#[test]
fn batches() {
    run(&Case { n: 3, in_hw: [20, 20], ic: 12, oc: 40, ..BASE });
}

#[test]
fn slices_of_concatenations() {
    for around in [[[16, 8], [3, 5]], [[0, 4], [16, 0]], [[1, 0], [0, 1]]] {
        for oc in [3, 16, 40] {
            run(&Case { around, oc, ..BASE });
            run(&Case { around, oc, ic: 3, k: [1, 1], pad: [0, 0], ..BASE });
        }
    }
}

#[test]
fn activations_and_residuals() {
    for act in [Activation::None, Activation::Silu, Activation::Relu, Activation::Sigmoid] {
        for residual in [false, true] {
            run(&Case { act, residual, oc: 21, scale: residual, ..BASE });
        }
    }
}

#[test]
fn maps_large_enough_for_many_tasks() {
    run(&Case { in_hw: [41, 80], ic: 32, oc: 32, ..BASE });
    run(&Case { in_hw: [40, 40], ic: 64, oc: 128, k: [1, 1], pad: [0, 0], ..BASE });
    run(&Case { in_hw: [15, 20], ic: 64, oc: 144, stride: [2, 2], ..BASE });
}

#[test]
fn maps_whose_tiles_hang_over_the_edge() {
    for (h, w) in [(4, 4), (5, 11), (7, 7), (10, 9), (15, 20), (4, 1)] {
        run(&Case { in_hw: [h, w], n: 2, ic: 40, oc: 24, residual: true, ..BASE });
        run(&Case { in_hw: [h, w], halo: 3, around: [[4, 4], [4, 4]], ..BASE });
        run(&Case { in_hw: [h, w], halo: 6, extra: 5, ..BASE });
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn equals_the_reference(
        (n, h, w) in (1usize..3, 1usize..14, 1usize..20),
        (ic, oc) in (1usize..40, 1usize..70),
        (k, stride, pad) in (1usize..4, 1usize..3, 0usize..2),
        around in (0usize..20, 0usize..20, 0usize..20, 0usize..20),
        (halo, residual) in (0usize..2, any::<bool>()),
    ) {
        prop_assume!(h + 2 * pad >= k && w + 2 * pad >= k);
        let (a, b, c, d) = around;
        run(&Case {
            n, in_hw: [h, w], ic, oc, k: [k; 2], stride: [stride; 2], pad: [pad; 2],
            around: [[a, b], [c, d]], halo: pad + halo, residual, ..BASE
        });
    }
}

/// Runs a 3x3 convolution of 8 channels between these views of an arena of 10,000 elements.
fn contract(input: View, output: View, residual: Option<View>, scratch: Scratch) {
    let spec = ConvSpec { oc: 8, ic: 8, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
    let weights = PackedConv::new(spec, &[0.0; 576], None, None);
    let threads = Threads::new(1).unwrap();
    let mut arena = Arena::new(10_000).unwrap();
    let op = Conv2d { weights: &weights, activation: Activation::None, input, output, residual, scratch };
    conv2d(Context { isa: Isa::best(), threads: &threads }, &mut arena, &op);
}

const NO_SCRATCH: Scratch = Scratch { offset: 0, len: 0 };

#[test]
fn channel_ranges_of_one_buffer_may_be_read_and_written() {
    let buffer = View::buffer(0, 1, 6, 6, 24, 1);
    contract(buffer.channels(0, 8), buffer.channels(8, 8), Some(buffer.channels(16, 8)), NO_SCRATCH);
}

#[test]
#[should_panic(expected = "overlap")]
fn output_that_overlaps_the_input() {
    let buffer = View::buffer(0, 1, 6, 6, 24, 1);
    contract(buffer.channels(0, 8), buffer.channels(7, 8), None, NO_SCRATCH);
}

#[test]
#[should_panic(expected = "overlap")]
fn output_that_overlaps_the_residual() {
    let buffer = View::buffer(0, 1, 6, 6, 24, 1);
    let output = buffer.channels(8, 8);
    contract(buffer.channels(0, 8), output, Some(output), NO_SCRATCH);
}

#[test]
#[should_panic(expected = "does not lie inside")]
fn output_beyond_the_arena() {
    contract(View::buffer(0, 1, 6, 6, 8, 1), View::buffer(9_800, 1, 6, 6, 8, 0), None, NO_SCRATCH);
}

#[test]
#[should_panic(expected = "reads beyond the halo")]
fn halo_smaller_than_the_padding() {
    contract(View::buffer(0, 1, 6, 6, 8, 0), View::buffer(5_000, 1, 6, 6, 8, 0), None, NO_SCRATCH);
}

#[test]
#[should_panic(expected = "reads beyond the halo")]
fn output_larger_than_the_input_allows() {
    contract(View::buffer(0, 1, 6, 6, 8, 1), View::buffer(5_000, 1, 7, 6, 8, 0), None, NO_SCRATCH);
}

#[test]
#[should_panic(expected = "does not lie inside")]
fn scratch_beyond_the_arena() {
    let scratch = Scratch { offset: 9_999, len: 2 };
    contract(View::buffer(0, 1, 6, 6, 8, 1), View::buffer(5_000, 1, 6, 6, 8, 0), None, scratch);
}
