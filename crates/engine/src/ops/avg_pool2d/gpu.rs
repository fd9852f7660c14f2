//! Mean over a sliding window on the GPU.

use super::AvgPool2d;
use crate::backend::gpu::{Job, word};
use crate::ops::StepIo;
use crate::ops::max_pool2d::gpu::{PoolJob, pool};

pub(crate) fn job(op: &AvgPool2d, io: &StepIo<'_>) -> Job {
    let window =
        PoolJob { kernel: word(op.kernel), stride: word(op.stride), is_mean: 1, ..PoolJob::default() };
    pool(window, io)
}
