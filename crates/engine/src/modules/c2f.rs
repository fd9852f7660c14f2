//! `C2f` and `C3k2`: a split, a chain whose every stage is kept, and a joining convolution.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv2([a, b, m0(b), m1(m0(b)), ...])` with `a, b = halves(cv1(x))`.
///
/// The stages are bottlenecks, `C3k` blocks, or chains with attention: whatever stands in the tree.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let split = build_single(b, &m.child("cv1")?, x)?;
    let [first, mut last] = b.halves(m.path(), split)?;
    let mut parts = vec![first, last];
    for stage in m.child("m")?.children() {
        last = build_single(b, &stage, last)?;
        parts.push(last);
    }
    let joined = b.concat(m.path(), &parts)?;
    build_single(b, &m.child("cv2")?, joined)
}
