//! Dense convolution with bias, activation and residual addition in one pass.

use crate::activation::apply;
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
    weight: Vec<f32>,
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
        let [kh, kw] = spec.kernel;
        assert_eq!(weight.len(), spec.oc * spec.ic * kh * kw, "weights of {spec:?}");
        let k = spec.ic * kh * kw;
        let weight = weight.iter().enumerate().map(|(i, w)| w * scale.map_or(1.0, |s| s[i / k])).collect();
        let bias = bias.map_or_else(|| vec![0.0; spec.oc], <[f32]>::to_vec);
        assert_eq!(bias.len(), spec.oc, "bias of {spec:?}");
        PackedConv { spec, weight, bias }
    }

    /// Memory of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// The shape of the convolution.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// How many elements of scratch [`conv2d`] needs for an output of this size on this number of threads.
    pub fn scratch_len(&self, _out_h: usize, _out_w: usize, _threads: usize) -> usize {
        0
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
/// arena, or if the output overlaps the input or the residual.
pub fn conv2d(_ctx: Context<'_>, arena: &mut Arena, op: &Conv2d<'_>) {
    let spec = op.weights.spec;
    let (input, output) = (op.input, op.output);
    let window = Window { kernel: spec.kernel, stride: spec.stride, padding: spec.padding };
    window.assert_fits(arena.len(), &input, &output, op.residual.as_ref());
    assert!(input.c == spec.ic && output.c == spec.oc, "{spec:?} from {input:?} to {output:?}");
    op.scratch.assert_holds(op.weights.scratch_len(output.h, output.w, 1), arena.len());
    op.scratch.assert_outside_all(&[Some(input), Some(output), op.residual]);
    let [kh, kw] = spec.kernel;
    let data = arena.as_mut_slice();
    for i in 0..output.n {
        for y in 0..output.h {
            for x in 0..output.w {
                for o in 0..spec.oc {
                    let mut acc = op.weights.bias[o];
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy = (y * spec.stride[0] + ky) as isize - spec.padding[0] as isize;
                            let ix = (x * spec.stride[1] + kx) as isize - spec.padding[1] as isize;
                            let base = input.index(i, 0, 0) as isize
                                + iy * input.row_stride as isize
                                + ix * input.pixel_stride as isize;
                            for c in 0..spec.ic {
                                acc += data[base as usize + c]
                                    * op.weights.weight[((o * spec.ic + c) * kh + ky) * kw + kx];
                            }
                        }
                    }
                    let mut v = apply(op.activation, acc);
                    if let Some(r) = op.residual {
                        v += data[r.index(i, y, x) + o];
                    }
                    data[output.index(i, y, x) + o] = v;
                }
            }
        }
    }
}
