//! A network as operations on single-assignment values.
//!
//! [`Builder`] makes the graph from a model file, [`fuse`] rewrites it, [`Layout`] says which values share a buffer,
//! and [`Plan`] places the buffers of one input shape in the arena.

mod builder;
mod fuse;
#[cfg(test)]
mod interpret;
mod layout;
mod plan;

pub(crate) use builder::Builder;
#[cfg(feature = "gpu")]
pub(crate) use fuse::flatten_pools;
pub(crate) use fuse::fuse;
use layout::Layout;
pub(crate) use plan::{Order, Plan, Step, Target};

use crate::ops::{ConvWeights, Op};

/// Names a value of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(pub usize);

/// One operation, its operands, and the path of the module it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
    pub at: String,
}

/// A network. Nodes stand in an order in which every operand comes before its use.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// Channels of each value, by id.
    pub channels: Vec<usize>,
    pub nodes: Vec<Node>,
    /// Convolution weights, by [`crate::ops::Conv2d::weights`].
    pub weights: Vec<ConvWeights>,
    /// The picture, `[N, 3, H, W]`, RGB in 0..1.
    pub input: ValueId,
    /// The values that a head decodes.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// How many nodes take each value, outputs of the network counted as one more use.
    pub(crate) fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.channels.len()];
        for value in self.nodes.iter().flat_map(|node| &node.inputs).chain(&self.outputs) {
            counts[value.0] += 1;
        }
        counts
    }
}
