//! Two-dimensional convolution with bias, activation and an optional residual, all in one pass.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

pub(crate) use cpu::PackedWeights;
use ferroyolo_kernels::{Activation, Arena, Context};

use super::{Hw, Kernel, StepIo, window_extent};

/// `output = activation(weight * input + bias) [+ residual]`, the residual being the second input if there is one.
///
/// Input `[N, in_channels, H, W]`, weight `[out_channels, in_channels / groups, kh, kw]`.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub groups: usize,
    pub activation: Activation,
    /// Index into the network's weights.
    pub weights: usize,
}

/// Trained values of one convolution, batch norm folded in.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConvWeights {
    /// `[out, in / groups, kh, kw]`
    pub weight: Vec<f32>,
    /// `[out]`
    pub bias: Vec<f32>,
}

impl Conv2d {
    /// Whether each output channel depends on one input channel of the same index.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }
}

impl Kernel for Conv2d {
    fn name(&self) -> &'static str {
        if self.is_depthwise() { "conv2d_depthwise" } else { "conv2d" }
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        let (&input, residual) = inputs.split_first().ok_or("got no input")?;
        if input != self.in_channels {
            return Err(format!("got {input} input channels, expected {}", self.in_channels));
        }
        if residual.len() > 1 || residual.iter().any(|&c| c != self.out_channels) {
            return Err(format!("got a residual of {residual:?} channels, expected {}", self.out_channels));
        }
        Ok(self.out_channels)
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let (input, residual) = inputs.split_first().ok_or("got no input")?;
        let h = window_extent(input[0], self.kernel[0], self.stride[0], self.padding[0])?;
        let w = window_extent(input[1], self.kernel[1], self.stride[1], self.padding[1])?;
        if residual.iter().any(|&other| other != [h, w]) {
            return Err(format!("got a residual of {residual:?} cells, expected [{h}, {w}]"));
        }
        Ok([h, w])
    }

    fn macs(&self, [h, w]: Hw) -> u64 {
        let per_output = self.in_channels / self.groups * self.kernel[0] * self.kernel[1];
        (h * w * self.out_channels * per_output) as u64
    }

    fn halo(&self) -> usize {
        self.padding[0].max(self.padding[1])
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], weights: &[ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, _, h, w] = x.shape() else { panic!("expected NCHW") };
        let [oh, ow] = self.output_hw(&[[h, w]]).expect("a shape that fits");
        let ConvWeights { weight, bias } = &weights[self.weights];
        let (ic, oc) = (self.in_channels / self.groups, self.out_channels);
        let [kh, kw] = self.kernel;
        let mut out = crate::Tensor::zeros(vec![n, oc, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (image, o, oy, ox) = (idx / (oc * oh * ow), idx / (oh * ow) % oc, idx / ow % oh, idx % ow);
            let first_channel = o / (oc / self.groups) * ic;
            let mut sum = f64::from(bias[o]);
            for (c, ky, kx) in super::triples(ic, kh, kw) {
                let (y, x_) = (oy * self.stride[0] + ky, ox * self.stride[1] + kx);
                let inside = y >= self.padding[0] && x_ >= self.padding[1];
                let (y, x_) = (y.wrapping_sub(self.padding[0]), x_.wrapping_sub(self.padding[1]));
                if inside && y < h && x_ < w {
                    let pixel = x.data()[((image * self.in_channels + first_channel + c) * h + y) * w + x_];
                    sum += f64::from(pixel) * f64::from(weight[((o * ic + c) * kh + ky) * kw + kx]);
                }
            }
            *value = super::activated(self.activation, sum) as f32
                + inputs.get(1).map_or(0.0, |residual| residual.data()[idx]);
        }
        out
    }

    fn scratch_len(&self, weights: &[PackedWeights], inputs: &[Hw], threads: usize) -> usize {
        self.output_hw(&inputs[..1]).map_or(0, |hw| weights[self.weights].scratch_len(hw, threads))
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, weights: &[PackedWeights], io: &StepIo<'_>) {
        weights[self.weights].run(context, arena, self.activation, io);
    }
}
