//! `ferroyolo devices`: what models can run on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferroyolo::{Adapter, Isa, MatrixShape, adapters, automatic};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Devices;
use crate::error::{Outcome, Result};
use crate::output::console::printable;
use crate::output::json::{JsonSink, is_stdout, print_line};

/// The CPU, as far as the system tells of it.
#[derive(Debug, Serialize)]
struct Cpu {
    name: String,
    /// Cores, CPUs and threads, in words.
    #[serde(skip)]
    cores: String,
    /// Threads that can run at once.
    threads: usize,
    /// The first one is used.
    instruction_sets: Vec<&'static str>,
    features: Vec<&'static str>,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    /// What this process may use, if that is less than all.
    limit_bytes: Option<u64>,
    precisions: [&'static str; 1],
}

/// Lists the CPU with its instruction sets and memory, and the graphics processors with what they have and lack.
pub fn run(args: &Devices) -> Result<Outcome> {
    let cpu = Cpu::here();
    let adapters = adapters();
    // What `--device auto` tries first, or why that is the CPU.
    let (auto, reason) = match automatic(&adapters) {
        Ok(adapter) => (format!("gpu:{}", adapter.index), None),
        Err(error) => ("cpu".to_owned(), Some(printable(error.message()).to_string())),
    };
    if !args.json.as_deref().is_some_and(is_stdout) {
        cpu.lines().iter().try_for_each(|line| print_line(line))?;
        if adapters.is_empty() {
            print_line("gpu  none was found, or no driver for it")?;
        }
        for adapter in &adapters {
            describe(adapter).iter().try_for_each(|line| print_line(line))?;
        }
        let because = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        print_line(&format!("auto is {auto}{because}"))?;
    }
    if let Some(target) = &args.json {
        let gpus: Vec<Value> = adapters.iter().map(to_json).collect();
        JsonSink::open(target, None)?
            .write(&json!({ "auto": auto, "auto_reason": reason, "cpu": cpu, "gpus": gpus }))?;
    }
    Ok(Outcome::Done)
}

impl Cpu {
    fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let [memory_bytes, available_bytes, limit_bytes] = memory();
        Self {
            name: field(&info, "model name").next().unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: cores(&info),
            threads: n_threads(),
            instruction_sets: Isa::available().iter().map(|isa| isa.name()).collect(),
            features: features(),
            memory_bytes,
            available_bytes,
            limit_bytes,
            precisions: ["f32"],
        }
    }

    fn lines(&self) -> Vec<String> {
        let features =
            if self.features.is_empty() { "none known".to_owned() } else { self.features.join(", ") };
        let mut lines = vec![
            format!("cpu  {}", printable(&self.name)),
            format!("     {}", self.cores),
            format!("     instruction sets: {} (the first is used)", self.instruction_sets.join(", ")),
            format!("     features: {features}"),
        ];
        if let Some(all) = self.memory_bytes {
            let mut text = format!("     memory: {}", gib(all));
            if let Some(free) = self.available_bytes {
                text += &format!(", {} available", gib(free));
            }
            if let Some(limit) = self.limit_bytes {
                text += &format!(", limited to {}", gib(limit));
            }
            lines.push(text);
        }
        lines.push(format!("     precisions: {}", self.precisions.join(", ")));
        lines
    }
}

/// The lines about a graphics processor.
fn describe(adapter: &Adapter) -> Vec<String> {
    let kind = if adapter.is_software {
        "a program on the CPU, taken only when asked for by number".to_owned()
    } else {
        adapter.kind.as_str().to_owned()
    };
    let mut lines = vec![
        format!("gpu:{}  {}", adapter.index, printable(&adapter.name)),
        format!("     {} {}; {kind}", adapter.backend, printable(&adapter.driver)),
    ];
    if !adapter.lacks.is_empty() {
        lines.push(format!("     can't be used: {}", adapter.lacks.join("; ")));
        return lines;
    }
    lines.push(format!("     precisions: {}", precisions(adapter).join(", ")));
    let mib = |bytes: u64| bytes >> 20;
    lines.push(format!(
        "     buffers up to {} MiB, activations up to {} MiB",
        mib(adapter.max_buffer_bytes),
        mib(adapter.max_binding_bytes)
    ));
    lines.push(format!(
        "     workgroups of up to {} invocations with {} bytes, {} in one direction",
        adapter.max_invocations, adapter.workgroup_bytes, adapter.max_workgroups
    ));
    let mut with = Vec::new();
    let mut without = Vec::new();
    let mut sort = |has: bool, what: &str, detail: &str| match has {
        true => with.push(format!("{what}{detail}")),
        false => without.push(what.to_owned()),
    };
    sort(adapter.has_f16, "16-bit floats", "");
    let sizes = match adapter.subgroup_sizes {
        Some([least, most]) if least == most => format!(" of {least}"),
        Some([least, most]) => format!(" of {least} to {most}"),
        None => String::new(),
    };
    sort(adapter.subgroup_sizes.is_some(), "subgroups", &sizes);
    let shapes: Vec<_> = adapter.matrix_shapes.iter().map(shape_name).collect();
    sort(!shapes.is_empty(), "matrix units", &format!(" ({})", shapes.join(", ")));
    sort(adapter.has_timestamps, "time stamps", "");
    sort(adapter.has_pipeline_cache, "pipeline cache", "");
    for (label, list) in [("with", with), ("without", without)] {
        if !list.is_empty() {
            lines.push(format!("     {label}: {}", list.join(", ")));
        }
    }
    lines
}

/// `16x16x16 f16 to f32`: rows, columns and depth, inputs and sums.
fn shape_name(shape: &MatrixShape) -> String {
    let MatrixShape { m, n, k, inputs, sums, .. } = shape;
    format!("{m}x{n}x{k} {inputs} to {sums}")
}

fn precisions(adapter: &Adapter) -> Vec<&'static str> {
    if !adapter.lacks.is_empty() {
        return Vec::new();
    }
    if adapter.has_f16 { vec!["f32", "f16"] } else { vec!["f32"] }
}

fn to_json(adapter: &Adapter) -> Value {
    let shape = |shape: &MatrixShape| {
        let MatrixShape { m, n, k, inputs, sums, .. } = shape;
        json!({ "m": m, "n": n, "k": k, "inputs": inputs, "sums": sums })
    };
    json!({
        "index": adapter.index,
        "name": adapter.name,
        "backend": adapter.backend,
        "driver": adapter.driver,
        "kind": adapter.kind.as_str(),
        "lacks": adapter.lacks,
        "precisions": precisions(adapter),
        "subgroup_sizes": adapter.subgroup_sizes,
        "matrix_shapes": adapter.matrix_shapes.iter().map(shape).collect::<Vec<_>>(),
        "timestamps": adapter.has_timestamps,
        "pipeline_cache": adapter.has_pipeline_cache,
        "max_buffer_bytes": adapter.max_buffer_bytes,
        "max_binding_bytes": adapter.max_binding_bytes,
        "workgroup_bytes": adapter.workgroup_bytes,
        "max_invocations": adapter.max_invocations,
        "max_workgroups": adapter.max_workgroups,
    })
}

fn n_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
    let n_cpus = field(info, "processor").count();
    let cores: BTreeSet<_> = field(info, "physical id").zip(field(info, "core id")).collect();
    let machine = match (cores.len(), n_cpus) {
        (_, 0) => String::new(),
        (0, n_cpus) => format!("{n_cpus} CPUs, "),
        (n_cores, n_cpus) => format!("{n_cores} cores with {n_cpus} CPUs, "),
    };
    format!("{machine}{} threads can run at once", n_threads())
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

/// Bytes of the machine's memory, how much of it is free, and what this process may use, where the system tells it in
/// files.
fn memory() -> [Option<u64>; 3] {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |key| Some(field(&info, key).next()?.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [bytes("MemTotal"), bytes("MemAvailable"), group_limit(Path::new("/sys/fs/cgroup"), &groups)]
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
