//! Mean of a whole map.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// Mean of each channel over all cells; the output has one cell.
#[derive(Clone, Debug)]
pub(crate) struct GlobalAvgPool;

impl Kernel for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let [[h, w]] = exactly(inputs)?;
        if h == 0 || w == 0 { Err(format!("no mean of {h}x{w} cells")) } else { Ok([1, 1]) }
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let &[n, c, h, w] = inputs[0].shape() else { panic!("expected NCHW") };
        let mean = |plane: &[f32]| {
            (plane.iter().map(|&value| f64::from(value)).sum::<f64>() / (h * w) as f64) as f32
        };
        let means = inputs[0].data().chunks_exact(h * w).map(mean).collect();
        crate::Tensor::new(vec![n, c, 1, 1], means).expect("one mean for each channel")
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(context, arena, io);
    }
}
