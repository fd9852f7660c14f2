use ferroyolo_kernels::{
    Activation, Context, Isa, Threads, View, dfl, dfl_planar, load_planar, max_over_channels, store_planar,
};

use crate::support::{ACTIVATION_TOLERANCE, Layout, Noise, activation, noisy_arena};

/// Error of an expectation over 16 bins.
const DFL_TOLERANCE: f64 = 2e-5;

fn with_contexts(f: impl Fn(Context<'_>)) {
    for isa in Isa::available() {
        for n in [1, 3] {
            let threads = Threads::new(n).unwrap();
            f(Context { isa, threads: &threads });
        }
    }
}

/// Views of three images, of several channel counts, within wider buffers.
fn views(f: impl Fn(View, usize)) {
    for (c, before, after, hw) in
        [(1, 0, 0, [3, 5]), (17, 2, 3, [4, 19]), (64, 0, 20, [5, 16]), (80, 64, 0, [20, 20])]
    {
        let mut layout = Layout::default();
        let view = layout.slice([3, hw[0], hw[1]], before + c + after, before, c, 1);
        f(view, layout.len);
    }
}

#[test]
fn planes_are_transposed_pixels() {
    views(|view, len| {
        let arena = noisy_arena(len, 3, &[]);
        let (pixels, first) = (view.pixels(), 11);
        let anchors = pixels + 30;
        for act in [Activation::None, Activation::Sigmoid] {
            with_contexts(|ctx| {
                let mut out = vec![7.0; view.c * anchors];
                store_planar(ctx, &arena, view, 2, &mut out, anchors, first, act);
                for (i, &got) in out.iter().enumerate() {
                    let (c, p) = (i / anchors, (i % anchors).wrapping_sub(first));
                    if p < pixels {
                        let x = arena.as_slice()[view.index(2, p / view.w, p % view.w) + c];
                        let want = activation(act, f64::from(x));
                        assert!((f64::from(got) - want).abs() <= ACTIVATION_TOLERANCE * want.abs());
                    } else {
                        assert_eq!(got, 7.0, "{i} was written");
                    }
                }
            });
        }
    });
}

#[test]
fn pixels_are_transposed_planes() {
    views(|view, len| {
        let src = Noise::new(2).floats(view.pixels() * view.c);
        with_contexts(|ctx| {
            let before = noisy_arena(len, 3, &[]);
            let mut arena = noisy_arena(len, 3, &[]);
            load_planar(ctx, &mut arena, &src, 0.5, view, 1);
            let mut want = before.as_slice().to_vec();
            for (i, x) in src.iter().enumerate() {
                let (c, p) = (i / view.pixels(), i % view.pixels());
                want[view.index(1, p / view.w, p % view.w) + c] = x * 0.5;
            }
            assert_eq!(arena.as_slice(), want);
        });
    });
}

#[test]
fn largest_channel() {
    views(|view, len| {
        let mut arena = noisy_arena(len, 3, &[]);
        arena.as_mut_slice()[view.index(0, 1, 1)] = f32::NAN;
        with_contexts(|ctx| {
            let mut out = vec![0.0; view.pixels()];
            max_over_channels(ctx, &arena, view, 0, &mut out);
            for (p, got) in out.into_iter().enumerate() {
                let at = view.index(0, p / view.w, p % view.w);
                let pixel = &arena.as_slice()[at..at + view.c];
                assert_eq!(got, pixel.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        });
    });
}

fn expectation(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|l| f64::from(l - max).exp()).collect();
    e.iter().enumerate().map(|(i, e)| i as f64 * e).sum::<f64>() / e.iter().sum::<f64>()
}

#[test]
fn expectations() {
    for reg_max in [1, 4, 16, 17, 32] {
        let mut layout = Layout::default();
        let view = layout.slice([2, 4, 5], 4 * reg_max + 9, 3, 4 * reg_max, 0);
        let mut arena = noisy_arena(layout.len, 3, &[]);
        arena.as_mut_slice().iter_mut().for_each(|x| *x = *x * 40.0 - 300.0);
        let (anchors, first) = (40, 13);
        with_contexts(|ctx| {
            let mut out = vec![-1.0; 4 * anchors];
            dfl_planar(ctx, &arena, view, 1, reg_max, &mut out, anchors, first);
            for p in 0..view.pixels() {
                let at = view.index(1, p / view.w, p % view.w);
                let logits = &arena.as_slice()[at..at + view.c];
                let one = dfl(ctx, logits, reg_max);
                for (side, logits) in logits.chunks(reg_max).enumerate() {
                    let got = out[side * anchors + first + p];
                    assert_eq!(got.to_bits(), one[side].to_bits());
                    assert!((f64::from(got) - expectation(logits)).abs() <= DFL_TOLERANCE);
                }
            }
            assert_eq!(out.iter().filter(|&&x| x == -1.0).count(), 4 * (anchors - view.pixels()));
        });
    }
}

#[test]
#[should_panic(expected = "do not fit")]
fn planes_that_are_too_short() {
    let arena = noisy_arena(100, 3, &[]);
    let threads = Threads::new(1).unwrap();
    let ctx = Context { isa: Isa::best(), threads: &threads };
    store_planar(ctx, &arena, View::buffer(0, 1, 3, 3, 2, 0), 0, &mut [0.0; 20], 10, 2, Activation::None);
}
