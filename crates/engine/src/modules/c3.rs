//! `C3` and `C3k`: two branches, one of them through a chain of bottlenecks.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv3([m(cv1(x)), cv2(x)])`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    build_named(b, m, x, ["cv1", "cv2", "cv3"])
}

/// As [`build`] with other names for the three convolutions.
pub(super) fn build_named(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    x: ValueId,
    [cv1, cv2, cv3]: [&str; 3],
) -> Result<ValueId> {
    let deep = build_single(b, &m.child(cv1)?, x)?;
    let deep = build_single(b, &m.child("m")?, deep)?;
    let shallow = build_single(b, &m.child(cv2)?, x)?;
    let joined = b.concat(m.path(), &[deep, shallow])?;
    build_single(b, &m.child(cv3)?, joined)
}
