//! Adds operations to a graph while the module tree is walked.

use super::{Graph, Node, ValueId};
use crate::error::{Error, Result};
use crate::ops::{Add, Concat, Conv2d, ConvTranspose2d, ConvWeights, Op, Slice};
use crate::weights::{Color, Input, Weights};

/// Channels that a value may have. Those of the largest published networks have some thousand.
const MAX_CHANNELS: usize = 1 << 20;

/// Operations that a network may have. Published ones have fewer than a thousand; planning takes the square of it.
const MAX_NODES: usize = 5000;

/// A graph under construction and the weights that it takes.
pub(crate) struct Builder<'a> {
    graph: Graph,
    weights: Weights<'a>,
    input: Input,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(input: Input, weights: Weights<'a>) -> Self {
        let graph = Graph {
            channels: vec![input.channels],
            nodes: Vec::new(),
            weights: Vec::new(),
            input: ValueId(0),
            outputs: Vec::new(),
        };
        Self { graph, weights, input }
    }

    /// The picture.
    pub(crate) fn input(&self) -> ValueId {
        self.graph.input
    }

    /// Channels of `value`.
    pub(crate) fn channels(&self, value: ValueId) -> usize {
        self.graph.channels[value.0]
    }

    /// Adds `op` on `inputs`; `at` is the module that asks for it.
    pub(crate) fn push(&mut self, at: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        if inputs.contains(&self.graph.input) && !matches!(op, Op::Conv2d(_)) && !self.takes_plain_rgb() {
            return Err(Error::unsupported(
                at,
                "takes the picture itself, in other units than RGB from 0 to 1, and is no convolution",
            ));
        }
        let channels: Vec<usize> = inputs.iter().map(|&input| self.channels(input)).collect();
        let out_channels =
            op.kernel().output_channels(&channels).map_err(|message| Error::shape(at, message))?;
        if out_channels > MAX_CHANNELS {
            return Err(Error::limit(
                at,
                format!("got {out_channels} channels, expected at most {MAX_CHANNELS}"),
            ));
        }
        if self.graph.nodes.len() == MAX_NODES {
            return Err(Error::limit(at, format!("a network of more than {MAX_NODES} operations")));
        }
        let output = ValueId(self.graph.channels.len());
        self.graph.channels.push(out_channels);
        self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), output, at: at.to_owned() });
        Ok(output)
    }

    /// Adds a convolution with the given trained values; `conv.weights` is set here.
    ///
    /// Groups other than depthwise become one convolution per group, on slices of the input.
    pub(crate) fn conv(
        &mut self,
        at: &str,
        mut conv: Conv2d,
        mut values: ConvWeights,
        input: ValueId,
    ) -> Result<ValueId> {
        if input == self.graph.input {
            self.expect_rgb_units(at, &conv, &mut values)?;
        }
        check_products(at, &values)?;
        if conv.groups > 1 && !conv.is_depthwise() {
            return self.grouped_conv(at, &conv, &values, input);
        }
        conv.weights = self.graph.weights.len();
        self.graph.weights.push(values);
        self.push(at, Op::Conv2d(conv), &[input])
    }

    /// Adds a transposed convolution with the given trained values; `conv.weights` is set here.
    pub(crate) fn conv_transpose(
        &mut self,
        at: &str,
        mut conv: ConvTranspose2d,
        values: ConvWeights,
        input: ValueId,
    ) -> Result<ValueId> {
        check_products(at, &values)?;
        conv.weights = self.graph.weights.len();
        self.graph.weights.push(values);
        self.push(at, Op::ConvTranspose2d(conv), &[input])
    }

    /// `a + b`.
    pub(crate) fn add(&mut self, at: &str, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push(at, Op::Add(Add), &[a, b])
    }

    /// The channels of all `inputs`, one after the other.
    pub(crate) fn concat(&mut self, at: &str, inputs: &[ValueId]) -> Result<ValueId> {
        self.push(at, Op::Concat(Concat), inputs)
    }

    /// Channels `from .. from + len` of `input`.
    pub(crate) fn slice(&mut self, at: &str, input: ValueId, from: usize, len: usize) -> Result<ValueId> {
        self.push(at, Op::Slice(Slice { from, len }), &[input])
    }

    /// The two halves of `input`'s channels.
    pub(crate) fn halves(&mut self, at: &str, input: ValueId) -> Result<[ValueId; 2]> {
        let channels = self.channels(input);
        if !channels.is_multiple_of(2) {
            return Err(Error::shape(at, format!("can't halve {channels} channels")));
        }
        Ok([self.slice(at, input, 0, channels / 2)?, self.slice(at, input, channels / 2, channels / 2)?])
    }

    /// The trained values of the convolution at `path`, with its scale multiplied in.
    pub(crate) fn take_conv(&mut self, path: &str, shape: [usize; 4]) -> Result<ConvWeights> {
        let [out_channels, ..] = shape;
        let mut weight = self.weights.take(&format!("{path}.weight"), &shape)?;
        if let Some(scale) = self.weights.take_optional(&format!("{path}.scale"), &[out_channels])? {
            let kernel_len = weight.len() / out_channels;
            for (kernel, factor) in weight.chunks_exact_mut(kernel_len).zip(scale) {
                kernel.iter_mut().for_each(|value| *value *= factor);
            }
        }
        let bias = self.weights.take_optional(&format!("{path}.bias"), &[out_channels])?;
        Ok(ConvWeights { weight, bias: bias.unwrap_or_else(|| vec![0.0; out_channels]) })
    }

    /// The trained values of the transposed convolution at `path`, `[in, out, kh, kw]`, with its scale multiplied in.
    pub(crate) fn take_conv_transpose(&mut self, path: &str, shape: [usize; 4]) -> Result<ConvWeights> {
        let [_, out_channels, kh, kw] = shape;
        let mut weight = self.weights.take(&format!("{path}.weight"), &shape)?;
        if let Some(scale) = self.weights.take_optional(&format!("{path}.scale"), &[out_channels])? {
            for (kernel, factor) in weight.chunks_exact_mut(kh * kw).zip(scale.iter().cycle()) {
                kernel.iter_mut().for_each(|value| *value *= factor);
            }
        }
        let bias = self.weights.take_optional(&format!("{path}.bias"), &[out_channels])?;
        Ok(ConvWeights { weight, bias: bias.unwrap_or_else(|| vec![0.0; out_channels]) })
    }

    /// A tensor that is no kernel of a convolution.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.take(name, shape)
    }

    /// As [`Builder::take`], but an absent tensor is `None`.
    pub(crate) fn take_optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        self.weights.take_optional(name, shape)
    }

    /// The finished graph with `outputs` as the values that the head decodes.
    ///
    /// Errors if the file holds tensors that no module has taken.
    pub(crate) fn finish(mut self, outputs: Vec<ValueId>) -> Result<Graph> {
        self.weights.finish()?;
        self.graph.outputs = outputs;
        Ok(self.graph)
    }

    fn takes_plain_rgb(&self) -> bool {
        self.input.color == Color::Rgb && self.input.divisor == 255.0
    }

    /// Rewrites weights that were trained on another channel order or value range, so that every network takes the
    /// same picture: RGB from 0 to 1.
    fn expect_rgb_units(&self, at: &str, conv: &Conv2d, values: &mut ConvWeights) -> Result<()> {
        if self.takes_plain_rgb() {
            return Ok(());
        }
        if conv.in_channels != self.input.channels {
            let (got, expected) = (self.input.channels, conv.in_channels);
            return Err(Error::shape(at, format!("got {got} input channels, expected {expected}")));
        }
        if conv.groups != 1 {
            return Err(Error::unsupported(
                at,
                "a grouped convolution on a picture that is not RGB from 0 to 1",
            ));
        }
        let factor = 255.0 / self.input.divisor;
        let plane = conv.kernel[0] * conv.kernel[1];
        for kernel in values.weight.chunks_exact_mut(conv.in_channels * plane) {
            if self.input.color == Color::Bgr {
                let (first, rest) = kernel.split_at_mut(plane);
                let last = rest.len() - plane;
                first.swap_with_slice(&mut rest[last..]);
            }
            kernel.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(())
    }

    fn grouped_conv(
        &mut self,
        at: &str,
        conv: &Conv2d,
        values: &ConvWeights,
        input: ValueId,
    ) -> Result<ValueId> {
        let (n_in, n_out) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let weight_len = values.weight.len() / conv.groups;
        let mut parts = Vec::with_capacity(conv.groups);
        for group in 0..conv.groups {
            let part = self.slice(at, input, group * n_in, n_in)?;
            let one = Conv2d { in_channels: n_in, out_channels: n_out, groups: 1, ..conv.clone() };
            let weights = ConvWeights {
                weight: values.weight[group * weight_len..][..weight_len].to_vec(),
                bias: values.bias[group * n_out..][..n_out].to_vec(),
            };
            parts.push(self.conv(at, one, weights, part)?);
        }
        self.concat(at, &parts)
    }
}

/// Errors if a kernel times its scale is not finite, though both were.
fn check_products(at: &str, values: &ConvWeights) -> Result<()> {
    match values.weight.iter().position(|value| !value.is_finite()) {
        Some(idx) => {
            let value = values.weight[idx];
            Err(Error::weights(at, format!("kernel times scale is {value} at element {idx}")))
        }
        None => Ok(()),
    }
}
