//! Transposed convolution whose windows do not overlap: every input pixel becomes a square of output pixels.

use super::{Conv2d, ConvSpec, PackedConv, conv2d};
use crate::{Activation, Arena, Context, Scratch, View};

/// The weights of a transposed convolution whose kernel is as large as its stride, packed once.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    /// Height and width of the square that a pixel becomes.
    kernel: [usize; 2],
    /// One convolution of a single pixel for each place in the square, row by row.
    parts: Vec<PackedConv>,
}

/// `output = activation(transposed convolution of input + bias)`.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose2d<'a> {
    /// The weights, bias included.
    pub weights: &'a PackedConvTranspose,
    /// Applied to every output.
    pub activation: Activation,
    /// `[n, h, w, ic]`
    pub input: View,
    /// `[n, kh * h, kw * w, oc]`
    pub output: View,
}

impl PackedConvTranspose {
    /// Packs `weight`, `[ic, oc, kh, kw]` with `kernel` `[kh, kw]`, and `bias`, which has `oc` elements.
    ///
    /// Panics if a length does not fit, or if there are no channels or pixels.
    pub fn new(
        [ic, oc]: [usize; 2],
        kernel: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> PackedConvTranspose {
        let pixels = kernel[0] * kernel[1];
        assert_eq!(weight.len(), ic * oc * pixels, "weights of {ic} to {oc} channels, {kernel:?}");
        let spec = ConvSpec { oc, ic, kernel: [1, 1], stride: [1, 1], padding: [0, 0] };
        let part = |place: usize| {
            let mut of_place = vec![0.0; oc * ic];
            for (i, value) in of_place.iter_mut().enumerate() {
                let (o, c) = (i / ic, i % ic);
                *value = weight[(c * oc + o) * pixels + place];
            }
            PackedConv::new(spec, &of_place, None, bias)
        };
        PackedConvTranspose { kernel, parts: (0..pixels).map(part).collect() }
    }

    /// Memory of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(PackedConv::bytes).sum()
    }
}

/// Runs a transposed convolution: for each place in the square, a convolution of single pixels that writes every
/// `kernel`-th pixel of the output.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn conv_transpose2d(ctx: Context<'_>, arena: &mut Arena, op: &ConvTranspose2d<'_>) {
    let (input, output, [kh, kw]) = (op.input, op.output, op.weights.kernel);
    let fits = Some(output.h) == input.h.checked_mul(kh) && Some(output.w) == input.w.checked_mul(kw);
    assert!(fits, "squares of {kh}x{kw} pixels for {input:?} to {output:?}");
    output.assert_inside(arena.len());
    output.assert_disjoint(&input);
    for (place, weights) in op.weights.parts.iter().enumerate() {
        let output = View {
            offset: output.offset + place / kw * output.row_stride + place % kw * output.pixel_stride,
            h: input.h,
            w: input.w,
            row_stride: kh * output.row_stride,
            pixel_stride: kw * output.pixel_stride,
            halo: 0,
            ..output
        };
        let (activation, residual, scratch) = (op.activation, None, Scratch::default());
        conv2d(ctx, arena, &Conv2d { weights, activation, input, output, residual, scratch });
    }
}
