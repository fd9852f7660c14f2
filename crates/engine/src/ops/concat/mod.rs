//! Concatenation over channels.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo};

/// The inputs' channels one after the other. Inputs that already lie in place cost nothing.
#[derive(Clone, Debug)]
pub(crate) struct Concat;

impl Kernel for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        if inputs.is_empty() { Err("got no inputs".into()) } else { Ok(inputs.iter().sum()) }
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let first = *inputs.first().ok_or("got no inputs")?;
        if inputs.iter().any(|&other| other != first) {
            return Err(format!("inputs of different sizes: {inputs:?}"));
        }
        Ok(first)
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let &[n, _, h, w] = inputs[0].shape() else { panic!("expected NCHW") };
        let mut data = Vec::new();
        for image in 0..n {
            for input in inputs {
                let len = input.shape()[1] * h * w;
                data.extend_from_slice(&input.data()[image * len..][..len]);
            }
        }
        let channels = inputs.iter().map(|input| input.shape()[1]).sum();
        crate::Tensor::new(vec![n, channels, h, w], data).expect("the sum of the inputs")
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(context, arena, io);
    }
}
