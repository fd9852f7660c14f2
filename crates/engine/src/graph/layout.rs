//! Which values lie inside the buffer of another, so that splits and concatenations cost nothing.

use super::{Graph, ValueId};
use crate::ops::Op;

/// For each value, the buffer it lies in and its first channel there.
///
/// A buffer is named by the value that covers all of it. A slice lies in its source. The input of a concatenation
/// lies in the concatenation if it can: a value has one place only, so a second concatenation of the same value gets a
/// copy.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    places: Vec<Option<(ValueId, usize)>>,
}

impl Layout {
    /// The layout for a plan that computes the nodes that are `needed`; others must not lay claim to a value.
    pub(crate) fn of(graph: &Graph, needed: &[bool]) -> Self {
        let mut layout = Self { places: vec![None; graph.channels.len()] };
        let nodes = || graph.nodes.iter().zip(needed).filter(|(_, needed)| **needed).map(|(node, _)| node);
        for node in nodes() {
            if let Op::Slice(slice) = &node.op {
                layout.places[node.output.0] = Some((node.inputs[0], slice.from));
            }
        }
        for node in nodes() {
            if matches!(node.op, Op::Concat(_)) {
                layout.place_inputs(graph, &node.inputs, node.output);
            }
        }
        layout
    }

    /// The buffer that `value` lies in, and its first channel there.
    pub(crate) fn resolve(&self, value: ValueId) -> (ValueId, usize) {
        let (mut buffer, mut channel) = (value, 0);
        while let Some((outer, from)) = self.places[buffer.0] {
            buffer = outer;
            channel += from;
        }
        (buffer, channel)
    }

    /// Gives each input of a concatenation its place in `output`, if its buffer is free to move there.
    ///
    /// A buffer moves as a whole: either it is one input, or its slices are consecutive inputs that cover all of it.
    fn place_inputs(&mut self, graph: &Graph, inputs: &[ValueId], output: ValueId) {
        let mut idx = 0;
        let mut channel = 0;
        while idx < inputs.len() {
            let (buffer, _) = self.resolve(inputs[idx]);
            let wanted = graph.channels[buffer.0];
            let mut covered = 0;
            let mut n_inputs = 0;
            for &input in &inputs[idx..] {
                if covered == wanted || self.resolve(input) != (buffer, covered) {
                    break;
                }
                covered += graph.channels[input.0];
                n_inputs += 1;
            }
            if covered == wanted && buffer != output && buffer != graph.input {
                self.places[buffer.0] = Some((output, channel));
            } else {
                n_inputs = 1;
            }
            channel += inputs[idx..idx + n_inputs].iter().map(|input| graph.channels[input.0]).sum::<usize>();
            idx += n_inputs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::ops::{Add, Concat, Slice};

    /// A graph of unnamed nodes over values with the given channels; value 0 is the picture.
    fn graph(channels: &[usize], nodes: Vec<(Op, Vec<usize>, usize)>) -> Graph {
        let node = |(op, inputs, output): (Op, Vec<usize>, usize)| Node {
            op,
            inputs: inputs.into_iter().map(ValueId).collect(),
            output: ValueId(output),
            at: String::new(),
        };
        Graph {
            channels: channels.to_vec(),
            nodes: nodes.into_iter().map(node).collect(),
            weights: vec![],
            input: ValueId(0),
            outputs: vec![],
        }
    }

    fn slice(from: usize, len: usize) -> Op {
        Op::Slice(Slice { from, len })
    }

    #[test]
    fn halves_and_their_successor_share_one_buffer() {
        // As in C2f: x is split, a third part is computed from the second half, and all are joined.
        let graph = graph(
            &[3, 8, 4, 4, 4, 12],
            vec![
                (slice(0, 4), vec![1], 2),
                (slice(4, 4), vec![1], 3),
                (Op::Add(Add), vec![2, 3], 4),
                (Op::Concat(Concat), vec![2, 3, 4], 5),
            ],
        );
        let layout = Layout::of(&graph, &vec![true; graph.nodes.len()]);
        assert_eq!(layout.resolve(ValueId(1)), (ValueId(5), 0));
        assert_eq!(layout.resolve(ValueId(3)), (ValueId(5), 4));
        assert_eq!(layout.resolve(ValueId(4)), (ValueId(5), 8));
    }

    #[test]
    fn half_of_a_buffer_is_copied() {
        // As in C2PSA: the second half is replaced, so the buffer of the halves can't move.
        let graph = graph(
            &[3, 8, 4, 4, 4, 8],
            vec![
                (slice(0, 4), vec![1], 2),
                (slice(4, 4), vec![1], 3),
                (Op::Add(Add), vec![3, 3], 4),
                (Op::Concat(Concat), vec![2, 4], 5),
            ],
        );
        let layout = Layout::of(&graph, &vec![true; graph.nodes.len()]);
        assert_eq!(layout.resolve(ValueId(2)), (ValueId(1), 0));
        assert_eq!(layout.resolve(ValueId(4)), (ValueId(5), 4));
    }

    #[test]
    fn a_value_has_one_place() {
        let graph = graph(
            &[3, 4, 4, 8, 8, 12],
            vec![
                (Op::Concat(Concat), vec![1, 2], 3),
                (Op::Concat(Concat), vec![1, 1], 4),
                (Op::Concat(Concat), vec![3, 2], 5),
            ],
        );
        let layout = Layout::of(&graph, &vec![true; graph.nodes.len()]);
        assert_eq!(layout.resolve(ValueId(1)), (ValueId(5), 0));
        assert_eq!(layout.resolve(ValueId(2)), (ValueId(5), 4));
        assert_eq!(layout.resolve(ValueId(3)), (ValueId(5), 0));
        assert_eq!(layout.resolve(ValueId(4)), (ValueId(4), 0));
    }

    #[test]
    fn what_is_not_computed_lays_no_claim() {
        let graph = graph(&[3, 4, 4, 8], vec![(Op::Concat(Concat), vec![1, 2], 3)]);
        let layout = Layout::of(&graph, &[false]);
        assert_eq!(layout.resolve(ValueId(1)), (ValueId(1), 0));
    }

    #[test]
    fn the_picture_stays_where_it_is() {
        let graph = graph(&[3, 3, 6], vec![(Op::Concat(Concat), vec![0, 1], 2)]);
        let layout = Layout::of(&graph, &vec![true; graph.nodes.len()]);
        assert_eq!(layout.resolve(ValueId(0)), (ValueId(0), 0));
        assert_eq!(layout.resolve(ValueId(1)), (ValueId(2), 3));
    }
}
