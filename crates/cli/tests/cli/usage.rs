//! Help and wrong usage.

use serde_json::Value;

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
    // Before a model is looked for.
    check(&["predict", "-m", "absent.pt", "--imgsz", "64,16384"], "16384 is more than 8192 pixels");
    check(
        &["val", "-m", "absent.pt", "--data", "absent.yaml", "--imgsz", "9000"],
        "9000 is more than 8192 pixels",
    );
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
    assert!(run.stdout.lines().last().is_some_and(|line| line.starts_with("auto is ")), "{}", run.stdout);
}

#[test]
fn devices_are_told_as_json() {
    let run = Place::new().run(&["devices", "--json", "-"]).expect(0);
    let [object] = &run.json_lines()[..] else { panic!("{}", run.stdout) };
    let sets = object["cpu"]["instruction_sets"].as_array().expect("a list");
    assert!(sets.contains(&"scalar".into()), "{object}");
    let gpus = object["gpus"].as_array().expect("a list");
    for (index, gpu) in gpus.iter().enumerate() {
        assert_eq!(gpu["index"], index);
        let is_usable = gpu["lacks"].as_array().expect("a list").is_empty();
        assert_eq!(gpu["precisions"].as_array().expect("a list").contains(&"f32".into()), is_usable, "{gpu}");
        assert!(gpu["max_binding_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{gpu}");
    }
    let real = gpus.iter().find(|gpu| gpu["kind"] != "software" && gpu["lacks"] == serde_json::json!([]));
    // The first real one, or the CPU with a reason, which is not a lack of real ones if there is one.
    match real.filter(|_| object["auto"] != "cpu") {
        Some(gpu) => {
            assert_eq!(object["auto"], format!("gpu:{}", gpu["index"]), "{object}");
            assert_eq!(object["auto_reason"], Value::Null, "{object}");
        }
        None => {
            assert_eq!(object["auto"], "cpu", "{object}");
            let reason = object["auto_reason"].as_str().expect("a reason");
            let is_empty = reason == "nothing in /dev is a graphics processor";
            assert!(!reason.is_empty() && (real.is_none() || is_empty), "{object}");
        }
    }
}
