//! Depthwise convolution: one filter for each channel.

use crate::activation::apply;
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
    weight: Vec<f32>,
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
        let k = spec.kernel[0] * spec.kernel[1];
        assert_eq!(weight.len(), spec.c * k, "weights of {spec:?}");
        let weight = weight.iter().enumerate().map(|(i, w)| w * scale.map_or(1.0, |s| s[i / k])).collect();
        let bias = bias.map_or_else(|| vec![0.0; spec.c], <[f32]>::to_vec);
        assert_eq!(bias.len(), spec.c, "bias of {spec:?}");
        PackedDepthwise { spec, weight, bias }
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
pub fn depthwise2d(_ctx: Context<'_>, arena: &mut Arena, op: &Depthwise2d<'_>) {
    let spec = op.weights.spec;
    let (input, output) = (op.input, op.output);
    let window = Window { kernel: spec.kernel, stride: spec.stride, padding: spec.padding };
    window.assert_fits(arena.len(), &input, &output, op.residual.as_ref());
    assert!(input.c == spec.c && output.c == spec.c, "{spec:?} from {input:?} to {output:?}");
    let [kh, kw] = spec.kernel;
    let data = arena.as_mut_slice();
    for i in 0..output.n {
        for y in 0..output.h {
            for x in 0..output.w {
                for c in 0..spec.c {
                    let mut acc = op.weights.bias[c];
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy = (y * spec.stride[0] + ky) as isize - spec.padding[0] as isize;
                            let ix = (x * spec.stride[1] + kx) as isize - spec.padding[1] as isize;
                            let base = input.index(i, 0, 0) as isize
                                + iy * input.row_stride as isize
                                + ix * input.pixel_stride as isize;
                            acc += data[base as usize + c] * op.weights.weight[(c * kh + ky) * kw + kx];
                        }
                    }
                    let mut v = apply(op.activation, acc);
                    if let Some(r) = op.residual {
                        v += data[r.index(i, y, x) + c];
                    }
                    data[output.index(i, y, x) + c] = v;
                }
            }
        }
    }
}
