//! The last layer of a network, whatever its task.

use super::{DetectHead, MapHead, ModuleNode, detect, map_head};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::results::Task;
use crate::weights::Document;

/// Which branches of the head are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Branches {
    pub one2many: bool,
    pub one2one: bool,
}

/// What the last layer computes.
#[derive(Clone, Debug)]
pub(crate) enum NetworkHead {
    /// Boxes, alone or with masks, keypoints or angles.
    Detect(DetectHead),
    /// Classes or depths.
    Map(MapHead),
}

impl NetworkHead {
    /// What the head is for.
    pub(crate) fn task(&self) -> Task {
        match self {
            Self::Detect(head) => head.task(),
            Self::Map(head) => head.task(),
        }
    }

    /// Pixels of the input per cell, one for each level, as the model file has them. There is at least one.
    pub(crate) fn strides(&self) -> &[usize] {
        match self {
            Self::Detect(head) => &head.strides,
            Self::Map(head) => &head.strides,
        }
    }

    /// Whether there is a branch that gives one box per object.
    pub(crate) fn has_one2one(&self) -> bool {
        matches!(self, Self::Detect(head) if head.one2one.is_some())
    }

    /// All values that any branch decodes.
    pub(crate) fn outputs(&self) -> Vec<ValueId> {
        self.wanted(Branches { one2many: true, one2one: true })
    }

    /// The values that these branches decode, as far as the head has them.
    pub(crate) fn wanted(&self, branches: Branches) -> Vec<ValueId> {
        match self {
            Self::Detect(head) => head.wanted(branches),
            Self::Map(head) => vec![head.map],
        }
    }

    /// Errors unless each map has a size that fits an input of `[h, w]`.
    ///
    /// `size`: height and width of a computed value, `None` for others.
    pub(crate) fn check_sizes(
        &self,
        hw: [usize; 2],
        size: impl Fn(ValueId) -> Option<[usize; 2]>,
    ) -> Result<()> {
        match self {
            Self::Detect(head) => head.check_sizes(hw, size),
            Self::Map(head) => head.check_size(hw, size(head.map)),
        }
    }
}

/// Builds the last layer.
pub(super) fn build(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<NetworkHead> {
    match m.class() {
        "Detect" | "v10Detect" | "Segment" | "Segment26" | "Pose" | "Pose26" | "OBB" | "OBB26" => {
            detect::build(b, m, inputs, document).map(NetworkHead::Detect)
        }
        "yolox.Head" => detect::build_yolox(b, m, inputs, document).map(NetworkHead::Detect),
        "Classify" => map_head::build_classify(b, m, inputs, document).map(NetworkHead::Map),
        "SemanticSegment" => map_head::build_semantic(b, m, inputs, document).map(NetworkHead::Map),
        "Depth" => map_head::build_depth(b, m, inputs, document).map(NetworkHead::Map),
        class => Err(Error::unsupported(m.path(), format!("no builder for a head of class {class:?}"))),
    }
}
