//! Detection heads: the branches that give boxes and class scores at each level, and what comes with the boxes.

use super::{Branches, ModuleNode, build_single, proto, yolox};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::results::Task;
use crate::weights::Document;

/// Boxes a one-to-one branch gives where the head does not say.
const DEFAULT_MAX_DET: usize = 300;

/// Boxes that a one-to-one branch may give at most.
const MAX_MAX_DET: usize = 100_000;

/// Keypoints that an object may have.
const MAX_KEYPOINTS: usize = 4096;

/// What a detection head computes, as values of the graph.
#[derive(Clone, Debug)]
pub(crate) struct DetectHead {
    /// Path of the module, for errors.
    pub at: String,
    pub n_classes: usize,
    /// Pixels of the input per cell, one for each level.
    pub strides: Vec<usize>,
    pub regression: Regression,
    /// What comes with each box.
    pub extra: Extra,
    /// Boxes that the one-to-one branch gives at most.
    pub max_det: usize,
    /// The branch trained with many positives per object: its boxes need suppression.
    pub one2many: Branch,
    /// The branch trained with one positive per object, where there is one.
    pub one2one: Option<Branch>,
}

/// How a level's box channels say where the box is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Regression {
    /// Distances to left, top, right and bottom, each a distribution over `reg_max` values (one: the value itself).
    Distances { reg_max: usize },
    /// Center offset and logarithms of the size, with an objectness score beside the classes.
    CenterSize,
}

/// What a head gives for each box besides its place and its classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Extra {
    /// Nothing.
    None,
    /// `n` coefficients that mix the object's mask from as many prototypes, the channels of `proto`.
    Masks { n: usize, proto: ValueId },
    /// `n` keypoints of `values` values: x, y and, if there are three, a visibility logit.
    ///
    /// In cells: twice the value from the cell's corner, or, where `centered`, the value from its center.
    Keypoints { n: usize, values: usize, centered: bool },
    /// The angle by which the box is turned: in radians if `raw`, else `(sigmoid - 1/4) * pi`.
    Angle { raw: bool },
}

impl Extra {
    /// Values for each box.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Masks { n, .. } => n,
            Self::Keypoints { n, values, .. } => n * values,
            Self::Angle { .. } => 1,
        }
    }
}

/// One set of outputs for all levels.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub levels: Vec<Level>,
}

/// The outputs of one level, all of the same height and width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    /// `4 * reg_max` or 4 channels.
    pub boxes: ValueId,
    /// One logit per class.
    pub classes: ValueId,
    /// One logit; only with [`Regression::CenterSize`].
    pub objectness: Option<ValueId>,
    /// [`Extra::len`] channels, if that is not zero.
    pub extra: Option<ValueId>,
}

impl Level {
    fn maps(&self) -> impl Iterator<Item = ValueId> {
        [Some(self.boxes), Some(self.classes), self.objectness, self.extra].into_iter().flatten()
    }
}

impl DetectHead {
    /// What the head is for.
    pub(crate) fn task(&self) -> Task {
        match self.extra {
            Extra::None => Task::Detect,
            Extra::Masks { .. } => Task::Segment,
            Extra::Keypoints { .. } => Task::Pose,
            Extra::Angle { .. } => Task::Obb,
        }
    }

    /// The values that these branches decode.
    pub(crate) fn wanted(&self, branches: Branches) -> Vec<ValueId> {
        let one2many = branches.one2many.then_some(&self.one2many);
        let one2one = self.one2one.as_ref().filter(|_| branches.one2one);
        let levels = [one2many, one2one].into_iter().flatten().flat_map(|branch| &branch.levels);
        levels.flat_map(Level::maps).chain(self.proto()).collect()
    }

    /// The prototypes of masks, if the head has them.
    pub(crate) fn proto(&self) -> Option<ValueId> {
        match self.extra {
            Extra::Masks { proto, .. } => Some(proto),
            _ => None,
        }
    }

    /// Errors unless each level's maps have the size that its stride gives for an input of `[h, w]`, and the
    /// prototypes a whole fraction of it.
    ///
    /// `size`: height and width of a computed value, `None` for others.
    pub(crate) fn check_sizes(
        &self,
        [h, w]: [usize; 2],
        size: impl Fn(ValueId) -> Option<[usize; 2]>,
    ) -> Result<()> {
        for branch in [Some(&self.one2many), self.one2one.as_ref()].into_iter().flatten() {
            for (idx, (level, &stride)) in branch.levels.iter().zip(&self.strides).enumerate() {
                for [rows, columns] in level.maps().filter_map(&size) {
                    if [rows.checked_mul(stride), columns.checked_mul(stride)] != [Some(h), Some(w)] {
                        return Err(Error::shape(
                            &self.at,
                            format!(
                                "level {idx} of stride {stride} has {rows}x{columns} cells for an input of {h}x{w}"
                            ),
                        ));
                    }
                }
            }
        }
        if let Some([rows, columns]) = self.proto().and_then(size) {
            let whole = rows > 0 && columns > 0 && h.is_multiple_of(rows) && w.is_multiple_of(columns);
            if !whole || h / rows != w / columns {
                return Err(Error::shape(
                    &self.at,
                    format!("prototypes of {rows}x{columns} cells for an input of {h}x{w}"),
                ));
            }
        }
        Ok(())
    }
}

/// Builds a head of boxes, which may come with masks, keypoints or angles.
pub(super) fn build(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<DetectHead> {
    let strides = strides(m, inputs, document)?;
    let reg_max = m.usize("reg_max")?;
    if !(1..=256).contains(&reg_max) {
        return Err(Error::format(m.path(), format!("reg_max is {reg_max}, expected 1 to 256")));
    }
    let max_det = if m.attr("max_det").is_some() { m.usize("max_det")? } else { DEFAULT_MAX_DET };
    if !(1..=MAX_MAX_DET).contains(&max_det) {
        let message = format!("max_det is {max_det}, expected 1 to {MAX_MAX_DET}");
        return Err(Error::format(m.path(), message));
    }
    let extra = build_extra(b, m, inputs, document)?;
    let one2many = build_branch(b, m, inputs, "")?;
    let one2one = match m.find("one2one_cv2") {
        Some(_) => Some(build_branch(b, m, inputs, "one2one_")?),
        None => None,
    };
    let head = DetectHead {
        at: m.path().to_owned(),
        n_classes: document.names.len(),
        strides,
        regression: Regression::Distances { reg_max },
        extra,
        max_det,
        one2many,
        one2one,
    };
    check_channels(b, m, &head, 4 * reg_max)?;
    Ok(head)
}

/// Builds the head of YOLOX.
pub(super) fn build_yolox(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<DetectHead> {
    let strides = strides(m, inputs, document)?;
    let build_level = |(level, &x): (usize, &ValueId)| {
        let [classes, boxes, objectness] = yolox::build_head_level(b, m, level, x)?;
        Ok(Level { boxes, classes, objectness: Some(objectness), extra: None })
    };
    let levels = inputs.iter().enumerate().map(build_level).collect::<Result<_>>()?;
    let head = DetectHead {
        at: m.path().to_owned(),
        n_classes: document.names.len(),
        strides,
        regression: Regression::CenterSize,
        extra: Extra::None,
        max_det: DEFAULT_MAX_DET,
        one2many: Branch { levels },
        one2one: None,
    };
    check_channels(b, m, &head, 4)?;
    Ok(head)
}

/// The strides of the levels, one for each input.
fn strides(m: &ModuleNode<'_>, inputs: &[ValueId], document: &Document) -> Result<Vec<usize>> {
    let strides = document.stride.clone();
    if strides.len() != inputs.len() {
        return Err(Error::shape(
            m.path(),
            format!("{} levels but {} strides: {strides:?}", inputs.len(), strides.len()),
        ));
    }
    Ok(strides)
}

/// What comes with each box, by the class of the head.
fn build_extra(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<Extra> {
    match m.class() {
        "Segment" | "Segment26" => {
            let proto = proto::build(b, &m.child("proto")?, inputs)?;
            Ok(Extra::Masks { n: b.channels(proto), proto })
        }
        "Pose" | "Pose26" => {
            let shape = document.kpt_shape.ok_or_else(|| {
                Error::format("ferroyolo.model: kpt_shape", "missing from a network for keypoints")
            })?;
            let [n, values] = shape;
            if !(1..=MAX_KEYPOINTS).contains(&n) || !(2..=3).contains(&values) {
                return Err(Error::format(
                    "ferroyolo.model: kpt_shape",
                    format!("got {shape:?}, expected 1 to {MAX_KEYPOINTS} keypoints of 2 or 3 values"),
                ));
            }
            Ok(Extra::Keypoints { n, values, centered: m.class() == "Pose26" })
        }
        "OBB" | "OBB26" => Ok(Extra::Angle { raw: m.class() == "OBB26" }),
        _ => Ok(Extra::None),
    }
}

/// The levels of a branch whose lists of modules have names that begin with `prefix`.
///
/// What comes with the boxes is in `cv4`, and in `cv4_kpts` behind it where there is one.
fn build_branch(b: &mut Builder<'_>, m: &ModuleNode<'_>, inputs: &[ValueId], prefix: &str) -> Result<Branch> {
    let has_extra = m.find(&format!("{prefix}cv4")).is_some();
    let has_kpts = m.find(&format!("{prefix}cv4_kpts")).is_some();
    let mut build_level = |level: usize, x: ValueId| {
        let mut part = |list: &str, x: ValueId| {
            let list = m.child(&format!("{prefix}{list}"))?;
            build_single(b, &list.child(&level.to_string())?, x)
        };
        let (boxes, classes) = (part("cv2", x)?, part("cv3", x)?);
        let mut extra = None;
        if has_extra {
            extra = Some(part("cv4", x)?);
        }
        if let (Some(features), true) = (extra, has_kpts) {
            extra = Some(part("cv4_kpts", features)?);
        }
        Ok(Level { boxes, classes, objectness: None, extra })
    };
    let levels = inputs.iter().enumerate().map(|(level, &x)| build_level(level, x));
    Ok(Branch { levels: levels.collect::<Result<_>>()? })
}

fn check_channels(b: &Builder<'_>, m: &ModuleNode<'_>, head: &DetectHead, box_channels: usize) -> Result<()> {
    let expect = |what: &str, level: usize, value: ValueId, expected: usize| {
        let got = b.channels(value);
        if got == expected {
            return Ok(());
        }
        Err(Error::shape(
            m.path(),
            format!("level {level} gives {got} channels of {what}, expected {expected}"),
        ))
    };
    for branch in [Some(&head.one2many), head.one2one.as_ref()].into_iter().flatten() {
        for (idx, level) in branch.levels.iter().enumerate() {
            expect("boxes", idx, level.boxes, box_channels)?;
            expect("classes", idx, level.classes, head.n_classes)?;
            if let Some(objectness) = level.objectness {
                expect("objectness", idx, objectness, 1)?;
            }
            match (level.extra, head.extra) {
                (None, Extra::None) => {}
                (Some(extra), Extra::Masks { n, .. }) => expect("mask coefficients", idx, extra, n)?,
                (Some(extra), Extra::Keypoints { .. }) => expect("keypoints", idx, extra, head.extra.len())?,
                (Some(extra), Extra::Angle { .. }) => expect("angles", idx, extra, 1)?,
                (Some(_), Extra::None) => {
                    return Err(Error::unsupported(m.path(), format!("a {:?} with `cv4`", m.class())));
                }
                (None, _) => {
                    return Err(Error::format(m.path(), format!("a {:?} without `cv4`", m.class())));
                }
            }
        }
    }
    Ok(())
}
