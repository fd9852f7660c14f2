//! Softmax attention over the positions of a map.

use crate::{Arena, Context, Scratch, View};

/// Multi-head attention of every position to every other of its area.
///
/// The channels of `qkv` are the queries of all heads, then the keys of all heads, then the values of all heads. The
/// positions of an image, in row order, are cut into `areas` equal runs that are attended separately.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Channels of a query and of a key of one head.
    pub key_dim: usize,
    /// Channels of a value of one head.
    pub head_dim: usize,
    /// Into how many runs the positions are cut; 1 attends to the whole map.
    pub areas: usize,
    /// Multiplied with each product of query and key.
    pub scale: f32,
    /// `[n, h, w, heads * (2 * key_dim + head_dim)]`
    pub qkv: View,
    /// `[n, h, w, heads * head_dim]`
    pub output: View,
    /// At least [`attention_scratch_len`] elements.
    pub scratch: Scratch,
}

/// How many elements of scratch [`attention`] needs.
pub fn attention_scratch_len(
    heads: usize,
    key_dim: usize,
    head_dim: usize,
    tokens_per_area: usize,
    threads: usize,
) -> usize {
    heads * (key_dim + head_dim) * tokens_per_area + threads * tokens_per_area
}

/// Runs an attention.
///
/// Panics if shapes do not agree, if the positions cannot be cut into `areas` equal runs, if a view or the scratch
/// does not lie inside the arena, or if the output overlaps the input.
pub fn attention(ctx: Context<'_>, arena: &mut Arena, op: &Attention) {
    let (qkv, output) = (op.qkv, op.output);
    qkv.assert_inside(arena.len());
    output.assert_inside(arena.len());
    output.assert_disjoint(&View { halo: 0, ..qkv });
    output.assert_same_pixels(&qkv);
    let channels = [op.heads * (2 * op.key_dim + op.head_dim), op.heads * op.head_dim];
    assert!([qkv.c, output.c] == channels, "{op:?} has not {channels:?} channels");
    assert!(op.areas > 0 && qkv.pixels().is_multiple_of(op.areas), "{op:?} cannot be cut into equal areas");
    let tokens = qkv.pixels() / op.areas;
    let scratch_len = attention_scratch_len(op.heads, op.key_dim, op.head_dim, tokens, ctx.threads.n());
    op.scratch.assert_holds(scratch_len, arena.len());
    op.scratch.assert_outside_all(&[Some(qkv), Some(output)]);
    let data = arena.as_mut_slice();
    let at = |v: &View, i: usize, t: usize, c: usize| v.index(i, t / v.w, t % v.w) + c;
    let mut scores = vec![0.0f32; tokens];
    for i in 0..qkv.n {
        for area in 0..op.areas {
            let base = area * tokens;
            for head in 0..op.heads {
                let q0 = head * op.key_dim;
                let k0 = (op.heads + head) * op.key_dim;
                let v0 = 2 * op.heads * op.key_dim + head * op.head_dim;
                for q in 0..tokens {
                    for (k, score) in scores.iter_mut().enumerate() {
                        let products = (0..op.key_dim).map(|d| {
                            data[at(&qkv, i, base + q, q0 + d)] * data[at(&qkv, i, base + k, k0 + d)]
                        });
                        *score = products.sum::<f32>() * op.scale;
                    }
                    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
                    let sum: f32 = scores.iter().sum();
                    for d in 0..op.head_dim {
                        let terms =
                            scores.iter().enumerate().map(|(k, s)| s * data[at(&qkv, i, base + k, v0 + d)]);
                        let value = terms.sum::<f32>() / sum;
                        data[at(&output, i, base + q, head * op.head_dim + d)] = value;
                    }
                }
            }
        }
    }
}
