//! `SPPF` and `SPP`: a pyramid of max pools, each taken of the one before, or all of the same.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv2([z, pool(z), pool(pool(z)), ...])` with `z = cv1(x)`, plus `x` if `add`.
///
/// Checkpoints from before the number of pools could be chosen have no `n`: then it is three, without shortcut.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let n = if m.attr("n").is_some() { m.usize("n")?.min(64) } else { 3 };
    let pool = m.child("m")?;
    let mut parts = vec![build_single(b, &m.child("cv1")?, x)?];
    for idx in 0..n {
        parts.push(build_single(b, &pool, parts[idx])?);
    }
    let joined = b.concat(m.path(), &parts)?;
    let y = build_single(b, &m.child("cv2")?, joined)?;
    if m.flag_or("add", false)? { b.add(m.path(), x, y) } else { Ok(y) }
}

/// `SPP`: `cv2([z, pools of z])` with `z = cv1(x)`; the pools are the children of `m`.
pub(super) fn build_spp(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let z = build_single(b, &m.child("cv1")?, x)?;
    let mut parts = vec![z];
    for pool in m.child("m")?.children() {
        parts.push(build_single(b, &pool, z)?);
    }
    let joined = b.concat(m.path(), &parts)?;
    build_single(b, &m.child("cv2")?, joined)
}
