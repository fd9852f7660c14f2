//! Enlarging by a whole factor, bilinear.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, enlarged_hw};

/// Enlarges `factor` times in both directions; each cell is a mix of the four nearest ones.
///
/// With `align_corners` the centres of the corner cells stay where they are, else the corners of the map do.
#[derive(Clone, Debug)]
pub(crate) struct ResizeBilinear {
    pub factor: usize,
    pub align_corners: bool,
}

impl Kernel for ResizeBilinear {
    fn name(&self) -> &'static str {
        "resize_bilinear"
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        enlarged_hw(inputs, [self.factor; 2])
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let x = inputs[0];
        let &[n, c, h, w] = x.shape() else { panic!("expected NCHW") };
        let (oh, ow) = (h * self.factor, w * self.factor);
        let between = |at: usize, n_in: usize, n_out: usize| {
            let position = if self.align_corners {
                at as f64 * (n_in - 1) as f64 / (n_out - 1).max(1) as f64
            } else {
                (at as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5
            };
            let position = position.clamp(0.0, (n_in - 1) as f64);
            let first = position as usize;
            (first, (first + 1).min(n_in - 1), position - first as f64)
        };
        let mut out = crate::Tensor::zeros(vec![n, c, oh, ow]).expect("a small shape");
        for (idx, value) in out.data_mut().iter_mut().enumerate() {
            let plane = idx / (oh * ow);
            let ((top, bottom, down), (left, right, across)) =
                (between(idx / ow % oh, h, oh), between(idx % ow, w, ow));
            let at = |y: usize, x_: usize| f64::from(x.data()[(plane * h + y) * w + x_]);
            let row = |y: usize| at(y, left) * (1.0 - across) + at(y, right) * across;
            *value = (row(top) * (1.0 - down) + row(bottom) * down) as f32;
        }
        out
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
