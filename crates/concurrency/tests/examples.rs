//! The programs of the guide run, and all of them find the same.

use std::path::PathBuf;
use std::process::Command;

const EXAMPLES: [&str; 6] =
    ["shared_model", "model_per_thread", "threading_locked", "model_pool", "task_queue", "worker_processes"];

/// Cargo builds examples with the tests, into a directory beside theirs.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a target directory");
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is missing: `cargo test` without --test builds it", program.display());
    program
}

/// The lines about pictures; without their paths, and in any order, as threads may end in any.
fn found(name: &str, args: &[PathBuf]) -> Vec<String> {
    let output = Command::new(program(name)).args(args).output().expect("the example runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
    assert_eq!(stderr, "", "{name}");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines: Vec<String> = stdout
        .lines()
        .filter_map(|line| line.split_once(".png: "))
        .map(|(_, what)| what.to_owned())
        .collect();
    lines.sort();
    lines
}

#[test]
fn all_find_what_is_in_the_sample() {
    for name in EXAMPLES {
        let lines = found(name, &[]);
        assert_eq!(lines.len(), 4, "{name}: {lines:?}");
        for line in lines {
            assert!(line.contains("2 circles") && line.contains("3 squares"), "{name}: {line}");
        }
    }
}

#[test]
fn a_broken_picture_fails_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let broken = directory.path().join("broken.png");
    std::fs::write(&broken, b"no picture").expect("a file");
    let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets");
    let asset = |name: &str| [assets, name].iter().collect::<PathBuf>();
    let args = [asset("demo.safetensors"), asset("sample.png"), broken, asset("sample.png")];
    for name in ["task_queue", "worker_processes"] {
        let lines = found(name, &args);
        assert_eq!(lines.iter().filter(|line| line.contains("2 circles")).count(), 2, "{name}: {lines:?}");
        assert!(lines.iter().any(|line| line.contains("broken.png")), "{name}: {lines:?}");
    }
}
