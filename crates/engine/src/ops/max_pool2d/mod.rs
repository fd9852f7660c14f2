//! Maximum over a sliding window.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, pooled_hw};

/// Largest value in each window; the padding never wins.
#[derive(Clone, Debug)]
pub(crate) struct MaxPool2d {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Kernel for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        pooled_hw(inputs, self.kernel, self.stride, self.padding)
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let [oh, ow] = self.output_hw(&[[h, w]]).expect("a shape that fits");
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (plane, oy, ox) = (idx / (oh * ow), idx / ow % oh, idx % ow);
            *value = f32::NEG_INFINITY;
            for (_, ky, kx) in super::triples(1, self.kernel, self.kernel) {
                let (y, x_) = (oy * self.stride + ky, ox * self.stride + kx);
                let (y, x_) = (y.wrapping_sub(self.padding), x_.wrapping_sub(self.padding));
                if y < h && x_ < w {
                    *value = value.max(x.data()[(plane * h + y) * w + x_]);
                }
            }
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
