//! `Bottleneck`: two convolutions and an optional shortcut.

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};

/// `cv2(cv1(x))`, plus `x` if `add`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    build_named(b, m, x, ["cv1", "cv2", "add"])
}

/// As [`build`] with other names for the convolutions and the flag.
pub(super) fn build_named(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    x: ValueId,
    [cv1, cv2, add]: [&str; 3],
) -> Result<ValueId> {
    let hidden = build_single(b, &m.child(cv1)?, x)?;
    let y = build_single(b, &m.child(cv2)?, hidden)?;
    if m.flag(add)? { b.add(m.path(), x, y) } else { Ok(y) }
}
