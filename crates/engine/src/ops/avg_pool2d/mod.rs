//! Mean over a sliding window.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, pooled_hw};

/// Mean of each window, without padding.
#[derive(Clone, Debug)]
pub(crate) struct AvgPool2d {
    pub kernel: usize,
    pub stride: usize,
}

impl Kernel for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        pooled_hw(inputs, self.kernel, self.stride, 0)
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let [oh, ow] = self.output_hw(&[[h, w]]).expect("a shape that fits");
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (plane, oy, ox) = (idx / (oh * ow), idx / ow % oh * self.stride, idx % ow * self.stride);
            let at = |y: usize, x_: usize| f64::from(x.data()[(plane * h + y) * w + x_]);
            let sum: f64 =
                super::triples(1, self.kernel, self.kernel).map(|(_, ky, kx)| at(oy + ky, ox + kx)).sum();
            *value = (sum / (self.kernel * self.kernel) as f64) as f32;
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
