//! Rewrites a graph into fewer passes over memory.

use super::{Graph, ValueId};
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
