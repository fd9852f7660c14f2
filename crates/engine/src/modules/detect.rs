//! Detection heads: the branches that give boxes and class scores at each level.

use super::{ModuleNode, build_single, yolox};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::results::Task;
use crate::weights::Document;

/// Boxes a one-to-one branch gives where the head does not say.
const DEFAULT_MAX_DET: usize = 300;

/// Boxes that a one-to-one branch may give at most.
const MAX_MAX_DET: usize = 100_000;

/// What a detection head computes, as values of the graph.
#[derive(Clone, Debug)]
pub(crate) struct DetectHead {
    /// Path of the module, for errors.
    at: String,
    pub n_classes: usize,
    /// Pixels of the input per cell, one for each level.
    pub strides: Vec<usize>,
    pub regression: Regression,
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
}

impl Branch {
    /// All values of the branch.
    pub(crate) fn outputs(&self) -> Vec<ValueId> {
        let of_level = |level: &Level| [Some(level.boxes), Some(level.classes), level.objectness];
        self.levels.iter().flat_map(of_level).flatten().collect()
    }
}

impl DetectHead {
    /// What the head is for.
    pub(crate) fn task(&self) -> Task {
        Task::Detect
    }

    /// All values that any branch decodes.
    pub(crate) fn outputs(&self) -> Vec<ValueId> {
        let mut outputs = self.one2many.outputs();
        outputs.extend(self.one2one.iter().flat_map(Branch::outputs));
        outputs
    }

    /// Errors unless each level's maps have the size that its stride gives for an input of `[h, w]`.
    ///
    /// `size`: height and width of a computed value, `None` for others.
    pub(crate) fn check_levels(
        &self,
        [h, w]: [usize; 2],
        size: impl Fn(ValueId) -> Option<[usize; 2]>,
    ) -> Result<()> {
        for branch in [Some(&self.one2many), self.one2one.as_ref()].into_iter().flatten() {
            for (idx, (level, &stride)) in branch.levels.iter().zip(&self.strides).enumerate() {
                let maps = [Some(level.boxes), Some(level.classes), level.objectness];
                for [rows, columns] in maps.into_iter().flatten().filter_map(&size) {
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
        Ok(())
    }
}

/// Builds the last layer.
pub(crate) fn build_head(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<DetectHead> {
    let strides = document.stride.clone();
    if strides.len() != inputs.len() {
        return Err(Error::shape(
            m.path(),
            format!("{} levels but {} strides: {strides:?}", inputs.len(), strides.len()),
        ));
    }
    let n_classes = document.names.len();
    let at = m.path().to_owned();
    match m.class() {
        "Detect" | "v10Detect" => {
            let reg_max = m.usize("reg_max")?;
            if !(1..=256).contains(&reg_max) {
                return Err(Error::format(m.path(), format!("reg_max is {reg_max}, expected 1 to 256")));
            }
            let one2many = build_branch(b, m, inputs, ["cv2", "cv3"])?;
            let one2one = match m.find("one2one_cv2") {
                Some(_) => Some(build_branch(b, m, inputs, ["one2one_cv2", "one2one_cv3"])?),
                None => None,
            };
            let max_det = if m.attr("max_det").is_some() { m.usize("max_det")? } else { DEFAULT_MAX_DET };
            if !(1..=MAX_MAX_DET).contains(&max_det) {
                let message = format!("max_det is {max_det}, expected 1 to {MAX_MAX_DET}");
                return Err(Error::format(m.path(), message));
            }
            let regression = Regression::Distances { reg_max };
            let head = DetectHead { at, n_classes, strides, regression, max_det, one2many, one2one };
            check_channels(b, m, &head, 4 * reg_max)?;
            Ok(head)
        }
        "yolox.Head" => {
            let build_level = |(level, &x): (usize, &ValueId)| {
                let [classes, boxes, objectness] = yolox::build_head_level(b, m, level, x)?;
                Ok(Level { boxes, classes, objectness: Some(objectness) })
            };
            let levels = inputs.iter().enumerate().map(build_level).collect::<Result<_>>()?;
            let (regression, one2many) = (Regression::CenterSize, Branch { levels });
            let head = DetectHead {
                at,
                n_classes,
                strides,
                regression,
                max_det: DEFAULT_MAX_DET,
                one2many,
                one2one: None,
            };
            check_channels(b, m, &head, 4)?;
            Ok(head)
        }
        class => Err(Error::unsupported(m.path(), format!("no builder for a head of class {class:?}"))),
    }
}

fn build_branch(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    lists: [&str; 2],
) -> Result<Branch> {
    let build_level = |(level, &x): (usize, &ValueId)| {
        let [boxes, classes] = lists.map(|list| m.child(list)?.child(&level.to_string()));
        let (boxes, classes) = (build_single(b, &boxes?, x)?, build_single(b, &classes?, x)?);
        Ok(Level { boxes, classes, objectness: None })
    };
    Ok(Branch { levels: inputs.iter().enumerate().map(build_level).collect::<Result<_>>()? })
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
        }
    }
    Ok(())
}
