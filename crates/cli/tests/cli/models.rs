//! Bad models: each is a clear error, at once.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{Place, Run, arg, crc32, demo, in_zip, shared};

/// Tensors and metadata of the built-in model, to be spoilt.
struct Parts {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Parts {
    fn of_demo() -> Self {
        let bytes = demo();
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
        let file = SafeTensors::deserialize(&bytes).expect("a model");
        let mut tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Self { tensors, metadata: header.metadata().clone().expect("metadata") }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("a view"))
        });
        safetensors::serialize(views, Some(self.metadata.clone())).expect("a file")
    }

    fn tensor(&mut self, end: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0.ends_with(end)).expect("such a tensor")
    }

    fn document(&mut self, edit: impl FnOnce(&mut serde_json::Value)) {
        let text = self.metadata.get_mut("ferroyolo.model").expect("a document");
        let mut document = serde_json::from_str(text).expect("JSON");
        edit(&mut document);
        *text = document.to_string();
    }
}

#[track_caller]
fn refused(bytes: &[u8], texts: &[&str]) {
    let place = Place::new();
    place.write("bad.safetensors", bytes);
    check_refusal(place.run(&["predict", "-m", "bad.safetensors"]), "bad.safetensors").says(texts);
}

#[track_caller]
fn check_refusal(run: Run, name: &str) -> Run {
    let run = run.expect(1).says(&["error: ", name]);
    assert!(run.stdout.is_empty(), "{}", run.stdout);
    run
}

#[test]
fn the_demo_survives_being_taken_apart() {
    let place = Place::new();
    place.write("same.safetensors", &Parts::of_demo().to_bytes());
    place.run(&["predict", "-m", "same.safetensors"]).expect(0);
}

#[test]
fn truncated_files() {
    let bytes = demo();
    for len in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..len], &[]);
    }
    refused(&[bytes.as_slice(), b"more"].concat(), &[]);
}

#[test]
fn lying_headers() {
    let bytes = demo();
    for len in [0u64, 1, 1 << 20, 1 << 40, u64::MAX, u64::MAX - 7] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&len.to_le_bytes());
        refused(&lying, &[]);
    }
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    refused(&header("{}"), &[]);
    refused(&header("[1, 2"), &[]);
    refused(&header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#), &[]);
    refused(&header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#), &[]);
    refused(&header(&"[".repeat(100_000)), &[]);
}

#[test]
fn random_bytes() {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(10_000)
    .collect();
    refused(&noise, &[]);
    let place = Place::new();
    for name in ["noise", "noise.pt", "noise.pth", "noise.bin"] {
        place.write(name, &noise);
        check_refusal(place.run(&["predict", "-m", name]), name);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let mut parts = Parts::of_demo();
    let at = parts.tensors.iter().position(|tensor| tensor.0.ends_with(".weight")).expect("a weight");
    let (name, ..) = parts.tensors.remove(at);
    refused(&parts.to_bytes(), &[&name]);
}

#[test]
fn a_surplus_tensor_is_named() {
    let mut parts = Parts::of_demo();
    parts.tensors.push(("model.99.stowaway".into(), Dtype::F32, vec![1], vec![0; 4]));
    refused(&parts.to_bytes(), &["model.99.stowaway"]);
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let mut parts = Parts::of_demo();
    let tensor = parts.tensor(".weight");
    tensor.2.swap(0, 1);
    let name = tensor.0.clone();
    refused(&parts.to_bytes(), &[name.trim_end_matches(".weight")]);
}

#[test]
fn a_tensor_of_another_type_is_named() {
    let mut parts = Parts::of_demo();
    let tensor = parts.tensor(".weight");
    let n: usize = tensor.2.iter().product();
    tensor.1 = Dtype::I64;
    tensor.3 = vec![0; n * 8];
    let name = tensor.0.clone();
    refused(&parts.to_bytes(), &[&name]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for bits in [0x7e00u16, 0x7c00, 0xfc00] {
        let mut parts = Parts::of_demo();
        let (name, dtype, _, bytes) = parts.tensor(".weight");
        assert_eq!(*dtype, Dtype::F16);
        bytes[..2].copy_from_slice(&bits.to_le_bytes());
        let name = name.clone();
        refused(&parts.to_bytes(), &[&name]);
    }
    let mut parts = Parts::of_demo();
    let (name, _, _, bytes) = parts.tensor(".bias");
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let name = name.clone();
    refused(&parts.to_bytes(), &[&name]);
}

#[test]
fn an_unknown_class_is_named_with_its_layer() {
    let mut parts = Parts::of_demo();
    parts.document(|document| document["layers"][1]["module"]["class"] = "Frobnicator".into());
    refused(&parts.to_bytes(), &["Frobnicator", "model.1"]);
}

#[test]
fn documents_that_make_no_sense() {
    let check = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut parts = Parts::of_demo();
        parts.document(edit);
        refused(&parts.to_bytes(), &[]);
    };
    check(&|document| document["layers"] = serde_json::json!([]));
    check(&|document| document["layers"][0]["from"] = serde_json::json!([99]));
    check(&|document| document["layers"][1]["from"] = serde_json::json!([1]));
    check(&|document| document["task"] = "juggle".into());
    check(&|document| document["names"] = serde_json::json!([]));
    check(&|document| document["stride"] = serde_json::json!([0, 0, 0]));
    check(&|document| document["imgsz"] = serde_json::json!([0, 0]));
    check(&|document| *document = serde_json::json!(null));
    check(&|document| {
        document["layers"][0]["module"]["children"][0][1]["attrs"]["stride"] = serde_json::json!([0, 0]);
    });

    let mut parts = Parts::of_demo();
    parts.metadata.insert("ferroyolo.format".into(), "99".into());
    refused(&parts.to_bytes(), &["99"]);
    let mut parts = Parts::of_demo();
    parts.metadata.clear();
    refused(&parts.to_bytes(), &[]);
    let mut parts = Parts::of_demo();
    parts.metadata.insert("ferroyolo.model".into(), "{".into());
    refused(&parts.to_bytes(), &[]);
}

#[test]
fn things_that_are_no_model_file() {
    let place = Place::new();
    std::fs::create_dir(place.path("dir.safetensors")).expect("a directory");
    place.write("net.onnx", b"x");
    for (model, text) in [
        (".", "is a directory"),
        ("dir.safetensors", "is a directory"),
        ("absent.safetensors", "no such file"),
        ("absent/yolo11n.pt", "no such file"),
        ("net.onnx", "onnx"),
        ("yolo99z", "no such file"),
    ] {
        for command in ["predict", "bench"] {
            check_refusal(place.run(&[command, "-m", model]), model).says(&[text]);
        }
    }
}

#[test]
fn a_well_known_name_is_looked_up_in_the_cache() {
    let place = Place::new();
    for (name, file) in
        [("yolo11n", "yolo11n.pt"), ("yolox_nano", "yolox_nano.pth"), ("yolov8s.pt", "yolov8s.pt")]
    {
        let run = check_refusal(place.run(&["predict", "-m", name]), name);
        run.says(&[file, "https://", arg(&place.path("cache"))]);
    }
    place.write("cache/yolo11n.safetensors", &demo());
    place.run(&["predict", "-m", "yolo11n"]).expect(0);
}

#[test]
fn hostile_pickles_are_refused_without_a_trace() {
    let Some(shared) = shared() else { return };
    let mut n_checked = 0;
    for entry in std::fs::read_dir(shared.join("hostile/pickles")).expect("pickles") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a pickle");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        for (file, bytes) in [("bare.pt", bytes.clone()), ("wrapped.pt", in_zip(&bytes))] {
            let place = Place::new();
            place.write(file, &bytes);
            check_refusal(place.run(&["predict", "-m", file]), file);
            check_refusal(place.run(&["convert", file]), file);
            assert!(place.run(&["inspect", file]).code == Some(1), "{name}: {file}");
            assert_eq!(place.files(""), [file], "{name} left something behind");
            n_checked += 1;
        }
    }
    assert!(n_checked > 50);
}

#[test]
fn zips_made_here_are_sound() {
    let Some(shared) = shared() else { return };
    // A refusal must come from the pickle: the same wrapping of an honest pickle passes the zip's checks.
    assert!(Path::new(&shared).is_dir());
    let place = Place::new();
    place.write("honest.pt", &in_zip(b"\x80\x02}q\x00."));
    let run = place.run(&["inspect", "honest.pt", "--json", "-"]);
    assert!(!run.stderr.contains("zip"), "{}", run.stderr);
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
