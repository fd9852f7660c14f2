//! Transposed convolution whose kernel is as large as its stride: every cell becomes a square of cells.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Activation, Arena, Context};

use super::{ConvWeights, Hw, Kernel, PackedWeights, StepIo, enlarged_hw, exactly};

/// `output[kh * y + dy, kw * x + dx] = activation(weight[.., dy, dx] * input[y, x] + bias)`.
///
/// Weight `[in_channels, out_channels, kh, kw]`.
#[derive(Clone, Debug)]
pub(crate) struct ConvTranspose2d {
    pub in_channels: usize,
    pub out_channels: usize,
    /// Height and width of the kernel, and the stride.
    pub kernel: [usize; 2],
    pub activation: Activation,
    /// Index into the network's weights.
    pub weights: usize,
}

impl ConvTranspose2d {
    /// The weights in the order in which the kernel reads them.
    pub(crate) fn pack(&self, weights: &ConvWeights) -> PackedWeights {
        cpu::pack(self, weights)
    }
}

impl Kernel for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        let [input] = exactly(inputs)?;
        if input != self.in_channels {
            return Err(format!("got {input} input channels, expected {}", self.in_channels));
        }
        Ok(self.out_channels)
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        enlarged_hw(inputs, self.kernel)
    }

    fn macs(&self, [h, w]: Hw) -> u64 {
        (h * w * self.out_channels * self.in_channels) as u64
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], weights: &[ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, ic, h, w] = x.shape() else { panic!("expected NCHW") };
        let ConvWeights { weight, bias } = &weights[self.weights];
        let (oc, [kh, kw]) = (self.out_channels, self.kernel);
        let (oh, ow) = (h * kh, w * kw);
        let mut out = crate::Tensor::zeros(vec![n, oc, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (image, o, oy, ox) = (idx / (oc * oh * ow), idx / (oh * ow) % oc, idx / ow % oh, idx % ow);
            let mut sum = f64::from(bias[o]);
            for c in 0..ic {
                let cell = x.data()[((image * ic + c) * h + oy / kh) * w + ox / kw];
                sum += f64::from(cell) * f64::from(weight[((c * oc + o) * kh + oy % kh) * kw + ox % kw]);
            }
            *value = super::activated(self.activation, sum) as f32;
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, weights: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, weights, io);
    }
}
