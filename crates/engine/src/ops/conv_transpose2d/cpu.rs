//! Transposed convolution on the CPU.

use ferroyolo_kernels::{Arena, Context, ConvTranspose2d as Call, PackedConvTranspose, conv_transpose2d};

use super::ConvTranspose2d;
use crate::ops::{ConvWeights, PackedWeights, StepIo};

pub(super) fn pack(op: &ConvTranspose2d, weights: &ConvWeights) -> PackedWeights {
    let channels = [op.in_channels, op.out_channels];
    PackedWeights::Transposed(PackedConvTranspose::new(
        channels,
        op.kernel,
        &weights.weight,
        Some(&weights.bias),
    ))
}

pub(super) fn run(
    op: &ConvTranspose2d,
    context: Context<'_>,
    arena: &mut Arena,
    weights: &[PackedWeights],
    io: &StepIo<'_>,
) {
    let PackedWeights::Transposed(weights) = &weights[op.weights] else {
        unreachable!("the weights were packed for this op")
    };
    let (activation, input, output) = (op.activation, io.inputs[0], io.output);
    conv_transpose2d(context, arena, &Call { weights, activation, input, output });
}
