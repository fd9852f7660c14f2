//! Ops as work for shaders.

use super::{ConvWeights, Op, StepIo};
use crate::backend::gpu::{GpuWeights, Job, Packer};

/// The work of one step. Views make none, and other ops at least one job.
pub(crate) fn jobs(op: &Op, weights: &GpuWeights, io: &StepIo<'_>) -> Vec<Job> {
    match op {
        Op::Conv2d(op) => vec![super::conv2d::gpu::job(op, weights, io)],
        Op::ConvTranspose2d(op) => super::conv_transpose2d::gpu::jobs(op, weights, io),
        Op::MaxPool2d(op) => vec![super::max_pool2d::gpu::job(op, io)],
        Op::AvgPool2d(op) => vec![super::avg_pool2d::gpu::job(op, io)],
        Op::GlobalAvgPool(_) => vec![super::global_avg_pool::gpu::job(io)],
        Op::Upsample(_) => vec![super::upsample::gpu::job(io)],
        Op::UpsampleLike(_) => vec![super::upsample::gpu::job(io)],
        Op::ResizeBilinear(op) => vec![super::resize_bilinear::gpu::job(op, io)],
        Op::ZeroPad(op) => vec![super::zero_pad::gpu::job(op, io)],
        Op::Concat(_) => super::concat::gpu::jobs(io),
        Op::Slice(_) => Vec::new(),
        Op::Add(_) => vec![super::add::gpu::job(io)],
        Op::Attention(op) => vec![super::attention::gpu::job(op, io)],
    }
}

/// Appends the trained values of `op`, and returns the place of their index.
pub(crate) fn pack<'a>(
    op: &'a mut Op,
    weights: &[ConvWeights],
    packed: &mut GpuWeights,
) -> Option<&'a mut usize> {
    match op {
        Op::Conv2d(op) => {
            super::conv2d::gpu::pack(op, &weights[op.weights], &mut Packer(packed));
            Some(&mut op.weights)
        }
        Op::ConvTranspose2d(op) => {
            super::conv_transpose2d::gpu::pack(op, &weights[op.weights], &mut Packer(packed));
            Some(&mut op.weights)
        }
        _ => None,
    }
}
