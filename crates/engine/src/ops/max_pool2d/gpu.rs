//! Maximum over a sliding window on the GPU.

use ferroyolo_shaders::WINDOW_POOL;

use super::MaxPool2d;
use crate::backend::gpu::{Job, elementwise, job_struct, pixels, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `window_pool.wgsl`.
    PoolJob {
        first_workgroup, pixels, image_pixels, row_pixels, in_h, in_w, channels, kernel, stride, pad, is_mean, input,
        input_stride, output, output_stride,
    }
}

pub(crate) fn job(op: &MaxPool2d, io: &StepIo<'_>) -> Job {
    let window = PoolJob {
        kernel: word(op.kernel),
        stride: word(op.stride),
        pad: word(op.padding),
        ..PoolJob::default()
    };
    pool(window, io)
}

/// The job for the windows that `window` describes.
pub(crate) fn pool(window: PoolJob, io: &StepIo<'_>) -> Job {
    let (input, output) = (io.inputs[0], io.output);
    let job = PoolJob {
        pixels: word(pixels(&output)),
        image_pixels: word(output.pixels()),
        row_pixels: word(output.w),
        in_h: word(input.h),
        in_w: word(input.w),
        channels: word(output.c),
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
        ..window
    };
    elementwise(WINDOW_POOL, job.words(), &[input], &output)
}
