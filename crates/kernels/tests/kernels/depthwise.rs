use ferroyolo_kernels::{
    Activation, Arena, Context, Depthwise2d, DepthwiseSpec, Isa, PackedDepthwise, Threads, View, depthwise2d,
};
use proptest::prelude::*;

use crate::support::{Layout, Noise, activated, at, cases, check, noisy_arena};

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    in_hw: [usize; 2],
    c: usize,
    k: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    /// Channels of both buffers before and after the slice.
    around: [usize; 2],
    act: Activation,
    residual: bool,
}

const BASE: Case = Case {
    n: 1,
    in_hw: [6, 9],
    c: 32,
    k: [3, 3],
    stride: [1, 1],
    pad: [1, 1],
    around: [0, 0],
    act: Activation::Silu,
    residual: false,
};

fn run(case: &Case) {
    let Case { n, in_hw, c, k, stride, pad, around, act, .. } = *case;
    let spec = DepthwiseSpec { c, kernel: k, stride, padding: pad };
    let out_hw = spec.out_hw(in_hw);
    let mut noise = Noise::new(11);
    let (weight, scale, bias) = (noise.floats(c * k[0] * k[1]), noise.floats(c), noise.floats(c));
    let packed = PackedDepthwise::new(spec, &weight, Some(&scale), Some(&bias));

    let mut layout = Layout::default();
    let total = around[0] + c + around[1];
    let input = layout.slice([n, in_hw[0], in_hw[1]], total, around[0], c, pad[0].max(pad[1]));
    let output = layout.slice([n, out_hw[0], out_hw[1]], total, around[0], c, 1);
    let residual = case.residual.then(|| layout.buffer([n, out_hw[0], out_hw[1]], c, 0));
    let arena = noisy_arena(layout.len, 5, &[input]);

    let op = Depthwise2d { weights: &packed, activation: act, input, output, residual };
    let run = |ctx: Context<'_>, arena: &mut Arena| depthwise2d(ctx, arena, &op);
    check(&arena, &output, Default::default(), run, |data, image, y, x, channel| {
        let mut sum = f64::from(bias[channel]);
        let mut magnitude = sum.abs();
        for ky in 0..k[0] {
            for kx in 0..k[1] {
                let iy = (y * stride[0] + ky) as isize - pad[0] as isize;
                let ix = (x * stride[1] + kx) as isize - pad[1] as isize;
                let w = f64::from(weight[(channel * k[0] + ky) * k[1] + kx]) * f64::from(scale[channel]);
                let term = f64::from(data[at(&input, image, iy, ix) + channel]) * w;
                sum += term;
                magnitude += term.abs();
            }
        }
        let residual = residual.map(|r| f64::from(data[r.index(image, y, x) + channel]));
        activated(act, sum, magnitude, residual)
    });
}

#[test]
fn channel_counts() {
    for c in [1, 3, 8, 16, 17, 24, 80, 128] {
        run(&Case { c, ..BASE });
    }
}

#[test]
fn widths() {
    for w in 1..=13 {
        run(&Case { in_hw: [4, w], ..BASE });
    }
}

#[test]
fn kernels_strides_and_paddings() {
    for k in [1, 2, 3, 5, 6, 7] {
        for stride in [1, 2] {
            for pad in [0, k / 2] {
                run(&Case { k: [k; 2], stride: [stride; 2], pad: [pad; 2], in_hw: [9, 11], c: 20, ..BASE });
            }
        }
    }
}

#[test]
fn batches_slices_and_residuals() {
    for act in [Activation::None, Activation::Silu, Activation::Relu] {
        run(&Case { n: 3, act, residual: true, around: [5, 3], c: 24, ..BASE });
        run(&Case { n: 2, act, around: [16, 0], ..BASE });
    }
}

#[test]
fn maps_large_enough_for_many_tasks() {
    run(&Case { in_hw: [40, 40], c: 64, ..BASE });
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn equals_the_reference(
        (n, h, w, c) in (1usize..3, 1usize..12, 1usize..18, 1usize..50),
        (k, stride, pad) in (1usize..6, 1usize..3, 0usize..3),
        (before, after, residual) in (0usize..20, 0usize..20, any::<bool>()),
    ) {
        prop_assume!(h + 2 * pad >= k && w + 2 * pad >= k);
        run(&Case {
            n, in_hw: [h, w], c, k: [k; 2], stride: [stride; 2], pad: [pad; 2], around: [before, after], residual,
            ..BASE
        });
    }
}

#[test]
#[should_panic(expected = "overlap")]
fn in_place() {
    let spec = DepthwiseSpec { c: 8, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
    let weights = PackedDepthwise::new(spec, &[0.0; 72], None, None);
    let view = View::buffer(0, 1, 4, 4, 8, 1);
    let threads = Threads::new(1).unwrap();
    let mut arena = Arena::new(1_000).unwrap();
    let op = Depthwise2d {
        weights: &weights,
        activation: Activation::None,
        input: view,
        output: view,
        residual: None,
    };
    depthwise2d(Context { isa: Isa::best(), threads: &threads }, &mut arena, &op);
}
