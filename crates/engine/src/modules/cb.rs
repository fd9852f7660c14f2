//! `CBLinear` and `CBFuse`: features of one backbone that are added into another.
//!
//! Source: YOLOv9, arXiv:2402.13616.

use super::{ModuleNode, build_single};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Op, UpsampleLike};

/// `CBLinear`: a convolution whose channels are cut into parts of `c2s` channels, the layer's outputs.
pub(super) fn build_linear(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<Vec<ValueId>> {
    let all = build_single(b, &m.child("conv")?, x)?;
    let widths = m.usizes("c2s")?;
    if widths.iter().sum::<usize>() != b.channels(all) {
        return Err(Error::shape(
            m.path(),
            format!("got {} channels, expected the sum of {widths:?}", b.channels(all)),
        ));
    }
    let mut from = 0;
    let mut parts = Vec::with_capacity(widths.len());
    for width in widths {
        parts.push(b.slice(m.path(), all, from, width)?);
        from += width;
    }
    Ok(parts)
}

/// `CBFuse`: the last input, plus part `idx` of each other one, enlarged to its size.
pub(super) fn build_fuse(b: &mut Builder<'_>, m: &ModuleNode<'_>, inputs: &[&[ValueId]]) -> Result<ValueId> {
    let chosen = m.usizes("idx")?;
    let Some((&[last], others)) = inputs.split_last().map(|(last, others)| (*last, others)) else {
        return Err(Error::shape(m.path(), "the last input has to be one map"));
    };
    if chosen.len() != others.len() {
        return Err(Error::shape(
            m.path(),
            format!("{} inputs before the last, but {} parts are chosen", others.len(), chosen.len()),
        ));
    }
    let mut sum = last;
    for (parts, idx) in others.iter().zip(chosen) {
        let part = *parts.get(idx).ok_or_else(|| {
            Error::shape(m.path(), format!("part {idx} is chosen of an input of {} parts", parts.len()))
        })?;
        let enlarged = b.push(m.path(), Op::UpsampleLike(UpsampleLike), &[part, last])?;
        sum = b.add(m.path(), sum, enlarged)?;
    }
    Ok(sum)
}
