use ferroyolo_kernels::{
    Activation, Arena, Context, ConvTranspose2d, PackedConvTranspose, View, avg_pool2d, conv_transpose2d,
    global_avg_pool, resize_bilinear, zero_pad,
};
use proptest::prelude::*;

use crate::support::{Layout, Noise, SUM_TOLERANCE, activated, cases, check, noisy_arena};

/// Channels before, of and after a slice of a wider buffer: packed, odd, and wider than a vector.
const SLICES: [[usize; 3]; 5] = [[0, 16, 0], [0, 7, 0], [3, 24, 5], [16, 80, 0], [1, 1, 1]];

/// An input and an output of the same slice of channels in noise. The halos are noise too: they must not be read.
fn views(
    n: usize,
    in_hw: [usize; 2],
    out_hw: [usize; 2],
    [before, c, after]: [usize; 3],
) -> (Arena, View, View) {
    let mut layout = Layout::default();
    let input = layout.slice([n, in_hw[0], in_hw[1]], before + c + after, before, c, 1);
    let output = layout.slice([n, out_hw[0], out_hw[1]], c + 3, 2, c, 1);
    (noisy_arena(layout.len, 23, &[]), input, output)
}

fn check_average(n: usize, in_hw: [usize; 2], window: [[usize; 2]; 2], slice: [usize; 3]) {
    let [kernel, stride] = window;
    let out_hw = [0, 1].map(|i| (in_hw[i] - kernel[i]) / stride[i] + 1);
    let (arena, input, output) = views(n, in_hw, out_hw, slice);
    let run = |ctx: Context<'_>, arena: &mut Arena| avg_pool2d(ctx, arena, window, input, output);
    check(&arena, &output, Default::default(), run, |data, image, y, x, c| {
        let (mut sum, mut size) = (0.0, 0.0);
        for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
            let value = f64::from(data[input.index(image, y * stride[0] + ky, x * stride[1] + kx) + c]);
            sum += value;
            size += value.abs();
        }
        let n = (kernel[0] * kernel[1]) as f64;
        (sum / n, SUM_TOLERANCE * size / n)
    });
}

#[test]
fn averages() {
    for slice in SLICES {
        for window in [[[2, 2], [1, 1]], [[2, 2], [2, 2]], [[3, 2], [1, 3]], [[1, 1], [1, 1]]] {
            check_average(2, [7, 9], window, slice);
        }
    }
    check_average(1, [40, 40], [[2, 2], [1, 1]], [0, 128, 0]);
}

#[test]
fn averages_of_whole_maps() {
    for slice in SLICES {
        for hw in [[1, 1], [3, 5], [7, 7], [32, 40]] {
            let (arena, input, output) = views(2, hw, [1, 1], slice);
            let run = |ctx: Context<'_>, arena: &mut Arena| global_avg_pool(ctx, arena, input, output);
            check(&arena, &output, Default::default(), run, |data, image, _, _, c| {
                let values =
                    (0..hw[0] * hw[1]).map(|i| f64::from(data[input.index(image, i / hw[1], i % hw[1]) + c]));
                let n = (hw[0] * hw[1]) as f64;
                let size: f64 = values.clone().map(f64::abs).sum();
                (values.sum::<f64>() / n, SUM_TOLERANCE * size / n)
            });
        }
    }
}

#[test]
fn zeros_around_a_map() {
    for slice in SLICES {
        for [top, left, bottom, right] in [[0, 0, 1, 1], [1, 2, 0, 3], [0, 0, 0, 0], [2, 0, 1, 0]] {
            let (arena, input, output) = views(2, [4, 5], [4 + top + bottom, 5 + left + right], slice);
            let run = |ctx: Context<'_>, arena: &mut Arena| zero_pad(ctx, arena, [top, left], input, output);
            check(&arena, &output, Default::default(), run, |data, image, y, x, c| {
                let inside = (top..top + 4).contains(&y) && (left..left + 5).contains(&x);
                let value = if inside { data[input.index(image, y - top, x - left) + c] } else { 0.0 };
                (f64::from(value), 0.0)
            });
        }
    }
}

fn check_bilinear(in_hw: [usize; 2], out_hw: [usize; 2], align_corners: bool, slice: [usize; 3]) {
    let (arena, input, output) = views(2, in_hw, out_hw, slice);
    let run = |ctx: Context<'_>, arena: &mut Arena| resize_bilinear(ctx, arena, align_corners, input, output);
    let source = |at: usize, axis: usize| {
        let (n_in, n_out) = (in_hw[axis] as f64, out_hw[axis] as f64);
        let position = match (align_corners, out_hw[axis]) {
            (true, 1) => 0.0,
            (true, _) => at as f64 * (n_in - 1.0) / (n_out - 1.0),
            (false, _) => (at as f64 + 0.5) * n_in / n_out - 0.5,
        };
        let position = position.clamp(0.0, n_in - 1.0);
        let first = position.floor();
        ([first as usize, (first as usize + 1).min(in_hw[axis] - 1)], position - first)
    };
    check(&arena, &output, Default::default(), run, |data, image, y, x, c| {
        let ((rows, down), (columns, across)) = (source(y, 0), source(x, 1));
        let at = |row: usize, column: usize| f64::from(data[input.index(image, row, column) + c]);
        let mix = |row| at(row, columns[0]) * (1.0 - across) + at(row, columns[1]) * across;
        // Positions are counted in f32, so the further from the origin, the coarser.
        let tolerance = 1e-6 * (in_hw[0].max(in_hw[1]) as f64);
        (mix(rows[0]) * (1.0 - down) + mix(rows[1]) * down, tolerance)
    });
}

#[test]
fn bilinear_resizing() {
    for align_corners in [false, true] {
        for slice in SLICES {
            check_bilinear([5, 7], [10, 14], align_corners, slice);
        }
        for (from, to) in
            [([1, 1], [3, 4]), ([4, 6], [1, 1]), ([9, 5], [4, 13]), ([6, 6], [6, 6]), ([2, 20], [7, 40])]
        {
            check_bilinear(from, to, align_corners, [0, 20, 0]);
        }
    }
}

#[test]
fn resizing_to_the_same_size_changes_nothing() {
    for align_corners in [false, true] {
        let (arena, input, output) = views(1, [6, 9], [6, 9], [0, 17, 0]);
        let run =
            |ctx: Context<'_>, arena: &mut Arena| resize_bilinear(ctx, arena, align_corners, input, output);
        check(&arena, &output, Default::default(), run, |data, image, y, x, c| {
            (f64::from(data[input.index(image, y, x) + c]), 0.0)
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct Transposed {
    nhw: [usize; 3],
    channels: [usize; 2],
    kernel: [usize; 2],
    activation: Activation,
    bias: bool,
    around: [usize; 2],
}

const TRANSPOSED: Transposed = Transposed {
    nhw: [1, 5, 7],
    channels: [16, 32],
    kernel: [2, 2],
    activation: Activation::None,
    bias: true,
    around: [0, 0],
};

fn check_transposed(case: Transposed) {
    let Transposed { nhw: [n, h, w], channels: [ic, oc], kernel: [kh, kw], .. } = case;
    let mut noise = Noise::new(5);
    let (weight, bias) = (noise.floats(ic * oc * kh * kw), noise.floats(oc));
    let bias = case.bias.then_some(bias.as_slice());
    let packed = PackedConvTranspose::new([ic, oc], [kh, kw], &weight, bias);
    let mut layout = Layout::default();
    let [before, after] = case.around;
    let input = layout.slice([n, h, w], before + ic + after, before, ic, 1);
    let output = layout.slice([n, kh * h, kw * w], before + oc + after, before, oc, 1);
    let arena = noisy_arena(layout.len, 29, &[]);
    let run = |ctx: Context<'_>, arena: &mut Arena| {
        let op = ConvTranspose2d { weights: &packed, activation: case.activation, input, output };
        conv_transpose2d(ctx, arena, &op);
    };
    check(&arena, &output, Default::default(), run, |data, image, y, x, o| {
        let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
        let mut magnitude = sum.abs();
        for c in 0..ic {
            let value = f64::from(data[input.index(image, y / kh, x / kw) + c]);
            let product = value * f64::from(weight[((c * oc + o) * kh + y % kh) * kw + x % kw]);
            sum += product;
            magnitude += product.abs();
        }
        activated(case.activation, sum, magnitude, None)
    });
}

#[test]
fn transposed_convolutions() {
    for channels in [[16, 32], [32, 32], [7, 5], [64, 96], [1, 1], [33, 17]] {
        check_transposed(Transposed { channels, ..TRANSPOSED });
        check_transposed(Transposed { channels, around: [3, 6], nhw: [2, 4, 3], bias: false, ..TRANSPOSED });
    }
    for kernel in [[1, 1], [2, 3], [4, 4]] {
        check_transposed(Transposed { kernel, activation: Activation::Silu, ..TRANSPOSED });
    }
    check_transposed(Transposed { nhw: [1, 20, 40], ..TRANSPOSED });
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn any_transposed_convolution_equals_its_definition(
        nhw in (1usize..3, 1usize..8, 1usize..12),
        channels in (1usize..40, 1usize..50),
        kernel in (1usize..4, 1usize..4),
        around in (0usize..9, 0usize..9),
    ) {
        check_transposed(Transposed {
            nhw: [nhw.0, nhw.1, nhw.2],
            channels: [channels.0, channels.1],
            kernel: [kernel.0, kernel.1],
            around: [around.0, around.1],
            ..TRANSPOSED
        });
    }

    #[test]
    fn any_resizing_equals_its_definition(
        from in (1usize..12, 1usize..12),
        to in (1usize..24, 1usize..24),
        c in 1usize..40,
        align_corners: bool,
    ) {
        check_bilinear([from.0, from.1], [to.0, to.1], align_corners, [0, c, 2]);
    }

    #[test]
    fn any_average_equals_its_definition(
        hw in (4usize..12, 4usize..14),
        kernel in (1usize..5, 1usize..5),
        stride in (1usize..4, 1usize..4),
        c in 1usize..40,
    ) {
        check_average(1, [hw.0, hw.1], [[kernel.0, kernel.1], [stride.0, stride.1]], [2, c, 1]);
    }
}
