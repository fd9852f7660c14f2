//! `C2`: one half of the channels through a chain, the other around it.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv2([m(a), b])` with `a, b = halves(cv1(x))`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let split = build_single(b, &m.child("cv1")?, x)?;
    let [deep, kept] = b.halves(m.path(), split)?;
    let deep = build_single(b, &m.child("m")?, deep)?;
    let joined = b.concat(m.path(), &[deep, kept])?;
    build_single(b, &m.child("cv2")?, joined)
}
