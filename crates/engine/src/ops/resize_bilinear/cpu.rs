//! Bilinear enlarging on the CPU.

use ferroyolo_kernels::{Arena, Context, resize_bilinear};

use super::ResizeBilinear;
use crate::ops::StepIo;

pub(super) fn run(op: &ResizeBilinear, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    resize_bilinear(context, arena, op.align_corners, io.inputs[0], io.output);
}
