//! `ferroyolo devices`: what models can run on.

use std::fs;

use ferroyolo::Isa;

use crate::error::{Outcome, Result};
use crate::output::json::print_line;

/// Lists the CPU with its instruction sets, and says which backends this build has.
pub fn run() -> Result<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    print_line(&format!("cpu  {}", cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into())))?;
    print_line(&format!("     {threads} threads can run at once"))?;
    print_line(&format!("     instruction sets: {} (the first is used)", isas.join(", ")))?;
    print_line("     precisions: f32")?;
    print_line("gpu  none: this build has no GPU backend")?;
    Ok(Outcome::Done)
}

/// The processor's name, where the system tells it in a file.
fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, name) =
        info.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "model name")?;
    Some(name.trim().to_owned())
}
