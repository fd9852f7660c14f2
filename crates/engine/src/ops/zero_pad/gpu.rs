//! Zeros around a map on the GPU.

use super::ZeroPad;
use crate::backend::gpu::Job;
use crate::ops::StepIo;
use crate::ops::upsample::gpu::{Mode, resample};

pub(crate) fn job(op: &ZeroPad, io: &StepIo<'_>) -> Job {
    resample(Mode::Place, [op.top, op.left], &io.inputs[0], &io.output)
}
