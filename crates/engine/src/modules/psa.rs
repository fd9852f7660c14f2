//! `PSABlock`, `C2PSA` and `PSA`: attention with a feed-forward pair, on half of the channels.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `x + attn(x)`, then `x + ffn(x)`; without the additions if not `add`.
pub(super) fn build_block(b: &mut Builder<'_>, m: &ModuleNode<'_>, mut x: ValueId) -> Result<ValueId> {
    let add = m.flag("add")?;
    for name in ["attn", "ffn"] {
        let y = build_single(b, &m.child(name)?, x)?;
        x = if add { b.add(m.path(), x, y)? } else { y };
    }
    Ok(x)
}

/// `PSA`: `cv2([a, y + ffn(y)])` with `a, b = halves(cv1(x))` and `y = b + attn(b)`.
pub(super) fn build_psa(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let split = build_single(b, &m.child("cv1")?, x)?;
    let [kept, mut attended] = b.halves(m.path(), split)?;
    for name in ["attn", "ffn"] {
        let y = build_single(b, &m.child(name)?, attended)?;
        attended = b.add(m.path(), attended, y)?;
    }
    let joined = b.concat(m.path(), &[kept, attended])?;
    build_single(b, &m.child("cv2")?, joined)
}

/// `C2PSA`: `cv2([a, blocks(b)])` with `a, b = halves(cv1(x))`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let split = build_single(b, &m.child("cv1")?, x)?;
    let [kept, attended] = b.halves(m.path(), split)?;
    let attended = build_single(b, &m.child("m")?, attended)?;
    let joined = b.concat(m.path(), &[kept, attended])?;
    build_single(b, &m.child("cv2")?, joined)
}
