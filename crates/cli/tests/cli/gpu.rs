//! Networks on a graphics processor by the command line.

use serde_json::Value;

use crate::support::{Place, demo};

/// The number of an adapter that can be used, as `devices` lists it; `None` after saying that a test is skipped.
fn adapter(test: &str) -> Option<String> {
    adapter_for(test, "f32")
}

/// As [`adapter`], of one that computes in numbers of this format.
fn adapter_for(test: &str, precision: &str) -> Option<String> {
    let listed = Place::new().run(&["devices"]).expect(0).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    let found = lines.iter().enumerate().find_map(|(idx, line)| {
        let (number, _) = line.strip_prefix("gpu:")?.split_once(' ')?;
        let (_, precisions) = lines.get(idx + 2)?.split_once("precisions: ")?;
        precisions.split(", ").any(|one| one == precision).then(|| format!("gpu:{number}"))
    });
    if found.is_none() {
        let is_ci = std::env::var("CI").is_ok_and(|got| got == "true");
        assert!(!is_ci, "{test}: CI has to have a Vulkan device: {listed}");
        eprintln!("skipped: {test}: no adapter; Debian's mesa-vulkan-drivers have one");
    }
    found
}

#[test]
fn the_annotated_picture_is_that_of_the_cpu() {
    let Some(gpu) = adapter("the_annotated_picture_is_that_of_the_cpu") else { return };
    let place = Place::new();
    place.run(&["predict", "--device", "cpu", "--save", "cpu"]).expect(0);
    place.run(&["predict", "--device", &gpu, "--save", "gpu"]).expect(0);
    let read = |folder: &str| {
        let path = place.path(folder).join("sample.png");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(read("cpu") == read("gpu"), "the pictures differ");
}

#[test]
fn what_there_is_not_is_told() {
    let place = Place::new();
    place.run(&["predict", "--device", "gpu:250"]).expect(1).says(&["there is no adapter 250: "]);
    place.run(&["predict", "--device", "cpu", "--precision", "f16"]).expect(1).says(&["f16 is for GPUs"]);
    place.run(&["predict", "--precision", "int8"]).expect(1).says(&["int8 is not supported, expected f32"]);
}

/// Worker processes measure and compile for themselves, with nothing but a file where the cache should be.
#[test]
fn a_cache_that_can_not_be_written_to_does_no_harm() {
    let Some(gpu) = adapter("a_cache_that_can_not_be_written_to_does_no_harm") else { return };
    let place = Place::new();
    place.write("cache", b"no folder");
    place.picture("a.png", 160, 120);
    place.write("broken.png", b"no picture");
    place.picture("c.png", 90, 140);
    let predict = |more: &[&str]| {
        let sources = ["predict", "-s", "a.png", "broken.png", "c.png", "--imgsz", "64", "--conf", "0.05"];
        let run = place.run(&[&sources[..], &["--json", "-"], more].concat()).expect(1);
        let found = |object: &Value| {
            let rows = object["results"].as_array().into_iter().flatten();
            (object["path"].to_string(), rows.map(|row| row["class"].to_string()).collect::<Vec<_>>())
        };
        run.says(&["broken.png: not a picture"]).json_lines().iter().map(found).collect::<Vec<_>>()
    };
    let workers = ["--policy", "process", "--workers", "2", "--tune", "always"];
    let on_gpu = predict(&[&workers[..], &["--device", &gpu]].concat());
    assert_eq!(on_gpu.len(), 3, "{on_gpu:?}");
    assert_eq!(on_gpu, predict(&["--device", "cpu"]));
}

#[test]
fn bench_checks_the_device() {
    let Some(gpu) = adapter("bench_checks_the_device") else { return };
    let quick = ["bench", "--imgsz", "64,96", "--runs", "1", "--warmup", "0", "--check", "--json", "-"];
    let run = Place::new().run(&[&quick[..], &["--device", &gpu]].concat()).expect(0);
    assert!(run.stderr.contains("raw outputs agree with the CPU's"), "{}", run.stderr);
    assert_eq!(run.json_lines()[0]["device"], "gpu");
}

/// The demo model with a first layer that is 8000 times as steep: too large for 16-bit floats but where it is black.
fn steep() -> Vec<u8> {
    let mut bytes = demo();
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header's length");
    let length = u64::from_le_bytes(*length) as usize;
    let header: Value = serde_json::from_slice(&rest[..length]).expect("a header");
    let place = |end: usize| {
        let offset = header["model.0.conv.scale"]["data_offsets"][end].as_u64().expect("an offset");
        8 + length + usize::try_from(offset).expect("a place in the file")
    };
    for scale in bytes[place(0)..place(1)].as_chunks_mut::<4>().0 {
        *scale = (f32::from_le_bytes(*scale) * 8e3).to_le_bytes();
    }
    bytes
}

#[test]
fn values_that_half_precision_can_not_hold_are_told() {
    let Some(gpu) = adapter_for("values_that_half_precision_can_not_hold_are_told", "f16") else { return };
    let place = Place::new();
    place.write("steep.safetensors", &steep());
    place.picture("bright.png", 64, 64);
    image::RgbImage::new(64, 64).save(place.path("black.png")).expect("a picture");
    let on_gpu = ["-m", "steep.safetensors", "--imgsz", "64", "--device", &gpu, "--precision"];
    let told = ": values are too large for 16-bit floats, which end at 65504; use f32";
    let pictures = ["-s", "bright.png", "black.png", "--batch", "2", "--json", "-"];
    let predict = |precision| place.run(&[&["predict"], &on_gpu[..], &[precision], &pictures].concat());
    let run = predict("f16").expect(1).says(&["a batch of 2 failed", " of picture 1 of 2", told]);
    let found = run.json_lines();
    let is_found = |object: &Value| object["results"].is_array();
    assert_eq!(found.iter().map(is_found).collect::<Vec<_>>(), [false, true], "{}", run.stdout);
    assert!(predict("f32").expect(0).json_lines().iter().all(is_found));
    let check = ["--runs", "1", "--warmup", "0", "--check"];
    let bench = |precision| place.run(&[&["bench"], &on_gpu[..], &[precision], &check].concat());
    bench("f16").expect(1).says(&[told]);
    bench("f32").expect(0).says(&["raw outputs agree with the CPU's"]);
}

#[test]
fn bench_tells_what_happens_on_the_device() {
    let Some(gpu) = adapter("bench_tells_what_happens_on_the_device") else { return };
    let place = Place::new();
    let quick = ["bench", "--imgsz", "64,96", "--runs", "2", "--warmup", "0", "--profile", "--device", &gpu];
    let run = place.run(&[&quick[..], &["--json", "-", "--batch", "2"]].concat()).expect(0);
    let object = &run.json_lines()[0];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{object}"));
    assert!(object["adapter"].as_str().is_some_and(|name| !name.is_empty()), "{object}");
    let rows = object["profile"].as_array().expect("rows");
    assert_eq!(object["dispatches"], rows.len(), "{object}");
    for key in ["uploaded_bytes", "read_back_bytes", "gpu_ms", "images_per_second_in_flight"] {
        assert!(number(&object[key]) > 0.0, "{key}: {object}");
    }
    // Without half precision, or without matrix units, the reason stands there.
    let refusal = object["matrix_refusal"].as_str().unwrap_or_default();
    assert!(object["matrix_refusal"].is_null() || !refusal.is_empty(), "{object}");
    let steps = || rows.iter().flat_map(|row| row["steps"].as_array().expect("steps"));
    assert!(steps().any(|step| step["op"] == "conv2d" && step["output"][0] == 2), "{object}");
    // No time without work, and no work without a place.
    assert!(rows.iter().all(|row| number(&row["us"]) > 0.0), "{object}");
    assert!(rows.iter().any(|row| row["gflops"].as_f64().is_some_and(|gflops| gflops > 0.0)), "{object}");
    let shares: f64 = rows.iter().map(|row| number(&row["share"])).sum();
    assert!((shares - 1.0).abs() < 0.05, "{shares}");

    let run = place.run(&quick).expect(0);
    for text in ["on the GPU: ", "ms by its clock", "KiB sent", "matrix units: ", "GFLOP/s", "conv2d"] {
        assert!(run.stdout.contains(text), "no {text} in\n{}", run.stdout);
    }
}
