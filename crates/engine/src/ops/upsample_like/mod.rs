//! Enlarging to the size of another map, nearest neighbour.

mod cpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// Repeats every cell of the first input so often that it has the size of the second, whose values don't matter.
///
/// The size has to be a whole multiple, the same in both directions.
#[derive(Clone, Debug)]
pub(crate) struct UpsampleLike;

impl Kernel for UpsampleLike {
    fn name(&self) -> &'static str {
        "upsample_like"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        exactly(inputs).map(|[channels, _]| channels)
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let [from, to] = exactly(inputs)?;
        let is_multiple = (0..2).all(|i| from[i] > 0 && to[i].is_multiple_of(from[i]));
        if !is_multiple || to[0] / from[0] != to[1] / from[1] {
            return Err(format!("can't enlarge {from:?} cells to {to:?} by one whole factor"));
        }
        Ok(to)
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let &[_, _, oh, ow] = inputs[1].shape() else { panic!("expected NCHW") };
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let (plane, y, x_) = (idx / (oh * ow), idx / ow % oh * h / oh, idx % ow * w / ow);
            *value = x.data()[(plane * h + y) * w + x_];
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(context, arena, io);
    }
}
