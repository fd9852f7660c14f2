//! `Proto` and `Proto26`: the maps that masks are mixed from.

use super::{ModuleNode, build_single};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Op, UpsampleLike};

/// The prototypes of a head with these levels, finest first.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, levels: &[ValueId]) -> Result<ValueId> {
    let &[finest, ref coarser @ ..] = levels else {
        return Err(Error::shape(m.path(), "got no levels"));
    };
    match m.class() {
        "Proto" => build_proto(b, m, finest),
        "Proto26" => {
            let fused = fuse_levels(b, m, finest, coarser)?;
            build_proto(b, m, fused)
        }
        class => Err(Error::unsupported(m.path(), format!("no builder for prototypes of class {class:?}"))),
    }
}

/// `cv3(cv2(upsample(cv1(x))))`.
fn build_proto(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    ["cv1", "upsample", "cv2", "cv3"].into_iter().try_fold(x, |x, name| build_single(b, &m.child(name)?, x))
}

/// `feat_fuse(finest + sum of the coarser levels, each through its convolution and enlarged)`.
fn fuse_levels(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    finest: ValueId,
    coarser: &[ValueId],
) -> Result<ValueId> {
    let refine = m.child("feat_refine")?;
    if refine.children().count() != coarser.len() {
        return Err(Error::shape(
            refine.path(),
            format!("{} convolutions for {} coarser levels", refine.children().count(), coarser.len()),
        ));
    }
    let mut sum = finest;
    for (conv, &level) in refine.children().zip(coarser) {
        let refined = build_single(b, &conv, level)?;
        let enlarged = b.push(m.path(), Op::UpsampleLike(UpsampleLike), &[refined, finest])?;
        sum = b.add(m.path(), sum, enlarged)?;
    }
    build_single(b, &m.child("feat_fuse")?, sum)
}
