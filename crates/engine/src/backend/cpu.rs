//! The CPU: an instruction set and its threads.

use ferroyolo_kernels::{Arena, Context, Isa, Threads};

use crate::error::{Error, Result};
use crate::graph::{Order, Target};
use crate::ops::{Hw, Op, PackedWeights};

/// More threads than this are a mistake, not a wish.
const MAX_THREADS: usize = 1024;

/// What kernels need to run on the CPU.
#[derive(Debug)]
pub(crate) struct Cpu {
    isa: Isa,
    threads: Threads,
}

impl Cpu {
    /// `n_threads`: all CPUs if absent. `isa`: the best if absent.
    pub(crate) fn new(n_threads: Option<usize>, isa: Option<Isa>) -> Result<Self> {
        let n_threads =
            n_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        if !(1..=MAX_THREADS).contains(&n_threads) {
            return Err(Error::argument("threads", format!("got {n_threads}, expected 1 to {MAX_THREADS}")));
        }
        let threads = Threads::new(n_threads)
            .map_err(|cause| Error::device("cpu", "the threads could not be started").with_source(cause))?;
        Ok(Self { isa: isa.unwrap_or_else(Isa::best), threads })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn n_threads(&self) -> usize {
        self.threads.n()
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { isa: self.isa, threads: &self.threads }
    }

    /// An arena of `len` floats.
    pub(crate) fn arena(&self, len: usize) -> Result<Arena> {
        let bytes = len.saturating_mul(size_of::<f32>());
        // The system hands out more than it has and ends the process later, so what it has is asked first.
        if let Some(available) = available_memory().filter(|available| bytes > *available) {
            return Err(Error::limit(
                "arena",
                format!("{bytes} bytes are needed for activations, {available} bytes of memory are free"),
            ));
        }
        Arena::new(len).map_err(|cause| {
            Error::limit("arena", format!("{bytes} bytes could not be allocated")).with_source(cause)
        })
    }
}

/// Plans for the CPU.
pub(crate) struct CpuTarget<'a> {
    pub weights: &'a [PackedWeights],
    pub n_threads: usize,
}

impl Target for CpuTarget<'_> {
    fn halo(&self, op: &Op) -> usize {
        op.kernel().halo()
    }

    fn scratch_len(&self, op: &Op, inputs: &[Hw]) -> usize {
        op.kernel().scratch_len(self.weights, inputs, self.n_threads)
    }

    fn order(&self) -> Order {
        Order::Sequence
    }
}

/// Bytes that can be had without swapping, where the system tells.
fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
