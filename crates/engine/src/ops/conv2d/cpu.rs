//! Convolution on the CPU: packed once per model, dense or depthwise.

use ferroyolo_kernels::{
    Activation, Arena, Context, Conv2d as DenseCall, ConvSpec, Depthwise2d, DepthwiseSpec, PackedConv,
    PackedConvTranspose, PackedDepthwise, conv2d, depthwise2d,
};

use super::{Conv2d, ConvWeights};
use crate::ops::{Hw, StepIo};

/// Weights of one convolution in the order in which the kernels read them.
#[derive(Debug)]
pub(crate) enum PackedWeights {
    Dense(PackedConv),
    Depthwise(PackedDepthwise),
    Transposed(PackedConvTranspose),
}

impl PackedWeights {
    pub(crate) fn pack(op: &Conv2d, weights: &ConvWeights) -> Self {
        let bias = Some(weights.bias.as_slice());
        if op.is_depthwise() {
            let spec = DepthwiseSpec {
                c: op.out_channels,
                kernel: op.kernel,
                stride: op.stride,
                padding: op.padding,
            };
            Self::Depthwise(PackedDepthwise::new(spec, &weights.weight, None, bias))
        } else {
            let spec = ConvSpec {
                ic: op.in_channels,
                oc: op.out_channels,
                kernel: op.kernel,
                stride: op.stride,
                padding: op.padding,
            };
            Self::Dense(PackedConv::new(spec, &weights.weight, None, bias))
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense(packed) => packed.bytes(),
            Self::Depthwise(packed) => packed.bytes(),
            Self::Transposed(packed) => packed.bytes(),
        }
    }

    pub(super) fn scratch_len(&self, [h, w]: Hw, threads: usize) -> usize {
        match self {
            Self::Dense(packed) => packed.scratch_len(h, w, threads),
            Self::Depthwise(_) | Self::Transposed(_) => 0,
        }
    }

    pub(super) fn run(
        &self,
        context: Context<'_>,
        arena: &mut Arena,
        activation: Activation,
        io: &StepIo<'_>,
    ) {
        let (input, residual) = (io.inputs[0], io.inputs.get(1).copied());
        match self {
            Self::Dense(weights) => {
                let output = io.output;
                conv2d(
                    context,
                    arena,
                    &DenseCall { weights, activation, input, output, residual, scratch: io.scratch },
                );
            }
            Self::Depthwise(weights) => {
                let output = io.output;
                depthwise2d(context, arena, &Depthwise2d { weights, activation, input, output, residual });
            }
            Self::Transposed(_) => unreachable!("the weights were packed for a convolution"),
        }
    }
}
