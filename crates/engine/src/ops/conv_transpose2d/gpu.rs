//! Transposed convolution on the GPU: a 1x1 convolution for each cell of the kernel.

use super::ConvTranspose2d;
use crate::backend::gpu::{GpuWeights, Job, Packer, word};
use crate::ops::conv2d::gpu::{conv_job, finish, number};
use crate::ops::{ConvWeights, StepIo};

/// One matrix for each cell of the kernel, each with the bias behind it.
pub(crate) fn pack(op: &ConvTranspose2d, values: &ConvWeights, packer: &mut Packer<'_>) {
    let [kh, kw] = op.kernel;
    let padded = op.in_channels.next_multiple_of(4);
    packer.push_parts(kh * kw, padded, op.out_channels, &values.bias, |cell, c, o| {
        if c < op.in_channels { values.weight[(c * op.out_channels + o) * kh * kw + cell] } else { 0.0 }
    });
}

pub(crate) fn jobs(op: &ConvTranspose2d, weights: &GpuWeights, io: &StepIo<'_>) -> Vec<Job> {
    let (input, output) = (io.inputs[0], io.output);
    let [kh, kw] = op.kernel;
    let packed = weights.places[op.weights];
    let part = packed.bias - packed.weights + word(op.out_channels.div_ceil(4));
    let cell_job = |cell: usize| {
        let mut job = conv_job(&input, &output, [op.in_channels, op.out_channels]);
        // One output pixel for each of the input's.
        (job.pixels, job.image_pixels, job.row_pixels) =
            (word(input.n * input.pixels()), word(input.pixels()), word(input.w));
        (job.step_h, job.step_w) = (word(kh), word(kw));
        (job.shift_h, job.shift_w) = (word(cell / kw), word(cell % kw));
        job.weights = packed.weights + word(cell) * part;
        job.bias = packed.bias + word(cell) * part;
        job.activation = number(op.activation);
        finish(job, &[input, output])
    };
    (0..kh * kw).map(cell_job).collect()
}
