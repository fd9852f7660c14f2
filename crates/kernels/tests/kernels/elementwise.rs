use ferroyolo_kernels::{
    Activation, Arena, Context, Isa, Threads, View, activate, add, clear_halo, copy, sigmoid,
    upsample_nearest,
};
use proptest::prelude::*;

use crate::support::{ACTIVATION_TOLERANCE, Layout, activation, activation_error, at, check, noisy_arena};

const ACTIVATIONS: [Activation; 4] =
    [Activation::None, Activation::Silu, Activation::Relu, Activation::Sigmoid];

/// Widths of a slice and of what lies around it: packed, odd, and wider than a vector.
const SLICES: [[usize; 3]; 5] = [[0, 16, 0], [0, 7, 0], [3, 24, 5], [16, 80, 0], [1, 1, 1]];

#[test]
fn sums() {
    for [before, c, after] in SLICES {
        let mut layout = Layout::default();
        let nhw = [2, 5, 7];
        let [a, b, out] = [0; 3].map(|_| layout.slice(nhw, before + c + after, before, c, 1));
        let arena = noisy_arena(layout.len, 1, &[]);
        for (a, b, out) in [(a, b, out), (a, b, a), (a, b, b), (a, a, a)] {
            let run = |ctx: Context<'_>, arena: &mut Arena| add(ctx, arena, a, b, out);
            check(&arena, &out, Default::default(), run, |data, i, y, x, c| {
                (f64::from(data[a.index(i, y, x) + c] + data[b.index(i, y, x) + c]), 0.0)
            });
        }
    }
}

#[test]
fn copies() {
    for [before, c, after] in SLICES {
        let mut layout = Layout::default();
        let input = layout.slice([2, 5, 7], before + c + after, before, c, 1);
        let packed = layout.buffer([2, 5, 7], c, 0);
        let arena = noisy_arena(layout.len, 1, &[]);
        for (from, to) in [(input, packed), (packed, input)] {
            let run = |ctx: Context<'_>, arena: &mut Arena| copy(ctx, arena, from, to);
            check(&arena, &to, Default::default(), run, |data, i, y, x, c| {
                (f64::from(data[from.index(i, y, x) + c]), 0.0)
            });
        }
    }
}

#[test]
fn activations() {
    for act in ACTIVATIONS {
        for [before, c, after] in SLICES {
            let mut layout = Layout::default();
            let [input, out] = [0; 2].map(|_| layout.slice([2, 5, 7], before + c + after, before, c, 0));
            let mut arena = noisy_arena(layout.len, 1, &[]);
            arena.as_mut_slice().iter_mut().for_each(|x| *x *= 30.0);
            for (input, out) in [(input, out), (input, input)] {
                let run = |ctx: Context<'_>, arena: &mut Arena| activate(ctx, arena, act, input, out);
                check(&arena, &out, Default::default(), run, |data, i, y, x, c| {
                    let x = f64::from(data[input.index(i, y, x) + c]);
                    let want = activation(act, x);
                    (want, activation_error(x, want))
                });
            }
        }
    }
}

/// Applies an activation to 16 values.
fn activated(isa: Isa, act: Activation, x: [f32; 16]) -> [f32; 16] {
    let threads = Threads::new(1).unwrap();
    let mut arena = Arena::new(16).unwrap();
    arena.as_mut_slice().copy_from_slice(&x);
    let view = View::buffer(0, 1, 1, 1, 16, 0);
    activate(Context { isa, threads: &threads }, &mut arena, act, view, view);
    arena.as_slice().try_into().unwrap()
}

#[test]
fn activations_of_extremes() {
    for isa in Isa::available() {
        for act in ACTIVATIONS {
            for x in [f32::INFINITY, f32::MAX, 1e30, 100.0, 0.0, -0.0, 1e-40, -100.0, -1e30, f32::MIN] {
                let want = activation(act, f64::from(x));
                let got = f64::from(activated(isa, act, [x; 16])[5]);
                let close = (got - want).abs() <= ACTIVATION_TOLERANCE * want.abs() + 1e-6;
                // What a large negative number leaves of the exponential's limit is multiplied with that number.
                let tiny = x < -99.0 && (got / f64::from(x)).abs() < 1e-37;
                assert!(close || got == want || tiny, "{isa:?} {act:?}({x}) = {got}, expected {want}");
            }
            assert!(activated(isa, act, [f32::NAN; 16]).iter().all(|x| x.is_nan()), "{isa:?} {act:?}(NaN)");
        }
    }
}

proptest! {
    #[test]
    fn sigmoid_is_what_the_vectors_compute(x in -120.0f32..120.0) {
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::scalar()) {
            let got = activated(isa, Activation::Sigmoid, [x; 16]);
            prop_assert_eq!(got[3].to_bits(), sigmoid(x).to_bits());
        }
    }

    #[test]
    fn sigmoid_is_close(x in -80.0f32..80.0) {
        let want = 1.0 / (1.0 + (-f64::from(x)).exp());
        prop_assert!((f64::from(sigmoid(x)) - want).abs() <= activation_error(f64::from(x), want));
    }
}

#[test]
fn upsampling() {
    for (factor, out_hw) in [(2, [10, 14]), (2, [9, 13]), (3, [15, 21]), (1, [5, 7])] {
        for [before, c, after] in SLICES {
            let mut layout = Layout::default();
            let input = layout.slice([2, 5, 7], before + c + after, before, c, 1);
            let out = layout.slice([2, out_hw[0], out_hw[1]], c + 4, 2, c, 1);
            let arena = noisy_arena(layout.len, 1, &[]);
            let run = |ctx: Context<'_>, arena: &mut Arena| upsample_nearest(ctx, arena, factor, input, out);
            check(&arena, &out, Default::default(), run, |data, i, y, x, c| {
                (f64::from(data[input.index(i, y / factor, x / factor) + c]), 0.0)
            });
        }
    }
}

#[test]
fn halos() {
    let threads = Threads::new(2).unwrap();
    for [before, c, after] in SLICES {
        for halo in [0, 1, 3] {
            let mut layout = Layout::default();
            let view = layout.slice([2, 3, 4], before + c + after, before, c, halo);
            let want = noisy_arena(layout.len, 1, &[view]);
            let mut got = noisy_arena(layout.len, 1, &[]);
            clear_halo(Context { isa: Isa::best(), threads: &threads }, &mut got, view);
            assert_eq!(got.as_slice(), want.as_slice());
            assert_eq!(got.as_slice()[at(&view, 1, -(halo as isize), 0)] == 0.0, halo > 0);
        }
    }
}

#[test]
#[should_panic(expected = "overlap")]
fn addition_that_is_half_in_place() {
    let threads = Threads::new(1).unwrap();
    let mut arena = Arena::new(100).unwrap();
    let view = |at| View::buffer(at, 1, 2, 2, 4, 0);
    add(Context { isa: Isa::best(), threads: &threads }, &mut arena, view(0), view(20), view(4));
}

#[test]
#[should_panic(expected = "reaches into its pixels")]
fn halo_wider_than_the_gap() {
    let threads = Threads::new(1).unwrap();
    let mut arena = Arena::new(1_000).unwrap();
    let view = View { halo: 1, ..View::buffer(100, 1, 4, 4, 4, 0) };
    clear_halo(Context { isa: Isa::best(), threads: &threads }, &mut arena, view);
}
