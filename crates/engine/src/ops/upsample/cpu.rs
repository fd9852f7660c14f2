//! Nearest-neighbour enlarging on the CPU.

use ferroyolo_kernels::{Arena, Context, upsample_nearest};

use super::Upsample;
use crate::ops::StepIo;

pub(super) fn run(op: &Upsample, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    upsample_nearest(context, arena, op.factor, io.inputs[0], io.output);
}
