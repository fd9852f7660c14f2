//! Attention on the GPU: a workgroup for some queries of one head, or for some of their channels.

use ferroyolo_shaders::{ATTENTION, Lanes};

use super::Attention;
use crate::backend::gpu::{Job, THREADS, job_struct, lanes_for, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `attention.wgsl`.
    AttentionJob {
        first_workgroup, images, tokens, area, heads, key_dim, head_dim, scale, input, input_stride, output,
        output_stride,
    }
}

/// Queries of a workgroup, the shader's own number.
const QUERIES: usize = 8;

/// Bytes of the shader's `vec4<f32>`.
const VECTOR: usize = 16;

pub(crate) fn job(op: &Attention, io: &StepIo<'_>) -> Job {
    let (input, output) = (io.inputs[0], io.output);
    let (tokens, area) = (input.pixels(), input.pixels() / op.areas);
    let job = AttentionJob {
        first_workgroup: 0,
        images: word(input.n),
        tokens: word(tokens),
        area: word(area),
        heads: word(op.heads),
        key_dim: word(op.key_dim),
        head_dim: word(op.head_dim),
        scale: op.scale.to_bits(),
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
    };
    // Heads follow each other, so in fours each has to be a multiple of four.
    let is_whole = op.head_dim.is_multiple_of(4) && op.key_dim.is_multiple_of(4);
    let key_dim = op.key_dim.next_multiple_of(4);
    let (lanes, mut overrides) =
        if is_whole { lanes_for(&[input, output]) } else { (Lanes::One, Vec::new()) };
    overrides.push(("KEY_DIM", word(key_dim)));
    // Of what invocations have and put together, whichever way that is done.
    let reduced = 2 * THREADS * VECTOR + THREADS * size_of::<f32>();
    let slices = op.head_dim.div_ceil(4 * THREADS);
    Job {
        shader: ATTENTION,
        overrides,
        lanes,
        workgroups: input.n * op.areas * op.heads * slices * area.div_ceil(QUERIES),
        workgroup_bytes: (2 * key_dim + 4 * THREADS) * VECTOR + reduced,
        words: job.words(),
        weights: None,
        product: None,
    }
}
