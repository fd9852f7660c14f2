//! Elementwise sum.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// `a + b`. Most of these end up as the residual of a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Add;

impl Kernel for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        let [a, b] = exactly(inputs)?;
        if a == b { Ok(a) } else { Err(format!("can't add {a} and {b} channels")) }
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let [a, b] = exactly(inputs)?;
        if a == b { Ok(a) } else { Err(format!("can't add {a:?} and {b:?} cells")) }
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let sum = inputs[0].data().iter().zip(inputs[1].data()).map(|(a, b)| a + b).collect();
        crate::Tensor::new(inputs[0].shape().to_vec(), sum).expect("the shape of the inputs")
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(context, arena, io);
    }
}
