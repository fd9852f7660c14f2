//! Elementwise sum on the GPU.

use ferroyolo_shaders::ADD;

use crate::backend::gpu::{Job, elementwise, job_struct, pixels, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `add.wgsl`.
    AddJob { first_workgroup, pixels, channels, a, a_stride, b, b_stride, output, output_stride }
}

pub(crate) fn job(io: &StepIo<'_>) -> Job {
    let (a, b, output) = (io.inputs[0], io.inputs[1], io.output);
    let job = AddJob {
        first_workgroup: 0,
        pixels: word(pixels(&output)),
        channels: word(output.c),
        a: word(a.offset),
        a_stride: word(a.pixel_stride),
        b: word(b.offset),
        b_stride: word(b.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
    };
    elementwise(ADD, job.words(), &[a, b], &output)
}
