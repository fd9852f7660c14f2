//! Help and wrong usage.

use crate::support::Place;

#[test]
fn every_command_has_help_with_an_example() {
    let place = Place::new();
    for command in ["predict", "forward", "bench", "convert", "inspect", "devices"] {
        let run = place.run(&[command, "--help"]).expect(0);
        assert!(
            run.stdout.contains("Example") && run.stdout.contains(&format!("ferroyolo {command}")),
            "{}",
            run.stdout
        );
        assert!(!run.stdout.contains('\x1b'), "colours into a pipe: {}", run.stdout);
        assert!(run.stderr.is_empty());
    }
    assert!(place.run(&["--help"]).expect(0).stdout.contains("predict"));
    assert!(place.run(&["--version"]).expect(0).stdout.starts_with("ferroyolo "));
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_value() {
    let place = Place::new();
    let check = |args: &[&str], text: &str| {
        let run = place.run(args).expect(2).says(&[text]);
        assert!(run.stdout.is_empty(), "{args:?}: {}", run.stdout);
    };
    check(&[], "Usage");
    check(&["train"], "train");
    check(&["predict", "--frobnicate"], "--frobnicate");
    check(&["predict", "--conf", "1.5"], "1.5");
    check(&["predict", "--conf=-0.1"], "-0.1");
    check(&["predict", "--conf", "nan"], "nan");
    check(&["predict", "--iou", "2"], "--iou");
    check(&["predict", "--imgsz", "0"], "--imgsz");
    check(&["predict", "--imgsz", "640x640"], "640x640");
    check(&["predict", "--imgsz", "1,2,3"], "1,2,3");
    check(&["predict", "--max-det", "0"], "--max-det");
    check(&["predict", "--batch", "0"], "--batch");
    check(&["predict", "--threads", "0"], "--threads");
    check(&["predict", "--device", "tpu"], "tpu");
    check(&["predict", "--precision", "f64"], "f64");
    check(&["predict", "--head", "two"], "two");
    check(&["predict", "--classes", "cat"], "cat");
    check(&["predict", "--classes", "0,999"], "999");
    check(&["predict", "--isa", "mmx"], "mmx");
    check(&["predict", "--save-conf"], "--save-txt");
    check(&["predict", "-m"], "--model");
    check(&["forward"], "--input");
    check(&["convert"], "IN");
    check(&["convert", "a.pt", "--dtype", "f64"], "f64");
    check(&["inspect"], "FILE");
    check(&["bench", "--runs", "0"], "--runs");
    check(&["bench", "--runs", "1000000000000000000"], "--runs");
    check(&["bench", "--warmup", "1000000000000000000"], "--warmup");
}

#[test]
fn what_is_not_built_in_is_an_error() {
    let place = Place::new();
    for args in [["--device", "gpu:99"], ["--precision", "int8"], ["--precision", "f16"]] {
        let run = place.run(&[&["predict"], &args[..]].concat()).expect(1).says(&["error: "]);
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn devices_lists_the_cpu() {
    let run = Place::new().run(&["devices"]).expect(0);
    assert!(run.stdout.contains("cpu") && run.stdout.contains("scalar"), "{}", run.stdout);
    assert!(run.stdout.lines().any(|line| line.starts_with("gpu")), "{}", run.stdout);
    for text in ["features: ", "threads can run at once"] {
        assert!(run.stdout.contains(text), "{}", run.stdout);
    }
}
