//! Attention on the CPU.

use ferroyolo_kernels::{Arena, Attention as Call, Context, attention, attention_scratch_len};

use super::Attention;
use crate::ops::{Hw, StepIo};

pub(super) fn scratch_len(op: &Attention, [h, w]: Hw, threads: usize) -> usize {
    attention_scratch_len(op.heads, op.key_dim, op.head_dim, h * w / op.areas, threads)
}

pub(super) fn run(op: &Attention, context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    let &Attention { heads, key_dim, head_dim, areas, scale } = op;
    let (qkv, output, scratch) = (io.inputs[0], io.output, io.scratch);
    attention(context, arena, &Call { heads, key_dim, head_dim, areas, scale, qkv, output, scratch });
}
