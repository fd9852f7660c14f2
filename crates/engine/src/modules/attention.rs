//! `Attention` and `AAttn`: multi-head attention with a depthwise positional encoding of the values.

use ferroyolo_kernels::Activation;

use super::{ModuleNode, build_single, conv};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Attention, ConvWeights, Op};

/// `Attention`: all cells attend to each other.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let (key_dim, head_dim) = (m.usize("key_dim")?, m.usize("head_dim")?);
    let heads = m.usize("num_heads")?;
    build_heads(b, m, Attention { heads, key_dim, head_dim, areas: 1, scale: scale(m, key_dim)? }, x)
}

/// `AAttn`: the cells of each of `area` runs attend to each other. Queries and keys are as wide as values.
pub(super) fn build_area(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let (head_dim, areas) = (m.usize("head_dim")?, m.usize("area")?);
    let heads = m.usize("num_heads")?;
    if !(1..=4096).contains(&areas) {
        return Err(Error::format(m.path(), format!("{areas} areas, expected 1 to 4096")));
    }
    build_heads(b, m, Attention { heads, key_dim: head_dim, head_dim, areas, scale: scale(m, head_dim)? }, x)
}

/// What products of queries and keys are multiplied with.
fn scale(m: &ModuleNode<'_>, key_dim: usize) -> Result<f32> {
    if m.attr("scale").is_some() { Ok(m.float("scale")? as f32) } else { Ok((key_dim as f32).powf(-0.5)) }
}

/// `proj(attended + pe(v))`.
///
/// The trained `qkv` convolution gives queries, keys and values head by head. Its output channels are reordered here
/// so that the values of all heads lie next to each other and `pe` can read them as one slice.
fn build_heads(b: &mut Builder<'_>, m: &ModuleNode<'_>, op: Attention, x: ValueId) -> Result<ValueId> {
    let Attention { heads, key_dim, head_dim, .. } = op;
    let n_values = heads * head_dim;

    let qkv_module = m.child("qkv")?;
    let activation = qkv_module.find("act").map_or(Ok(Activation::None), |act| conv::activation(&act))?;
    let qkv_conv = conv::attributes(&qkv_module.child("conv")?, activation)?;
    if heads == 0
        || key_dim == 0
        || head_dim == 0
        || qkv_conv.out_channels != heads * (2 * key_dim + head_dim)
    {
        return Err(Error::shape(
            m.path(),
            format!(
                "{} channels of queries, keys and values do not fit {heads} heads of {key_dim} and {head_dim}",
                qkv_conv.out_channels
            ),
        ));
    }
    if qkv_conv.groups != 1 {
        return Err(Error::unsupported(m.path(), "grouped queries, keys and values"));
    }
    let qkv_path = qkv_module.child("conv")?;
    let weights = b.take_conv(qkv_path.path(), conv::weight_shape(&qkv_conv))?;
    let weights = heads_last(&weights, heads, [key_dim, key_dim, head_dim]);
    let qkv = b.conv(qkv_path.path(), qkv_conv, weights, x)?;

    let attended = b.push(m.path(), Op::Attention(op), &[qkv])?;
    let values = b.slice(m.path(), qkv, 2 * heads * key_dim, n_values)?;
    let position = build_single(b, &m.child("pe")?, values)?;
    let sum = b.add(m.path(), attended, position)?;
    build_single(b, &m.child("proj")?, sum)
}

/// Reorders output channels from `[head][part]` to `[part][head]`; `parts` are the channels of each part of a head.
fn heads_last(weights: &ConvWeights, heads: usize, parts: [usize; 3]) -> ConvWeights {
    let per_head: usize = parts.iter().sum();
    let kernel_len = weights.weight.len() / weights.bias.len();
    let mut reordered = ConvWeights::default();
    let mut first = 0;
    for len in parts {
        for head in 0..heads {
            let channels = head * per_head + first..head * per_head + first + len;
            reordered.bias.extend_from_slice(&weights.bias[channels.clone()]);
            let kernels = channels.start * kernel_len..channels.end * kernel_len;
            reordered.weight.extend_from_slice(&weights.weight[kernels]);
        }
        first += len;
    }
    reordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_move_inside_parts() {
        let weights = ConvWeights {
            weight: (0..8).map(|v| v as f32).collect(),
            bias: vec![0., 1., 2., 3., 4., 5., 6., 7.],
        };
        // Two heads of one query, one key and two values.
        let reordered = heads_last(&weights, 2, [1, 1, 2]);
        assert_eq!(reordered.bias, [0., 4., 1., 5., 2., 3., 6., 7.]);
        assert_eq!(reordered.weight, reordered.bias);
    }
}
