//! `CIB`: depthwise and single-cell convolutions in turn, with an optional shortcut.
//!
//! Source: YOLOv10, arXiv:2405.14458.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv1(x)`, plus `x` if `add`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let y = build_single(b, &m.child("cv1")?, x)?;
    if m.flag("add")? { b.add(m.path(), x, y) } else { Ok(y) }
}
