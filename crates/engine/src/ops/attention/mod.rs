//! Multi-head softmax attention over the cells of a map.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use ferroyolo_kernels::{Arena, Context};

use super::{Hw, Kernel, PackedWeights, StepIo, exactly};

/// `softmax(scale * q . k) v` for each head.
///
/// The input's channels are queries of all heads, then keys of all heads (`heads * key_dim` each), then values
/// (`heads * head_dim`); the output has those of the values. Cells are tokens, in row order; they are cut into `areas`
/// equal runs, and attend to their own run only.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub heads: usize,
    pub key_dim: usize,
    pub head_dim: usize,
    /// One: every cell attends to the whole map.
    pub areas: usize,
    pub scale: f32,
}

impl Kernel for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        let [channels] = exactly(inputs)?;
        let expected = self.heads * (2 * self.key_dim + self.head_dim);
        if channels != expected {
            return Err(format!("got {channels} channels of queries, keys and values, expected {expected}"));
        }
        Ok(self.heads * self.head_dim)
    }

    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String> {
        let [[h, w]] = exactly(inputs)?;
        if !(h * w).is_multiple_of(self.areas) {
            return Err(format!("{h}x{w} cells can't be cut into {} equal areas", self.areas));
        }
        Ok([h, w])
    }

    fn macs(&self, [h, w]: Hw) -> u64 {
        (self.heads * (h * w).pow(2) / self.areas * (self.key_dim + self.head_dim)) as u64
    }

    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], _: &[super::ConvWeights]) -> crate::Tensor {
        let &[n, c, h, w] = inputs[0].shape() else { panic!("expected NCHW") };
        let tokens = h * w;
        let at = |image: usize, channel: usize, token: usize| {
            f64::from(inputs[0].data()[(image * c + channel) * tokens + token])
        };
        let mut out = crate::Tensor::zeros(vec![n, self.heads * self.head_dim, h, w]).expect("a small shape");
        for (image, head, query) in super::triples(n, self.heads, tokens) {
            let (q, k) = (head * self.key_dim, (self.heads + head) * self.key_dim);
            let v = 2 * self.heads * self.key_dim + head * self.head_dim;
            let dot = |key| -> f64 {
                (0..self.key_dim).map(|d| at(image, q + d, query) * at(image, k + d, key)).sum()
            };
            let area = tokens / self.areas;
            let keys = query / area * area..(query / area + 1) * area;
            let scores: Vec<f64> = keys.clone().map(|key| dot(key) * f64::from(self.scale)).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..self.head_dim {
                let sum: f64 = weights
                    .iter()
                    .zip(keys.clone())
                    .map(|(weight, key)| weight * at(image, v + d, key))
                    .sum();
                out.data_mut()[((image * self.heads + head) * self.head_dim + d) * tokens + query] =
                    (sum / total) as f32;
            }
        }
        out
    }

    fn scratch_len(&self, _: &[PackedWeights], inputs: &[Hw], threads: usize) -> usize {
        cpu::scratch_len(self, inputs[0], threads)
    }

    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, _: &[PackedWeights], io: &StepIo<'_>) {
        cpu::run(self, context, arena, io);
    }
}
