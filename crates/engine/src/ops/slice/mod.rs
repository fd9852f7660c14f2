//! A run of channels.

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// Channels `from .. from + len`. Always a view: the plan makes no step of it.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub from: usize,
    pub len: usize,
}

impl Kernel for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        let [channels] = exactly(inputs)?;
        if self.len == 0 || self.from + self.len > channels {
            return Err(format!("channels {}..{} of {channels}", self.from, self.from + self.len));
        }
        Ok(self.len)
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        exactly(inputs).map(|[hw]| hw)
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let &[n, c, h, w] = inputs[0].shape() else { panic!("expected NCHW") };
        let mut data = Vec::new();
        for image in 0..n {
            data.extend_from_slice(&inputs[0].data()[(image * c + self.from) * h * w..][..self.len * h * w]);
        }
        crate::Tensor::new(vec![n, self.len, h, w], data).expect("a run of the input")
    }

    fn run_cpu(&self, _: Context<'_>, _: &mut Arena, _: &[PackedWeights], _: &StepIo<'_>) {}
}
