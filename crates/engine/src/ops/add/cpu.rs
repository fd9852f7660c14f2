//! Elementwise sum on the CPU.

use ferroyolo_kernels::{Arena, Context, add};

use crate::ops::StepIo;

pub(super) fn run(context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    add(context, arena, io.inputs[0], io.inputs[1], io.output);
}
