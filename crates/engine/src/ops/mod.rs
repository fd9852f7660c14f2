//! The operations that networks are made of.
//!
//! Each op has a folder: `mod.rs` holds its attributes, its output shape and its scalar reference, which defines it;
//! `cpu.rs` maps it to the kernels. An op is one arm of [`Op::kernel`]: the compiler lists what is missing.

pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod avg_pool2d;
pub(crate) mod concat;
pub(crate) mod conv2d;
pub(crate) mod conv_transpose2d;
pub(crate) mod global_avg_pool;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod max_pool2d;
pub(crate) mod resize_bilinear;
pub(crate) mod slice;
pub(crate) mod upsample;
pub(crate) mod upsample_like;
pub(crate) mod zero_pad;

#[cfg(test)]
mod tests;

use ferroyolo_kernels::{Arena, Context, Scratch, View};

pub(crate) use add::Add;
pub(crate) use attention::Attention;
pub(crate) use avg_pool2d::AvgPool2d;
pub(crate) use concat::Concat;
pub(crate) use conv_transpose2d::ConvTranspose2d;
pub(crate) use conv2d::{Conv2d, ConvWeights, PackedWeights};
pub(crate) use global_avg_pool::GlobalAvgPool;
pub(crate) use max_pool2d::MaxPool2d;
pub(crate) use resize_bilinear::ResizeBilinear;
pub(crate) use slice::Slice;
pub(crate) use upsample::Upsample;
pub(crate) use upsample_like::UpsampleLike;
pub(crate) use zero_pad::ZeroPad;

/// Height and width of a value, in cells.
pub(crate) type Hw = [usize; 2];

/// More cells than this in one direction are a mistake, and their number would overflow further on.
const MAX_SIDE: usize = 1 << 24;

/// One operation with its attributes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Conv2d(Conv2d),
    ConvTranspose2d(ConvTranspose2d),
    MaxPool2d(MaxPool2d),
    AvgPool2d(AvgPool2d),
    GlobalAvgPool(GlobalAvgPool),
    Upsample(Upsample),
    UpsampleLike(UpsampleLike),
    ResizeBilinear(ResizeBilinear),
    ZeroPad(ZeroPad),
    Concat(Concat),
    Slice(Slice),
    Add(Add),
    Attention(Attention),
}

/// What every op can do. Shapes are given per image: channels, then height and width.
pub(crate) trait Kernel {
    /// The op's name in dumps and profiles.
    fn name(&self) -> &'static str;

    /// Channels of the output, or why these inputs don't fit; those of the only input unless an op says otherwise.
    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String> {
        exactly(inputs).map(|[channels]| channels)
    }

    /// Height and width of the output, or why these inputs don't fit.
    fn output_hw(&self, inputs: &[Hw]) -> Result<Hw, String>;

    /// Multiply-accumulate operations for one image with an output of this height and width.
    fn macs(&self, _output: Hw) -> u64 {
        0
    }

    /// Zero pixels that the CPU path reads around its inputs.
    fn halo(&self) -> usize {
        0
    }

    /// The definition of the op, in scalar code: NCHW in, NCHW out.
    #[cfg(test)]
    fn reference(&self, inputs: &[&crate::Tensor], weights: &[ConvWeights]) -> crate::Tensor;

    /// Floats of scratch memory that the CPU path wants.
    fn scratch_len(&self, _weights: &[PackedWeights], _inputs: &[Hw], _threads: usize) -> usize {
        0
    }

    /// Runs the op on the CPU.
    fn run_cpu(&self, context: Context<'_>, arena: &mut Arena, weights: &[PackedWeights], io: &StepIo<'_>);
}

/// Where a step finds its operands in the arena.
pub(crate) struct StepIo<'a> {
    pub inputs: &'a [View],
    pub output: View,
    pub scratch: Scratch,
}

impl Op {
    /// The trained values of the op in the order in which its kernel reads them, and the place of their index.
    pub(crate) fn pack(&mut self, weights: &[ConvWeights]) -> Option<(PackedWeights, &mut usize)> {
        match self {
            Self::Conv2d(op) => Some((PackedWeights::pack(op, &weights[op.weights]), &mut op.weights)),
            Self::ConvTranspose2d(op) => Some((op.pack(&weights[op.weights]), &mut op.weights)),
            _ => None,
        }
    }

    pub(crate) fn kernel(&self) -> &dyn Kernel {
        match self {
            Self::Conv2d(op) => op,
            Self::ConvTranspose2d(op) => op,
            Self::MaxPool2d(op) => op,
            Self::AvgPool2d(op) => op,
            Self::GlobalAvgPool(op) => op,
            Self::Upsample(op) => op,
            Self::UpsampleLike(op) => op,
            Self::ResizeBilinear(op) => op,
            Self::ZeroPad(op) => op,
            Self::Concat(op) => op,
            Self::Slice(op) => op,
            Self::Add(op) => op,
            Self::Attention(op) => op,
        }
    }
}

/// Output size of a square window that slides over the only input, with padding on all sides.
fn pooled_hw(inputs: &[Hw], kernel: usize, stride: usize, padding: usize) -> Result<Hw, String> {
    let [[h, w]] = exactly(inputs)?;
    let extent = |side| window_extent(side, kernel, stride, padding);
    Ok([extent(h)?, extent(w)?])
}

/// Size of the only input, enlarged.
fn enlarged_hw(inputs: &[Hw], factors: [usize; 2]) -> Result<Hw, String> {
    let [input] = exactly(inputs)?;
    if input.iter().zip(factors).any(|(&cells, factor)| cells > MAX_SIDE / factor) {
        return Err(format!("{input:?} cells enlarged by {factors:?} are more than {MAX_SIDE}"));
    }
    Ok([input[0] * factors[0], input[1] * factors[1]])
}

/// Output extent of a window that slides over `input` cells with zero padding on both sides.
fn window_extent(input: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize, String> {
    let padded = input + 2 * padding;
    if padded < kernel {
        return Err(format!("an input of {input} cells is smaller than the kernel of {kernel}"));
    }
    Ok((padded - kernel) / stride + 1)
}

/// The inputs as an array of the wanted number.
fn exactly<const N: usize, T: Copy>(inputs: &[T]) -> Result<[T; N], String> {
    inputs.try_into().map_err(|_| format!("got {} inputs, expected {N}", inputs.len()))
}

/// The activation's value, for references.
#[cfg(test)]
fn activated(activation: ferroyolo_kernels::Activation, x: f64) -> f64 {
    use ferroyolo_kernels::Activation;
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// All `(a, b, c)` below the given extents, last one fastest.
#[cfg(test)]
fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |idx| (idx / (b * c), idx / c % b, idx % c))
}
