//! Bilinear enlarging on the GPU.

use super::ResizeBilinear;
use crate::backend::gpu::Job;
use crate::ops::StepIo;
use crate::ops::upsample::gpu::{Mode, resample};

pub(crate) fn job(op: &ResizeBilinear, io: &StepIo<'_>) -> Job {
    let mode = if op.align_corners { Mode::BilinearCorners } else { Mode::Bilinear };
    resample(mode, [0, 0], &io.inputs[0], &io.output)
}
