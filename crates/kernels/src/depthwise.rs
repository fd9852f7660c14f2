//! Depthwise convolution: one filter for each channel.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::simd::{F32x16, Kernel, LANES, activate};
use crate::view::Window;
use crate::{Activation, Arena, Context, View};

/// The shape of a depthwise convolution (`groups` = channels, one output for each).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DepthwiseSpec {
    /// Channels of input and output.
    pub c: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between outputs, down and across.
    pub stride: [usize; 2],
    /// Zero pixels above and left of the image; as many are read below and right as the output needs.
    pub padding: [usize; 2],
}

/// The weights of a depthwise convolution, packed once.
#[derive(Clone)]
pub struct PackedDepthwise {
    spec: DepthwiseSpec,
    /// `[kh][kw][c]`, with `c` padded to whole blocks.
    weight: Vec<f32>,
    /// Padded likewise.
    bias: Vec<f32>,
}

/// `output = activation(depthwise(input) + bias) + residual`.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise2d<'a> {
    /// The weights, bias included.
    pub weights: &'a PackedDepthwise,
    /// Applied before the residual is added.
    pub activation: Activation,
    /// `[n, h, w, c]`, with a zero halo of at least the padding.
    pub input: View,
    /// `[n, out_h, out_w, c]`
    pub output: View,
    /// `[n, out_h, out_w, c]`, added after the activation.
    pub residual: Option<View>,
}

impl DepthwiseSpec {
    /// Height and width of the output for an input of this height and width.
    pub fn out_hw(&self, in_hw: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|i| (in_hw[i] + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1)
    }
}

impl PackedDepthwise {
    /// Packs `weight`, `[c, 1, kh, kw]`, with each channel multiplied by its `scale`.
    ///
    /// `scale` and `bias` have `c` elements; without them they are 1 and 0. Panics if a length does not fit the spec.
    pub fn new(
        spec: DepthwiseSpec,
        weight: &[f32],
        scale: Option<&[f32]>,
        bias: Option<&[f32]>,
    ) -> PackedDepthwise {
        let DepthwiseSpec { c, kernel: [kh, kw], stride, .. } = spec;
        assert!([c, kh, kw, stride[0], stride[1]].iter().all(|&x| x > 0), "{spec:?} has a zero");
        assert_eq!(weight.len(), c * kh * kw, "weights of {spec:?}");
        assert!(scale.is_none_or(|s| s.len() == c), "scale of {spec:?}");
        assert!(bias.is_none_or(|b| b.len() == c), "bias of {spec:?}");
        let padded = c.next_multiple_of(LANES);
        let mut packed = vec![0.0; kh * kw * padded];
        for (i, &w) in weight.iter().enumerate() {
            let (channel, k) = (i / (kh * kw), i % (kh * kw));
            packed[k * padded + channel] = w * scale.map_or(1.0, |s| s[channel]);
        }
        let mut padded_bias = vec![0.0; padded];
        if let Some(bias) = bias {
            padded_bias[..c].copy_from_slice(bias);
        }
        PackedDepthwise { spec, weight: packed, bias: padded_bias }
    }

    /// Memory of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// The shape of the convolution.
    pub fn spec(&self) -> &DepthwiseSpec {
        &self.spec
    }
}

impl std::fmt::Debug for PackedDepthwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedDepthwise").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Runs a depthwise convolution.
///
/// Panics if shapes do not agree, if the input's halo is smaller than the padding, if a view does not lie inside the
/// arena, or if the output overlaps the input or the residual.
pub fn depthwise2d(ctx: Context<'_>, arena: &mut Arena, op: &Depthwise2d<'_>) {
    let spec = op.weights.spec;
    let (input, output) = (op.input, op.output);
    let window = Window { kernel: spec.kernel, stride: spec.stride, padding: spec.padding };
    window.assert_fits(arena.len(), &input, &output, op.residual.as_ref());
    assert!(input.c == spec.c && output.c == spec.c, "{spec:?} from {input:?} to {output:?}");
    if output.n * output.h * output.w == 0 {
        return;
    }
    let data = Shared::new(arena);
    let residual = op.residual.unwrap_or(output);
    let shape = Shape {
        kernel: spec.kernel,
        in_step: [input.row_stride, input.pixel_stride],
        stride: spec.stride[1],
        out_step: output.pixel_stride,
        residual_step: residual.pixel_stride,
        c: spec.c,
        activation: op.activation,
    };
    for_each_band(ctx, &output, output.w * output.c * spec.kernel[0], &|image, rows| {
        for y in rows {
            let (mut x, mut p) = (0, ctx.isa.depthwise_tile());
            while x < output.w {
                // As many tiles of this width as fit, then half as wide ones.
                let tiles = (output.w - x) / p;
                // The window of an output begins in the halo, as far as the padding says.
                let window = input.index(image, y * spec.stride[0], x * spec.stride[1])
                    - spec.padding[0] * input.row_stride
                    - spec.padding[1] * input.pixel_stride;
                // SAFETY: the windows and pixels were checked to lie in the arena, apart from each other, and no other
                // task has this row; weights and biases are padded to whole blocks.
                unsafe {
                    let at = |i: usize| data.ptr().add(i);
                    let strip = Strip {
                        shape: &shape,
                        x: at(window),
                        y: at(output.index(image, y, x)),
                        residual: op
                            .residual
                            .map_or(std::ptr::null(), |r| at(r.index(image, y, x)).cast_const()),
                        weight: op.weights.weight.as_ptr(),
                        bias: op.weights.bias.as_ptr(),
                        tiles,
                    };
                    let neighbours = if shape.stride == 1 { spec.kernel[1] } else { 0 };
                    run_strip(ctx, p, neighbours, strip);
                }
                x += tiles * p;
                p /= 2;
            }
        }
    });
}

/// What all tiles of one convolution share; steps in elements.
struct Shape {
    kernel: [usize; 2],
    /// From one row and one pixel of the input to the next.
    in_step: [usize; 2],
    /// Pixels between the windows of neighbouring outputs.
    stride: usize,
    out_step: usize,
    residual_step: usize,
    c: usize,
    activation: Activation,
}

/// Tiles side by side in a row.
#[derive(Clone, Copy)]
struct Strip<'a> {
    shape: &'a Shape,
    x: *const f32,
    y: *mut f32,
    /// Null where there is none.
    residual: *const f32,
    weight: *const f32,
    bias: *const f32,
    tiles: usize,
}

/// A strip of tiles of `P` pixels. `K` is the width of the kernel if neighbouring windows share all but one of their
/// pixels and it is a common one, so that the shared pixels are loaded once; 0 otherwise.
struct Tiles<'a, const P: usize, const K: usize>(Strip<'a>);

impl<const P: usize, const K: usize> Kernel for Tiles<'_, P, K> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        assert!(P <= V::DEPTHWISE_TILE, "a tile of {P} pixels does not fit the registers");
        let Tiles(s) = self;
        let g = s.shape;
        // SAFETY: whoever made the strip vouches for its windows and pixels.
        unsafe {
            for tile in 0..s.tiles {
                let x = s.x.add(tile * P * g.stride * g.in_step[1]);
                let y = s.y.add(tile * P * g.out_step);
                let residual = s.residual.wrapping_add(tile * P * g.residual_step);
                let has_residual = !s.residual.is_null();
                let whole = g.c / LANES * LANES;
                let mut c = 0;
                while c < whole {
                    let mut acc = accumulate::<V, P, K, true>(&s, x.add(c), c, LANES);
                    activate(g.activation, &mut acc);
                    for (p, [mut value]) in acc.into_iter().enumerate() {
                        if has_residual {
                            value = value.add(V::load(residual.add(p * g.residual_step + c)));
                        }
                        value.store(y.add(p * g.out_step + c));
                    }
                    c += LANES;
                }
                if c < g.c {
                    let n = g.c - c;
                    let mut acc = accumulate::<V, P, K, false>(&s, x.add(c), c, n);
                    activate(g.activation, &mut acc);
                    for (p, [mut value]) in acc.into_iter().enumerate() {
                        if has_residual {
                            value = value.add(V::load_partial(residual.add(p * g.residual_step + c), n));
                        }
                        value.store_partial(y.add(p * g.out_step + c), n);
                    }
                }
            }
        }
    }
}

/// One block of channels of `P` pixels whose first window begins at `x`.
///
/// # Safety
/// The CPU has the instruction set; the windows can be read, `n` channels of each pixel, or a whole block if `FULL`.
#[inline(always)]
unsafe fn accumulate<V: F32x16, const P: usize, const K: usize, const FULL: bool>(
    s: &Strip<'_>,
    x: *const f32,
    c: usize,
    n: usize,
) -> [[V; 1]; P] {
    let g = s.shape;
    let padded = g.c.next_multiple_of(LANES);
    // SAFETY: all offsets are those of elements that the caller vouches for.
    unsafe {
        let mut acc = [[V::load(s.bias.add(c))]; P];
        for ky in 0..g.kernel[0] {
            let x = x.add(ky * g.in_step[0]);
            let w = s.weight.add(ky * g.kernel[1] * padded + c);
            if K > 0 {
                // Each pixel goes to all windows that it lies in. An output still takes its pixels from left to right.
                for i in 0..P + K - 1 {
                    let at = x.add(i * g.in_step[1]);
                    let value = if FULL { V::load(at) } else { V::load_partial(at, n) };
                    for (p, [sum]) in acc.iter_mut().enumerate() {
                        if p <= i && i < p + K {
                            *sum = value.mul_add(V::load(w.add((i - p) * padded)), *sum);
                        }
                    }
                }
            } else {
                for kx in 0..g.kernel[1] {
                    let weight = V::load(w.add(kx * padded));
                    for (p, [sum]) in acc.iter_mut().enumerate() {
                        let at = x.add((p * g.stride + kx) * g.in_step[1]);
                        let value = if FULL { V::load(at) } else { V::load_partial(at, n) };
                        *sum = value.mul_add(weight, *sum);
                    }
                }
            }
        }
        acc
    }
}

/// Runs a strip of tiles of `p` pixels.
///
/// # Safety
/// The strip's windows and pixels lie in the arena, and nobody else reads or writes the pixels that it writes.
unsafe fn run_strip(ctx: Context<'_>, p: usize, neighbours: usize, strip: Strip<'_>) {
    let neighbours = if matches!(neighbours, 3 | 5 | 7) { neighbours } else { 0 };
    macro_rules! tiles {
        ($($k:literal: $($p:literal)*;)*) => {
            match (neighbours, p) {
                // SAFETY: handed on to the caller.
                $($(($k, $p) => unsafe { ctx.isa.run(Tiles::<$p, $k>(strip)) },)*)*
                _ => unreachable!("no tile of {p} pixels"),
            }
        };
    }
    if strip.tiles > 0 {
        tiles! {
            0: 1 2 4 8;
            3: 1 2 4 8;
            5: 1 2 4 8;
            7: 1 2 4 8;
        }
    }
}
