//! `ELAN1`, `RepNCSPELAN4` and `SPPELAN`: every stage is kept, and one convolution joins them.
//!
//! Source: YOLOv9, arXiv:2402.13616.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv4([a, b, cv2(b), cv3(cv2(b))])` with `a, b = halves(cv1(x))`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let split = build_single(b, &m.child("cv1")?, x)?;
    let [first, second] = b.halves(m.path(), split)?;
    let third = build_single(b, &m.child("cv2")?, second)?;
    let fourth = build_single(b, &m.child("cv3")?, third)?;
    let joined = b.concat(m.path(), &[first, second, third, fourth])?;
    build_single(b, &m.child("cv4")?, joined)
}

/// `cv5([z, cv2(z), cv3(cv2(z)), cv4(..)])` with `z = cv1(x)`; `cv2` to `cv4` are max pools.
pub(super) fn build_pooling(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let mut parts = vec![build_single(b, &m.child("cv1")?, x)?];
    for (idx, name) in ["cv2", "cv3", "cv4"].into_iter().enumerate() {
        parts.push(build_single(b, &m.child(name)?, parts[idx])?);
    }
    let joined = b.concat(m.path(), &parts)?;
    build_single(b, &m.child("cv5")?, joined)
}
