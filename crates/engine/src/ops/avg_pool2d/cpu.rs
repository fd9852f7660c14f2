//! Average pooling on the CPU.

use ferroyolo_kernels::{Arena, Context, avg_pool2d};

use super::AvgPool2d;
use crate::ops::StepIo;

pub(super) fn run(op: &AvgPool2d, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    avg_pool2d(context, arena, [[op.kernel; 2], [op.stride; 2]], io.inputs[0], io.output);
}
