//! Mean of a whole map on the GPU: a workgroup for eight channels of an image.

use ferroyolo_shaders::GLOBAL_AVG_POOL;

use crate::backend::gpu::{Job, job_struct, lanes_for, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `global_avg_pool.wgsl`.
    MeanJob { first_workgroup, images, image_pixels, channels, input, input_stride, output, output_stride }
}

pub(crate) fn job(io: &StepIo<'_>) -> Job {
    let (input, output) = (io.inputs[0], io.output);
    let job = MeanJob {
        first_workgroup: 0,
        images: word(input.n),
        image_pixels: word(input.pixels()),
        channels: word(input.c),
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
    };
    let (lanes, overrides) = lanes_for(&[input, output]);
    Job {
        shader: GLOBAL_AVG_POOL,
        overrides,
        lanes,
        workgroups: input.n * input.c.div_ceil(8),
        workgroup_bytes: 0,
        words: job.words(),
        weights: None,
        product: None,
    }
}
