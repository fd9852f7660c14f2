//! Enlarging by a whole factor, nearest neighbour.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, enlarged_hw};

/// Repeats every cell `factor` times in both directions.
#[derive(Clone, Debug)]
pub(crate) struct Upsample {
    pub factor: usize,
}

impl Kernel for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        enlarged_hw(inputs, [self.factor; 2])
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let (oh, ow) = (h * self.factor, w * self.factor);
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (plane, y, x_) = (idx / (oh * ow), idx / ow % oh / self.factor, idx % ow / self.factor);
            *value = x.data()[(plane * h + y) * w + x_];
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
