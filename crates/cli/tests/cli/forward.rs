//! `forward`: parity with the recorded outputs, and bad inputs.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{Place, arg, workspace};

/// Pixels.
const BOX_TOLERANCE: f32 = 0.01;
const SCORE_TOLERANCE: f32 = 1e-4;

fn tensor(bytes: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), Dtype::F32);
    let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    (tensor.shape().to_vec(), values)
}

fn images(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).expect("a view");
    safetensors::serialize([("images", view)], None).expect("a file")
}

/// Runs the network at `model` (the built-in one if absent) on the recorded input and compares what comes out.
fn check_golden(golden: &str, model: Option<&str>, args: &[&str]) {
    let golden = workspace("tests/goldens").join(golden);
    let model = model.map(|model| workspace("tests/goldens").join(model));
    let recorded = std::fs::read(&golden).expect("the golden");
    let place = Place::new();
    let mut all = vec!["forward", "--input", arg(&golden), "--output", "out.safetensors"];
    all.extend(model.iter().flat_map(|model| ["-m", arg(model)]));
    all.extend(args);
    place.run(&all).expect(0);
    assert_eq!(place.files(""), ["out.safetensors"], "nothing is left beside the output");
    let written = std::fs::read(place.path("out.safetensors")).expect("the output");
    let names = |bytes: &[u8]| {
        let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
        let mut names: Vec<_> =
            file.names().into_iter().map(str::to_owned).filter(|name| name != "images").collect();
        names.sort();
        names
    };
    assert_eq!(names(&written), names(&recorded));
    for name in names(&recorded) {
        let ((shape, expected), (got_shape, got)) = (tensor(&recorded, &name), tensor(&written, &name));
        assert_eq!(got_shape, shape, "{name}");
        for (idx, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let is_box = match (name.as_str(), &shape[..]) {
                ("one2one", &[_, _, n_columns]) => idx % n_columns < 4,
                ("output0", &[_, n_rows, n_columns]) => idx / n_columns % n_rows < 4,
                _ => false,
            };
            let tolerance = if is_box { BOX_TOLERANCE } else { SCORE_TOLERANCE };
            assert!((got - expected).abs() <= tolerance, "{args:?} {name} {idx}: {got}, expected {expected}");
        }
    }
}

#[test]
fn outputs_are_those_recorded() {
    for args in [&[][..], &["--threads", "1"], &["--isa", "scalar"]] {
        check_golden("demo.safetensors", None, args);
        for name in ["detect8", "detect26", "detectx", "segment26", "classify", "depth26"] {
            check_golden(&format!("{name}.safetensors"), Some(&format!("{name}.model.safetensors")), args);
        }
    }
}

#[test]
fn half_precision_inputs_are_widened() {
    let place = Place::new();
    let (f16, f32) = (0x3800u16.to_le_bytes().repeat(3 * 64 * 64), 0.5f32.to_le_bytes().repeat(3 * 64 * 64));
    place.write("f16.safetensors", &images(Dtype::F16, &[1, 3, 64, 64], &f16));
    place.write("f32.safetensors", &images(Dtype::F32, &[1, 3, 64, 64], &f32));
    let [a, b] = ["f16", "f32"].map(|name| {
        let (input, output) = (format!("{name}.safetensors"), format!("{name}.out"));
        place.run(&["forward", "--input", &input, "--output", &output]).expect(0);
        tensor(&std::fs::read(place.path(&output)).expect("the output"), "output0")
    });
    assert_eq!(a, b);
}

#[test]
fn each_image_of_a_batch_is_as_alone() {
    let place = Place::new();
    let pixels = |seed: u32| -> Vec<u8> {
        (0..3 * 64 * 96u32).flat_map(|i| (((i * 7 + seed) % 251) as f32 / 250.0).to_le_bytes()).collect()
    };
    let run = |name: &str, shape: &[usize], bytes: &[u8]| {
        place.write(name, &images(Dtype::F32, shape, bytes));
        place.run(&["forward", "--input", name, "--output", "out"]).expect(0);
        tensor(&std::fs::read(place.path("out")).expect("the output"), "output0").1
    };
    let both = run("both", &[2, 3, 64, 96], &[pixels(0), pixels(99)].concat());
    let alone = [run("a", &[1, 3, 64, 96], &pixels(0)), run("b", &[1, 3, 64, 96], &pixels(99))].concat();
    assert_eq!(both, alone);
}

#[test]
fn bad_inputs_are_told() {
    let place = Place::new();
    let check = |bytes: &[u8], text: &str| {
        place.write("bad.safetensors", bytes);
        let run = place.run(&["forward", "--input", "bad.safetensors", "--output", "out"]).expect(1);
        run.says(&["error: ", text]);
        assert!(!place.path("out").exists());
    };
    let zeros = vec![0u8; 3 * 32 * 32 * 4];
    check(b"", "bad.safetensors");
    check(b"not safetensors", "bad.safetensors");
    check(&images(Dtype::F32, &[3, 32, 32], &zeros), "[3, 32, 32]");
    check(&images(Dtype::F32, &[1, 1, 32, 96], &zeros), "[1, 1, 32, 96]");
    check(&images(Dtype::I32, &[1, 3, 32, 32], &zeros), "I32");
    check(&images(Dtype::F32, &[1, 3, 48, 64], &[0; 3 * 48 * 64 * 4]), "48");
    let mut nan = zeros.clone();
    nan[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    check(&images(Dtype::F32, &[1, 3, 32, 32], &nan), "NaN at index 100");
    let view = TensorView::new(Dtype::F32, vec![1, 3, 32, 32], &zeros).expect("a view");
    check(&safetensors::serialize([("image", view)], None).expect("a file"), "no tensor \"images\"");

    place.run(&["forward", "--input", "absent", "--output", "out"]).expect(1).says(&["absent"]);
    place.write("good.safetensors", &images(Dtype::F32, &[1, 3, 32, 32], &zeros));
    place
        .run(&["forward", "--input", "good.safetensors", "--output", "absent/out"])
        .expect(1)
        .says(&["absent/out"]);
}
