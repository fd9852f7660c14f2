//! `ferroyolo devices`: what models can run on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferroyolo::{Adapter, Isa, adapters};

use crate::error::{Outcome, Result};
use crate::output::console::printable;
use crate::output::json::print_line;

/// Lists the CPU with its instruction sets and memory, and the graphics processors with what they lack.
pub fn run() -> Result<Outcome> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").next().unwrap_or(std::env::consts::ARCH);
    let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let features = features();
    print_line(&format!("cpu  {}", printable(name)))?;
    print_line(&format!("     {}", cores(&info)))?;
    print_line(&format!("     instruction sets: {} (the first is used)", isas.join(", ")))?;
    print_line(&format!(
        "     features: {}",
        if features.is_empty() { "none known".into() } else { features.join(", ") }
    ))?;
    if let Some(memory) = memory() {
        print_line(&format!("     memory: {memory}"))?;
    }
    print_line("     precisions: f32")?;
    let adapters = adapters();
    if adapters.is_empty() {
        print_line("gpu  none was found, or no driver for it")?;
    }
    for adapter in &adapters {
        describe(adapter).iter().try_for_each(|line| print_line(line))?;
    }
    Ok(Outcome::Done)
}

/// The lines about a graphics processor.
fn describe(adapter: &Adapter) -> Vec<String> {
    let kind =
        if adapter.is_software { "; a program on the CPU, taken only when asked for by number" } else { "" };
    let mut lines = vec![
        format!("gpu:{}  {}", adapter.index, printable(&adapter.name)),
        format!("     {} {}{kind}", adapter.backend, printable(&adapter.driver)),
    ];
    if adapter.lacks.is_empty() {
        let f16 = if adapter.has_f16 { ", f16" } else { "" };
        let buffer = adapter.max_binding_bytes >> 20;
        lines.push(format!("     precisions: f32{f16}; activations up to {buffer} MiB"));
    } else {
        lines.push(format!("     can't be used: {}", adapter.lacks.join("; ")));
    }
    lines
}

/// The values of `key` in a file with lines `key: value`.
fn field<'a>(text: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(found, _)| found.trim() == key)
        .map(|(_, value)| value.trim())
}

/// How many cores and CPUs the machine has, as far as `/proc/cpuinfo` tells, and how many threads may run.
fn cores(info: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let n_cpus = field(info, "processor").count();
    let cores: BTreeSet<_> = field(info, "physical id").zip(field(info, "core id")).collect();
    let machine = match (cores.len(), n_cpus) {
        (_, 0) => String::new(),
        (0, n_cpus) => format!("{n_cpus} CPUs, "),
        (n_cores, n_cpus) => format!("{n_cores} cores with {n_cpus} CPUs, "),
    };
    format!("{machine}{threads} threads can run at once")
}

macro_rules! detected {
    ($detect:ident: $($name:tt)+) => {
        [$(($name, std::arch::$detect!($name))),+]
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name))
            .collect()
    };
}

/// The features of this CPU that matter to a network.
fn features() -> Vec<&'static str> {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return detected!(is_x86_feature_detected:
        "sse4.1" "avx" "f16c" "fma" "avx2" "avxvnni"
        "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// The machine's memory, how much of it is free, and what this process may use, where the system tells it in files.
fn memory() -> Option<String> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |key| Some(field(&info, key).next()?.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024);
    let mut text = gib(bytes("MemTotal")?);
    if let Some(free) = bytes("MemAvailable") {
        text += &format!(", {} available", gib(free));
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(limit) = group_limit(Path::new("/sys/fs/cgroup"), &groups) {
        text += &format!(", limited to {}", gib(limit));
    }
    Some(text)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// The smallest memory limit of the control groups that `groups`, as in `/proc/self/cgroup`, lists below `root`.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limit = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = Path::new(path.trim_start_matches('/'));
        let limits = group.ancestors().filter_map(|above| {
            fs::read_to_string(root.join(above).join(file)).ok()?.trim().parse::<u64>().ok()
        });
        // The first version has no word for "no limit", only a number beyond any memory.
        limits.filter(|&bytes| bytes < 1 << 60).min()
    };
    groups.lines().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_apart_from_cpus() {
        let cpu = |id: usize, socket: usize, core: usize| {
            format!("processor\t: {id}\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let info = [cpu(0, 0, 0), cpu(1, 0, 1), cpu(2, 0, 0), cpu(3, 0, 1), cpu(4, 1, 0)].concat();
        assert!(cores(&info).starts_with("3 cores with 5 CPUs, "), "{}", cores(&info));
        assert!(cores("processor : 0\n").starts_with("1 CPUs, "));
        assert!(cores("").ends_with(" threads can run at once"));
    }

    #[test]
    fn the_smallest_limit_counts() {
        let dir = tempfile::tempdir().unwrap();
        let check =
            |groups: &str, expected| assert_eq!(group_limit(dir.path(), groups), expected, "{groups}");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        check("0::/a/b\n", None);
        write("a/memory.max", "4096\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "9223372036854771712\n");
        check("0::/a/b\n", Some(4096));
        check("0::/\n", None);
        check("5:cpu:/a\n4:memory:/c\n", None);
        write("memory/memory.limit_in_bytes", "1024\n");
        check("5:cpu:/a\n4:memory:/c\n0::/a\n", Some(1024));
        check("garbage\n", None);
    }

    #[test]
    fn sets_in_use_are_made_of_features_that_are_listed() {
        let has = |name: &str| features().contains(&name);
        for isa in Isa::available() {
            match isa.name() {
                "avx512" => assert!(has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl")),
                "avx2" => assert!(has("avx2") && has("fma")),
                "neon" => assert!(has("neon")),
                _ => {}
            }
        }
    }
}
