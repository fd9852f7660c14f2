//! Where a network runs.

mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

pub(crate) use cpu::{Cpu, CpuTarget};

/// The processor a model is asked to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first GPU that lacks nothing, never a program that stands in for one; the CPU if there is none, or if the GPU
    /// fails to take the model, which [`Model::fallback`](crate::Model::fallback) then tells.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: the one of this index among `adapters()`, or the first that is no program on the CPU. Only with the
    /// feature `gpu`.
    Gpu(Option<usize>),
}

/// Whether the ways to carry out convolutions are measured on the device that a model is loaded for.
///
/// All ways compute the same sums in another order, so that results differ by the rounding of 32-bit floats. They are
/// the same to the bit for the same choices, which are kept in [`ModelOptions::cache`](crate::ModelOptions::cache).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// On graphics processors, for at most two seconds a model; not on programs that stand in for one.
    #[default]
    Auto,
    /// Nowhere: the ways are chosen by the sizes of maps.
    Off,
    /// On programs that stand in for a graphics processor, too.
    Always,
}

/// The number format of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats in memory, 32-bit sums. Only on GPUs that have them. A value above 65504 is an error.
    F16,
    /// 16-bit brain floats. Not in this build.
    Bf16,
    /// 8-bit integers. Not in this build.
    Int8,
}
