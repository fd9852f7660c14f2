//! Maps of another size on the GPU; this one repeats cells.

use ferroyolo_kernels::View;
use ferroyolo_shaders::RESAMPLE;

use crate::backend::gpu::{Job, elementwise, job_struct, pixels, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `resample.wgsl`.
    ResampleJob {
        first_workgroup, pixels, image_pixels, row_pixels, in_h, in_w, channels, mode, top, left, input, input_stride,
        output, output_stride,
    }
}

/// How cells are found, as `resample.wgsl` numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Repeated.
    Nearest = 0,
    /// Mixed; the map's corners stay.
    Bilinear = 1,
    /// Mixed; the centres of the corner cells stay.
    BilinearCorners = 2,
    /// Moved, zeros around them.
    Place = 3,
}

pub(crate) fn job(io: &StepIo<'_>) -> Job {
    resample(Mode::Nearest, [0, 0], &io.inputs[0], &io.output)
}

/// `top_left` is where the first cell goes, for [`Mode::Place`].
pub(crate) fn resample(mode: Mode, top_left: [usize; 2], input: &View, output: &View) -> Job {
    let job = ResampleJob {
        first_workgroup: 0,
        pixels: word(pixels(output)),
        image_pixels: word(output.pixels()),
        row_pixels: word(output.w),
        in_h: word(input.h),
        in_w: word(input.w),
        channels: word(output.c),
        mode: mode as u32,
        top: word(top_left[0]),
        left: word(top_left[1]),
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
    };
    elementwise(RESAMPLE, job.words(), &[*input], output)
}
