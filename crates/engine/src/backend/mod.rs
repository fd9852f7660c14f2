//! Where a network runs.

mod cpu;

pub(crate) use cpu::Cpu;

/// The processor a model is asked to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best there is. This build has no GPU backend, so that is the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: the one of this index, or the first. Not in this build.
    Gpu(Option<usize>),
}

/// The number format of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats. Not in this build.
    F16,
    /// 16-bit brain floats. Not in this build.
    Bf16,
    /// 8-bit integers. Not in this build.
    Int8,
}
