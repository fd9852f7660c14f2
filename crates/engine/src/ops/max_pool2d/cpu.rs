//! Max pooling on the CPU.

use ferroyolo_kernels::{Arena, Context, MaxPool2d as Call, max_pool2d};

use super::MaxPool2d;
use crate::ops::StepIo;

pub(super) fn run(op: &MaxPool2d, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    let [kernel, stride, padding] = [op.kernel, op.stride, op.padding].map(|both| [both; 2]);
    max_pool2d(context, arena, &Call { kernel, stride, padding, input: io.inputs[0], output: io.output });
}
