//! The operations that networks are made of.
//!
//! Each op has a folder: `mod.rs` holds its attributes, its output shape and its scalar reference, which defines it;
//! `cpu.rs` maps it to the kernels. An op is one arm of [`Op::kernel`]: the compiler lists what is missing.

pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod concat;
pub(crate) mod conv2d;
pub(crate) mod max_pool2d;
pub(crate) mod slice;
pub(crate) mod upsample;

#[cfg(test)]
mod tests;

use ferroyolo_kernels::{Arena, Context, Scratch, View};

pub(crate) use add::Add;
pub(crate) use attention::Attention;
pub(crate) use concat::Concat;
pub(crate) use conv2d::{Conv2d, ConvWeights, PackedWeights};
pub(crate) use max_pool2d::MaxPool2d;
pub(crate) use slice::Slice;
pub(crate) use upsample::Upsample;

/// Height and width of a value, in cells.
pub(crate) type Hw = [usize; 2];

/// One operation with its attributes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Conv2d(Conv2d),
    MaxPool2d(MaxPool2d),
    Upsample(Upsample),
    Concat(Concat),
    Slice(Slice),
    Add(Add),
    Attention(Attention),
}

/// What every op can do. Shapes are given per image: channels, then height and width.
pub(crate) trait Kernel {
    /// The op's name in dumps and profiles.
    fn name(&self) -> &'static str;

    /// Channels of the output, or why these inputs don't fit.
    fn output_channels(&self, inputs: &[usize]) -> Result<usize, String>;

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
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        match self {
            Self::Conv2d(op) => op,
            Self::MaxPool2d(op) => op,
            Self::Upsample(op) => op,
            Self::Concat(op) => op,
            Self::Slice(op) => op,
            Self::Add(op) => op,
            Self::Attention(op) => op,
        }
    }
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

/// All `(a, b, c)` below the given extents, last one fastest.
#[cfg(test)]
fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |idx| (idx / (b * c), idx / c % b, idx % c))
}
