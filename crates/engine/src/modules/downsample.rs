//! `AConv`, `ADown` and `SCDown`: half the height and width, with less arithmetic than one full convolution.
//!
//! Sources: YOLOv9, arXiv:2402.13616; YOLOv10, arXiv:2405.14458.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};
use crate::ops::{AvgPool2d, MaxPool2d, Op};

/// The mean of neighbouring cells. Not a module of the tree: the blocks call it as a function.
const MEAN: Op = Op::AvgPool2d(AvgPool2d { kernel: 2, stride: 1 });

/// The largest of neighbouring cells, likewise.
const LARGEST: Op = Op::MaxPool2d(MaxPool2d { kernel: 3, stride: 2, padding: 1 });

/// `AConv`: `cv1` of the means.
pub(super) fn build_aconv(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let means = b.push(m.path(), MEAN, &[x])?;
    build_single(b, &m.child("cv1")?, means)
}

/// `ADown`: `[cv1(a), cv2(largest of b)]` with `a, b` the halves of the means.
pub(super) fn build_adown(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let means = b.push(m.path(), MEAN, &[x])?;
    let [convolved, pooled] = b.halves(m.path(), means)?;
    let convolved = build_single(b, &m.child("cv1")?, convolved)?;
    let pooled = b.push(m.path(), LARGEST, &[pooled])?;
    let pooled = build_single(b, &m.child("cv2")?, pooled)?;
    b.concat(m.path(), &[convolved, pooled])
}

/// `SCDown`: `cv2(cv1(x))`, the second one depthwise with a stride.
pub(super) fn build_scdown(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let hidden = build_single(b, &m.child("cv1")?, x)?;
    build_single(b, &m.child("cv2")?, hidden)
}
