use ferroyolo_kernels::{Arena, Context, Isa, MaxPool2d, Threads, View, max_pool2d};
use proptest::prelude::*;

use crate::support::{Layout, cases, check, noisy_arena};

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    in_hw: [usize; 2],
    c: usize,
    k: usize,
    stride: usize,
    pad: usize,
    around: [usize; 2],
}

fn run(case: &Case) {
    let Case { n, in_hw, c, k, stride, pad, around } = *case;
    let out_hw = in_hw.map(|s| (s + 2 * pad - k) / stride + 1);
    let mut layout = Layout::default();
    let total = around[0] + c + around[1];
    // The halo is noise: it must not be read.
    let input = layout.slice([n, in_hw[0], in_hw[1]], total, around[0], c, 1);
    let output = layout.slice([n, out_hw[0], out_hw[1]], total, around[0], c, 0);
    let arena = noisy_arena(layout.len, 17, &[]);
    let op = MaxPool2d { kernel: [k; 2], stride: [stride; 2], padding: [pad; 2], input, output };
    let run = |ctx: Context<'_>, arena: &mut Arena| max_pool2d(ctx, arena, &op);
    check(&arena, &output, Default::default(), run, |data, image, y, x, channel| {
        let mut best = f32::NEG_INFINITY;
        for iy in y * stride..y * stride + k {
            for ix in x * stride..x * stride + k {
                let (iy, ix) = (iy.wrapping_sub(pad), ix.wrapping_sub(pad));
                if iy < in_hw[0] && ix < in_hw[1] {
                    best = best.max(data[input.index(image, iy, ix) + channel]);
                }
            }
        }
        (f64::from(best), 0.0)
    });
}

const BASE: Case = Case { n: 1, in_hw: [7, 9], c: 16, k: 5, stride: 1, pad: 2, around: [0, 0] };

#[test]
fn kernels_of_stride_one() {
    for k in [1, 2, 3, 4, 5, 7, 9, 13] {
        for c in [1, 8, 16, 24, 80] {
            run(&Case { k, pad: k / 2, c, ..BASE });
        }
    }
}

#[test]
fn strides() {
    for (k, stride, pad) in [(2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 3, 1), (2, 1, 0), (5, 2, 2)] {
        run(&Case { k, stride, pad, c: 20, ..BASE });
    }
}

#[test]
fn batches_slices_and_many_tasks() {
    run(&Case { n: 3, around: [3, 5], c: 17, ..BASE });
    run(&Case { in_hw: [20, 20], c: 128, ..BASE });
}

#[test]
fn maps_smaller_than_the_window() {
    for hw in [[1, 1], [2, 3], [1, 6]] {
        run(&Case { in_hw: hw, k: 13, pad: 6, ..BASE });
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn equals_the_reference(
        (n, h, w, c) in (1usize..3, 1usize..12, 1usize..18, 1usize..40),
        (k, stride, pad) in (1usize..10, 1usize..4, 0usize..5),
        (before, after) in (0usize..20, 0usize..20),
    ) {
        prop_assume!(pad <= k / 2 && h + 2 * pad >= k && w + 2 * pad >= k);
        run(&Case { n, in_hw: [h, w], c, k, stride, pad, around: [before, after] });
    }
}

#[test]
fn nan_is_left_out() {
    let (input, output) = (View::buffer(0, 1, 3, 3, 1, 0), View::buffer(9, 1, 3, 3, 1, 0));
    let threads = Threads::new(1).unwrap();
    for isa in Isa::available() {
        for kernel in [3, 1] {
            let mut arena = Arena::new(18).unwrap();
            arena.as_mut_slice()[..9].fill(-2.0);
            arena.as_mut_slice()[4] = f32::NAN;
            let op =
                MaxPool2d { kernel: [kernel; 2], stride: [1; 2], padding: [kernel / 2; 2], input, output };
            max_pool2d(Context { isa, threads: &threads }, &mut arena, &op);
            let mut want = [-2.0; 9];
            if kernel == 1 {
                want[4] = f32::NEG_INFINITY;
            }
            assert_eq!(arena.as_slice()[9..], want, "{isa:?}");
        }
    }
}
