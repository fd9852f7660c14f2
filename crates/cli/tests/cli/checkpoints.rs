//! Real checkpoints: `convert`, `inspect`, and `predict` with either form.

use serde_json::Value;

use crate::support::{Place, arg, shared};

/// What `predict` finds on two photographs, without the times.
fn found(place: &Place, shared: &std::path::Path, model: &str, args: &[&str]) -> Vec<Value> {
    let photographs =
        ["000000000009.jpg", "000000000025.jpg"].map(|name| shared.join("coco64/images").join(name));
    let common = ["predict", "-m", model, "--json", "-", "-s", arg(&photographs[0]), arg(&photographs[1])];
    let mut objects = place.run(&[&common, args].concat()).expect(0).json_lines();
    for object in &mut objects {
        object["speed_ms"] = Value::Null;
    }
    objects
}

#[test]
fn a_checkpoint_runs_as_its_conversion_does() {
    let Some(shared) = shared() else { return };
    for (checkpoint, args) in [
        ("models/yolox_nano.pth", &[][..]),
        ("models/yolo11n-coco128.pt", &[]),
        ("reference/checkpoints/yolo11-nc3.pt", &["--conf", "0.001"]),
    ] {
        let place = Place::new();
        let path = shared.join(checkpoint);
        let direct = found(&place, &shared, arg(&path), args);
        assert_eq!(direct.len(), 2);
        assert!(
            direct.iter().any(|object| object["results"].as_array().is_some_and(|found| !found.is_empty()))
        );
        let run = place.run(&["convert", arg(&path), "m.safetensors"]).expect(0);
        assert!(run.stdout.contains("m.safetensors"), "{}", run.stdout);
        assert_eq!(found(&place, &shared, "m.safetensors", args), direct, "{checkpoint}");
        assert_eq!(place.files(""), ["m.safetensors"]);
    }
}

#[test]
fn a_conversion_is_told_unless_quiet() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let path = shared.join("reference/checkpoints/yolo11.pt");
    place.run(&["predict", "-m", arg(&path)]).expect(0).says(&["yolo11.pt: converted in memory in "]);
    let run = place.run(&["predict", "-m", arg(&path), "-q"]).expect(0);
    assert_eq!(run.stderr, "");
}

#[test]
fn precision_of_weights_can_be_chosen() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let path = shared.join("reference/checkpoints/yolo11.pt");
    let size = |dtype: &str| {
        place.run(&["convert", arg(&path), dtype, "--dtype", dtype]).expect(0);
        std::fs::metadata(place.path(dtype)).expect("the file").len()
    };
    let (keep, f16, f32) = (size("keep"), size("f16"), size("f32"));
    assert!(keep <= f32 && f16 < f32, "{keep} {f16} {f32}");
}

#[test]
fn parity_with_recorded_tensors() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    for name in ["yolo11", "yolov8"] {
        let stem = shared.join("reference/checkpoints").join(name);
        let golden = stem.with_extension("safetensors");
        let model = stem.with_extension("pt");
        place.run(&["forward", "-m", arg(&model), "--input", arg(&golden), "--output", "out"]).expect(0);
        let [got, expected] = [place.path("out"), golden].map(|path| {
            let bytes = std::fs::read(path).expect("a file");
            let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
            let tensor = file.tensor("output0").expect("output0");
            let values: Vec<f32> =
                tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            (tensor.shape().to_vec(), values)
        });
        assert_eq!(got.0, expected.0, "{name}");
        let n_box_values = 4 * got.0[2];
        for (idx, (got, expected)) in got.1.iter().zip(&expected.1).enumerate() {
            let tolerance = if idx < n_box_values { 0.01 } else { 1e-4 };
            assert!((got - expected).abs() <= tolerance, "{name} {idx}: {got}, expected {expected}");
        }
    }
}

#[test]
fn inspect_shows_what_a_checkpoint_holds() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let path = shared.join("reference/checkpoints/yolo11.pt");
    let run = place.run(&["inspect", arg(&path)]).expect(0);
    assert!(run.stdout.contains("_rebuild_tensor_v2"), "{}", run.stdout);
    let run = place.run(&["inspect", arg(&path), "--json", "-"]).expect(0);
    assert_eq!(run.json_lines().len(), 1);
    place.run(&["convert", arg(&path), "m.safetensors"]).expect(0);
    let run = place.run(&["inspect", "m.safetensors"]).expect(0);
    assert!(run.stdout.contains("model.0.conv.weight"), "{}", run.stdout);
    place.run(&["inspect", "absent.pt"]).expect(1).says(&["absent.pt"]);
}

#[test]
fn convert_refuses_what_is_no_checkpoint() {
    let place = Place::new();
    place.write("text.pt", b"this is no checkpoint");
    place.write("empty.pt", b"");
    std::fs::create_dir(place.path("dir.pt")).expect("a directory");
    for name in ["text.pt", "empty.pt", "dir.pt", "absent.pt"] {
        place.run(&["convert", name]).expect(1).says(&["error: ", name]);
    }
    place.write("m.safetensors", b"");
    place.run(&["convert", "m.safetensors"]).expect(2).says(&["overwritten"]);
    assert_eq!(place.files(""), ["empty.pt", "m.safetensors", "text.pt"]);
}
