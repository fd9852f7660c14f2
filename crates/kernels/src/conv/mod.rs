//! Dense convolution with bias, activation and residual addition in one pass.

mod direct;
pub(crate) mod strip;
mod transposed;
mod winograd;

pub use transposed::{ConvTranspose2d, PackedConvTranspose, conv_transpose2d};

use crate::simd::LANES;
use crate::view::Window;
use crate::{Activation, Arena, Context, Scratch, View};

/// The shape of a dense convolution (`groups` = 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvSpec {
    /// Output channels.
    pub oc: usize,
    /// Input channels.
    pub ic: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between outputs, down and across.
    pub stride: [usize; 2],
    /// Zero pixels above and left of the image; as many are read below and right as the output needs.
    pub padding: [usize; 2],
}

/// The weights of a dense convolution, packed once and shared by all instruction sets and threads.
#[derive(Clone)]
pub struct PackedConv {
    spec: ConvSpec,
    /// `[block of 16 output channels][kh][kw][ic][16]`, zero beyond the last channel.
    weight: Vec<f32>,
    /// Weights for Winograd convolution, where the shape allows it.
    winograd: Option<Vec<f32>>,
    /// Zero beyond the last channel, up to a whole block.
    bias: Vec<f32>,
}

/// `output = activation(conv(input) + bias) + residual`.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d<'a> {
    /// The weights, bias included.
    pub weights: &'a PackedConv,
    /// Applied before the residual is added.
    pub activation: Activation,
    /// `[n, h, w, ic]`, with a zero halo of at least the padding.
    pub input: View,
    /// `[n, out_h, out_w, oc]`
    pub output: View,
    /// `[n, out_h, out_w, oc]`, added after the activation.
    pub residual: Option<View>,
    /// At least [`PackedConv::scratch_len`] elements.
    pub scratch: Scratch,
}

impl ConvSpec {
    /// Height and width of the output for an input of this height and width.
    pub fn out_hw(&self, in_hw: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|i| (in_hw[i] + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1)
    }
}

impl PackedConv {
    /// Packs `weight`, `[oc, ic, kh, kw]`, with each output channel multiplied by its `scale`.
    ///
    /// `scale` and `bias` have `oc` elements; without them they are 1 and 0. Panics if a length does not fit the
    /// spec, or if the spec has a zero where none can be.
    pub fn new(spec: ConvSpec, weight: &[f32], scale: Option<&[f32]>, bias: Option<&[f32]>) -> PackedConv {
        let ConvSpec { oc, ic, kernel: [kh, kw], stride, .. } = spec;
        assert!([oc, ic, kh, kw, stride[0], stride[1]].iter().all(|&x| x > 0), "{spec:?} has a zero");
        assert_eq!(weight.len(), oc * ic * kh * kw, "weights of {spec:?}");
        assert!(scale.is_none_or(|s| s.len() == oc), "scale of {spec:?}");
        assert!(bias.is_none_or(|b| b.len() == oc), "bias of {spec:?}");
        let n_blocks = oc.div_ceil(LANES);
        let mut packed = vec![0.0; n_blocks * kh * kw * ic * LANES];
        for (i, &w) in weight.iter().enumerate() {
            let (o, c, k) = (i / (ic * kh * kw), i / (kh * kw) % ic, i % (kh * kw));
            let block = (o / LANES * kh * kw + k) * ic + c;
            packed[block * LANES + o % LANES] = w * scale.map_or(1.0, |s| s[o]);
        }
        let mut padded_bias = vec![0.0; n_blocks * LANES];
        if let Some(bias) = bias {
            padded_bias[..oc].copy_from_slice(bias);
        }
        let winograd = winograd::is_possible(&spec).then(|| winograd::pack(&spec, weight, scale));
        PackedConv { spec, weight: packed, winograd, bias: padded_bias }
    }

    /// Memory of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        let winograd = self.winograd.as_deref().unwrap_or_default();
        size_of_val(&self.weight[..]) + size_of_val(winograd) + size_of_val(&self.bias[..])
    }

    /// The shape of the convolution.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// How many elements of scratch [`conv2d`] needs for an output of this size on this number of threads.
    pub fn scratch_len(&self, out_h: usize, out_w: usize, threads: usize) -> usize {
        match self.winograd_for(out_h, out_w) {
            Some(_) => winograd::scratch_len(&self.spec, out_h, out_w, threads),
            None => 0,
        }
    }

    /// The weights for Winograd convolution, where that is the way for an output of this size.
    fn winograd_for(&self, out_h: usize, out_w: usize) -> Option<&[f32]> {
        self.winograd.as_deref().filter(|_| winograd::pays(out_h, out_w))
    }
}

impl std::fmt::Debug for PackedConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedConv").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Runs a convolution.
///
/// Panics if shapes do not agree, if the input's halo is smaller than the padding, if a view does not lie inside the
/// arena, or if the output overlaps the input or the residual. NaN and infinity in the input reach the outputs that
/// depend on them, and with a 3x3 kernel of stride 1 also outputs up to three pixels further.
pub fn conv2d(ctx: Context<'_>, arena: &mut Arena, op: &Conv2d<'_>) {
    let spec = op.weights.spec;
    let (input, output) = (op.input, op.output);
    let window = Window { kernel: spec.kernel, stride: spec.stride, padding: spec.padding };
    window.assert_fits(arena.len(), &input, &output, op.residual.as_ref());
    assert!(input.c == spec.ic && output.c == spec.oc, "{spec:?} from {input:?} to {output:?}");
    op.scratch.assert_holds(op.weights.scratch_len(output.h, output.w, ctx.threads.n()), arena.len());
    op.scratch.assert_outside_all(&[Some(input), Some(output), op.residual]);
    match op.weights.winograd_for(output.h, output.w) {
        Some(weight) => winograd::run(ctx, arena, op, weight),
        None => direct::run(ctx, arena, op),
    }
}
