//! `GhostConv` and `GhostBottleneck`: half of the channels are cheap functions of the other half.
//!
//! Source: GhostNet, arXiv:1911.11907.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `[z, cv2(z)]` with `z = cv1(x)`.
pub(super) fn build_conv(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let z = build_single(b, &m.child("cv1")?, x)?;
    let ghost = build_single(b, &m.child("cv2")?, z)?;
    b.concat(m.path(), &[z, ghost])
}

/// `conv(x) + shortcut(x)`.
pub(super) fn build_bottleneck(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let y = build_single(b, &m.child("conv")?, x)?;
    let shortcut = build_single(b, &m.child("shortcut")?, x)?;
    b.add(m.path(), shortcut, y)
}
