//! Holds checkpoints against recorded outputs and prints a table of the largest differences.
//!
//! `cargo run --release -p ferroyolo-tests --example agreement -- [--gpu N [--f16]] FOLDER...`
//!
//! Each folder holds `NAME.pt` and `NAME.safetensors`, as `reference/make_reference.py` of the shared data writes them.
//! Every network runs on every instruction set of this CPU with one and three threads, and the table has the worst of
//! all; or with `--gpu` on adapter N of `ferroyolo devices`, with `--f16` in 16-bit floats, which are not expected to
//! be within the tolerances.
//! The exit status is 1 if any difference is larger than its tolerance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferroyolo::{Device, Isa, ModelOptions, Precision, adapters};
use ferroyolo_tests::{
    Agreement, BOX_TOLERANCE_PX, OTHER_TOLERANCE, SCORE_TOLERANCE, agreement, configurations, convert, load,
    tensors,
};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let precision = match take(&mut arguments, "--f16", 1) {
        Some(_) => Precision::F16,
        None => Precision::F32,
    };
    let gpu = take(&mut arguments, "--gpu", 2);
    let on_gpu = gpu.map(|words| {
        words.get(1).and_then(|number| number.parse().ok()).expect("--gpu takes the number of an adapter")
    });
    let configurations: Vec<ModelOptions> = match on_gpu {
        Some(index) => {
            vec![ModelOptions { device: Device::Gpu(Some(index)), precision, ..ModelOptions::default() }]
        }
        None => configurations().collect(),
    };
    let folders: Vec<PathBuf> = arguments.into_iter().map(PathBuf::from).collect();
    let mut checkpoints = BTreeMap::new();
    for folder in &folders {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
            let has_golden = path.with_extension("safetensors").is_file();
            if path.extension().is_some_and(|extension| extension == "pt") && has_golden {
                let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
                checkpoints.insert(name, path);
            }
        }
    }
    if checkpoints.is_empty() {
        eprintln!("usage: agreement FOLDER... (of NAME.pt with NAME.safetensors beside it)");
        return ExitCode::FAILURE;
    }
    match on_gpu.and_then(|index: usize| adapters().into_iter().nth(index)) {
        Some(adapter) => println!("{} ({}), {precision:?}.\n", adapter.name, adapter.driver),
        None => {
            let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
            println!("Worst of {} with 1 and 3 threads.\n", isas.join(", "));
        }
    }
    println!("| network | task | parameters | boxes, keypoints (px) | scores | others |");
    println!("|---|---|--:|--:|--:|--:|");
    println!("| tolerance | | | {BOX_TOLERANCE_PX} | {SCORE_TOLERANCE:e} | {OTHER_TOLERANCE:e} |");
    let n_far = checkpoints.iter().filter(|(name, path)| !print_row(name, path, &configurations)).count();
    println!("\n{} of {} networks are within the tolerances.", checkpoints.len() - n_far, checkpoints.len());
    if n_far == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the row of one checkpoint; returns whether it agrees.
fn print_row(name: &str, path: &Path, configurations: &[ModelOptions]) -> bool {
    let bytes = convert(path);
    let golden = tensors(&path.with_extension("safetensors"));
    let mut worst = Agreement::default();
    let mut facts = None;
    for options in configurations {
        let model = load(name, &bytes, options);
        worst = worst.worst(agreement(&model, &golden));
        facts = Some((model.task(), model.n_parameters()));
    }
    let (task, n_parameters) = facts.expect("at least one configuration");
    let number = |value: Option<f32>| value.map_or(String::new(), |value| format!("{value:.1e}"));
    let (pixels, scores, others) = (number(worst.pixels), number(worst.scores), number(worst.others));
    let mark = if worst.is_close() { "" } else { " **too far**" };
    println!("| {name} | {task} | {n_parameters} | {pixels} | {scores} | {others}{mark} |");
    worst.is_close()
}

/// Takes `name` and what follows it, `n` words in all, out of the arguments.
fn take(arguments: &mut Vec<String>, name: &str, n: usize) -> Option<Vec<String>> {
    let at = arguments.iter().position(|argument| argument == name)?;
    let end = (at + n).min(arguments.len());
    Some(arguments.drain(at..end).collect())
}
