//! Mean of a whole map on the CPU.

use ferroyolo_kernels::{Arena, Context, global_avg_pool};

use crate::ops::StepIo;

pub(super) fn run(context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    global_avg_pool(context, arena, io.inputs[0], io.output);
}
