//! Rewrites a graph into fewer passes over memory.

use super::{Graph, ValueId};
#[cfg(feature = "gpu")]
use crate::ops::MaxPool2d;
use crate::ops::Op;

/// Fuses what can be fused. The values of the network's outputs stay the same.
pub(crate) fn fuse(graph: &mut Graph) {
    residual_into_conv(graph);
}

/// Turns `add(x, conv(y))` into a convolution with the residual `x`.
///
/// Only where the convolution has no other user and no residual yet. It moves to the place of the addition, where `x`
/// has been computed.
fn residual_into_conv(graph: &mut Graph) {
    let uses = graph.use_counts();
    let mut producer = vec![None; graph.channels.len()];
    for (idx, node) in graph.nodes.iter().enumerate() {
        producer[node.output.0] = Some(idx);
    }
    let mut absorbed = vec![false; graph.nodes.len()];
    for idx in 0..graph.nodes.len() {
        let node = &graph.nodes[idx];
        let (Op::Add(_), &[a, b]) = (&node.op, node.inputs.as_slice()) else { continue };
        let fusable = |value: ValueId, other: ValueId| {
            let conv = producer[value.0].filter(|_| uses[value.0] == 1 && value != other)?;
            let is_plain =
                matches!(graph.nodes[conv].op, Op::Conv2d(_)) && graph.nodes[conv].inputs.len() == 1;
            is_plain.then_some((conv, other))
        };
        // The later one of the two is the end of the branch; the other is usually the shortcut.
        let (late, early) = if producer[a.0] > producer[b.0] { (a, b) } else { (b, a) };
        let Some((conv, residual)) = fusable(late, early).or_else(|| fusable(early, late)) else { continue };
        let mut fused = graph.nodes[conv].clone();
        fused.inputs.push(residual);
        fused.output = graph.nodes[idx].output;
        absorbed[conv] = true;
        producer[fused.output.0] = Some(idx);
        graph.nodes[idx] = fused;
    }
    let mut kept = absorbed.iter().map(|&gone| !gone);
    graph.nodes.retain(|_| kept.next().unwrap_or(true));
}

/// The largest window that takes the place of several smaller ones, in cells along a side: three of SPPF's.
#[cfg(feature = "gpu")]
const MAX_WINDOW: usize = 13;

/// Lets max pools of max pools pool the first map by larger windows, so that none waits for another. The values stay the
/// same: the windows of all cells of a window cover the larger window, and padding never wins.
///
/// For targets with rounds, where the pools of a pyramid then run together.
#[cfg(feature = "gpu")]
pub(crate) fn flatten_pools(graph: &mut Graph) {
    // What each value is pooled from, and by which window.
    let mut pooled: Vec<Option<(ValueId, usize)>> = vec![None; graph.channels.len()];
    for node in &mut graph.nodes {
        let Op::MaxPool2d(pool) = &mut node.op else { continue };
        if pool.stride != 1 || pool.kernel != 2 * pool.padding + 1 {
            continue;
        }
        if let Some((first, window)) = pooled[node.inputs[0].0] {
            let kernel = window + pool.kernel - 1;
            if kernel <= MAX_WINDOW {
                *pool = MaxPool2d { kernel, stride: 1, padding: kernel / 2 };
                node.inputs[0] = first;
            }
        }
        pooled[node.output.0] = Some((node.inputs[0], pool.kernel));
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::graph::Node;

    /// Pools of `[kernel, stride, padding]`, each of the value of this index. Value 0 is the picture.
    fn flattened(pools: &[([usize; 3], usize)]) -> Vec<([usize; 3], usize)> {
        let node = |(idx, &([kernel, stride, padding], input)): (usize, &([usize; 3], usize))| Node {
            op: Op::MaxPool2d(MaxPool2d { kernel, stride, padding }),
            inputs: vec![ValueId(input)],
            output: ValueId(idx + 1),
            at: String::new(),
        };
        let mut graph = Graph {
            channels: vec![3; pools.len() + 1],
            nodes: pools.iter().enumerate().map(node).collect(),
            weights: vec![],
            input: ValueId(0),
            outputs: vec![],
        };
        flatten_pools(&mut graph);
        let pool = |node: &Node| match &node.op {
            Op::MaxPool2d(pool) => ([pool.kernel, pool.stride, pool.padding], node.inputs[0].0),
            other => panic!("{other:?} is no pool"),
        };
        graph.nodes.iter().map(pool).collect()
    }

    #[test]
    fn a_pyramid_is_pooled_from_its_first_map() {
        let chain = [([5, 1, 2], 0), ([5, 1, 2], 1), ([5, 1, 2], 2), ([5, 1, 2], 3)];
        // Of a fourth the window would be too large: it stays with the third.
        assert_eq!(flattened(&chain), [([5, 1, 2], 0), ([9, 1, 4], 0), ([13, 1, 6], 0), ([5, 1, 2], 3)]);
    }

    #[test]
    fn other_pools_stay() {
        for other in [[2, 2, 0], [3, 2, 1], [3, 1, 0], [2, 1, 1]] {
            let chain = [([5, 1, 2], 0), (other, 1), ([5, 1, 2], 2)];
            assert_eq!(flattened(&chain), chain);
        }
    }
}
