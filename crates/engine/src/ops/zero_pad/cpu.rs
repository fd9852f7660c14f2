//! Zeros around a map on the CPU.

use ferroyolo_kernels::{Arena, Context, zero_pad};

use super::ZeroPad;
use crate::ops::StepIo;

pub(super) fn run(op: &ZeroPad, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    zero_pad(context, arena, [op.top, op.left], io.inputs[0], io.output);
}
