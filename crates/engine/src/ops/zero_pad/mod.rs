//! Zeros around a map.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// The map with rows and columns of zeros around it.
#[derive(Clone, Debug)]
pub(crate) struct ZeroPad {
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

impl Kernel for ZeroPad {
    fn name(&self) -> &'static str {
        "zero_pad"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let [[h, w]] = exactly(inputs)?;
        Ok([h + self.top + self.bottom, w + self.left + self.right])
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let [oh, ow] = self.output_hw(&[[h, w]]).expect("a small shape");
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, &value) in x.data().iter().enumerate() {
            let (plane, y, x_) = (idx / (h * w), idx / w % h + self.top, idx % w + self.left);
            out.data_mut()[(plane * oh + y) * ow + x_] = value;
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
