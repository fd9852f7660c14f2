//! The built-in models, and how right they are on scenes that they have never seen (`tests/scenes`).

use std::path::Path;

use serde_json::Value;

use crate::support::{Place, arg, workspace};

const TASKS: [&str; 7] = ["detect", "segment", "pose", "obb", "classify", "semantic", "depth"];

/// Least mean average precision at overlaps of 0.50 to 0.95, least share of right first answers, and least mean IoU.
const MIN_BOX: f64 = 0.80;
const MIN_MASK: f64 = 0.75;
const MIN_POSE: f64 = 0.80;
const MIN_TURNED: f64 = 0.75;
const MIN_TOP1: f64 = 0.97;
const MIN_IOU: f64 = 0.75;

/// Pictures of scenes, and of objects cut out of them.
const N_SCENES: usize = 48;
const N_OBJECTS: usize = 199;

/// Copies the files below `from` to the same places below `to`.
fn copy(place: &Place, from: &Path, to: &str) {
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("an entry").path();
        let name = format!("{to}/{}", path.file_name().and_then(|name| name.to_str()).expect("a name"));
        if path.is_dir() {
            copy(place, &path, &name);
        } else {
            place.write(&name, &std::fs::read(&path).expect("a file"));
        }
    }
}

/// What `val` says of the built-in model for `task`.
fn measured(task: &str) -> Value {
    let place = Place::new();
    let scenes = workspace("tests/scenes");
    let (data, n_pictures): (_, usize) = if task == "classify" {
        (scenes.join("classify"), N_OBJECTS)
    } else {
        copy(&place, &scenes.join(task), "data");
        copy(&place, &scenes.join("detect/images"), "data/images");
        (place.path("data/data.yaml"), N_SCENES)
    };
    let split = if task == "classify" { "test" } else { "val" };
    let run =
        place.run(&["val", "--task", task, "-d", arg(&data), "--split", split, "--json", "-"]).expect(0);
    let metrics = run.json_lines().remove(0);
    assert_eq!((&metrics["task"], &metrics["images"]), (&task.into(), &n_pictures.into()), "{metrics}");
    metrics
}

#[track_caller]
fn at_least(metrics: &Value, pointer: &str, least: f64) {
    let value = metrics.pointer(pointer).and_then(Value::as_f64);
    assert!(value.is_some_and(|value| (least..=1.0).contains(&value)), "{pointer} of {metrics}");
}

#[test]
fn detect_is_right_on_unseen_scenes() {
    at_least(&measured("detect"), "/box/map50_95", MIN_BOX);
}

#[test]
fn segment_is_right_on_unseen_scenes() {
    let metrics = measured("segment");
    at_least(&metrics, "/box/map50_95", MIN_BOX);
    at_least(&metrics, "/mask/map50_95", MIN_MASK);
}

#[test]
fn pose_is_right_on_unseen_scenes() {
    let metrics = measured("pose");
    at_least(&metrics, "/box/map50_95", MIN_BOX);
    at_least(&metrics, "/pose/map50_95", MIN_POSE);
}

#[test]
fn obb_is_right_on_unseen_scenes() {
    at_least(&measured("obb"), "/box/map50_95", MIN_TURNED);
}

#[test]
fn classify_is_right_on_unseen_objects() {
    at_least(&measured("classify"), "/top1", MIN_TOP1);
}

#[test]
fn semantic_is_right_on_unseen_scenes() {
    at_least(&measured("semantic"), "/miou", MIN_IOU);
}

#[test]
fn each_task_has_a_model_and_a_picture() {
    let place = Place::new();
    for task in TASKS {
        let run = place.run(&["predict", "--task", task, "--json", "-", "--save", "out"]).expect(0);
        let object = run.json_lines().remove(0);
        assert_eq!(object["task"], task);
        if task == "depth" {
            // The largest circle is about 51 pixels wide and 68 high in the input. By `tools/demo/maps.py` it is 256 by
            // its diameter metres away, and the background 20.
            let [near, far] = ["min", "max"].map(|key| object["depth"][key].as_f64().expect("metres"));
            assert!((2.5..6.0).contains(&near) && (15.0..25.0).contains(&far), "{object}");
        } else {
            assert!(object["results"].as_array().is_some_and(|found| found.len() >= 4), "{object}");
        }
    }
    let object = place.run(&["predict", "--task", "classify"]).expect(0);
    assert!(object.stdout.starts_with("image 1/1 object.png: 128x128 heart "), "{}", object.stdout);
}

#[test]
fn worker_processes_use_the_same_model() {
    let place = Place::new();
    let [here, there] = [&[][..], &["--policy", "process", "--workers", "1"]].map(|policy| {
        let run = place.run(&[&["predict", "--task", "pose", "--json", "-"], policy].concat()).expect(0);
        run.json_lines().remove(0)["results"].clone()
    });
    assert_eq!(here, there);
}

#[test]
fn a_model_for_another_task_is_refused() {
    let place = Place::new();
    let model = workspace("crates/cli/assets/obb.safetensors");
    place.run(&["predict", "-m", arg(&model), "--task", "pose"]).expect(2).says(&[
        "--task pose",
        "obb.safetensors",
        "is a model for obb",
    ]);
    place.run(&["predict", "-m", arg(&model), "--task", "obb"]).expect(0);
    place.run(&["predict", "--task", "detection"]).expect(2).says(&["detection", "detect, segment"]);
}
