//! Raw outputs against PyTorch's.

use std::path::Path;

use ferroyolo::{Isa, Model, ModelOptions, Tensor, TensorView};
use ferroyolo_tests::{
    BOX_TOLERANCE_PX, SCORE_TOLERANCE, convert, demo_bytes, load, read, root, shared, tensors,
};

/// Networks of `reference/checkpoints` that detect, of the families that are supported.
const REFERENCE: [&str; 7] =
    ["yolov8", "yolov8-p2", "yolo11", "yolo11m", "yolo11-nc3", "yolo26", "yolo26-p2"];

const RELEASED: [&str; 2] = ["yolov8n-released", "yolo11n-released"];

/// Every instruction set with one and with three threads.
fn configurations() -> impl Iterator<Item = ModelOptions> {
    Isa::available().into_iter().flat_map(|isa| {
        [1, 3].map(|threads| ModelOptions {
            isa: Some(isa),
            threads: Some(threads),
            ..ModelOptions::default()
        })
    })
}

#[test]
fn reference_networks_agree_with_pytorch() {
    let Some(shared) = shared("reference_networks_agree_with_pytorch") else { return };
    for name in REFERENCE {
        check_checkpoint(&shared.join("reference/checkpoints").join(name));
    }
}

#[test]
fn released_pickles_agree_with_pytorch() {
    let Some(shared) = shared("released_pickles_agree_with_pytorch") else { return };
    for name in RELEASED {
        check_checkpoint(&shared.join("released").join(name));
    }
}

#[test]
fn demo_network_agrees_with_pytorch() {
    let bytes = demo_bytes();
    for options in configurations() {
        let model = load("demo.safetensors", &bytes, &options);
        check(&model, &root().join("tests/goldens/demo.safetensors"));
    }
}

#[test]
fn narrow_networks_agree_with_pytorch() {
    for name in ["detect8", "detect26", "detectx"] {
        let goldens = root().join("tests/goldens");
        let bytes = read(&goldens.join(format!("{name}.model.safetensors")));
        for options in configurations() {
            check(&load(name, &bytes, &options), &goldens.join(format!("{name}.safetensors")));
        }
    }
}

/// Compares `STEM.pt` with `STEM.safetensors` in every configuration.
fn check_checkpoint(stem: &Path) {
    let bytes = convert(&stem.with_extension("pt"));
    for options in configurations() {
        check(&load(&stem.display().to_string(), &bytes, &options), &stem.with_extension("safetensors"));
    }
}

fn check(model: &Model, golden: &Path) {
    let what = format!("{} on {} with {} threads", golden.display(), model.isa_name(), model.threads());
    let golden = tensors(golden);
    let mut session = model.session();
    let images = &golden["images"];
    let outputs = session.run(images).unwrap_or_else(|error| panic!("{what}: {error}"));
    let output0 = outputs.output0().expect("the one-to-many head");
    compare_output0(&what, output0, &golden["output0"]);
    assert_eq!(outputs.one2one().is_some(), golden.contains_key("one2one"), "{what}");
    if let Some(one2one) = outputs.one2one() {
        compare_one2one(&what, one2one, &golden["one2one"]);
    }
    let alone = (output0.to_tensor(), outputs.one2one().map(|rows| rows.to_tensor()));

    // Wherever it stands in a batch, and whatever stands beside it, the picture gives the same values, to the bit.
    let [_, c, h, w] = images.shape() else { panic!("{what}: expected NCHW") };
    let flipped: Vec<f32> = images.data().iter().rev().copied().collect();
    for place in 0..3 {
        let mut batch: Vec<&[f32]> = vec![&flipped; 3];
        batch[place] = images.data();
        let batch = Tensor::new(vec![3, *c, *h, *w], batch.concat()).expect("three pictures");
        let outputs = session.run(&batch).unwrap_or_else(|error| panic!("{what}: {error}"));
        let part = |got: Option<TensorView<'_>>, want: &Tensor| {
            let len = want.data().len();
            got.is_some_and(|got| got.data.len() == 3 * len && got.data[place * len..][..len] == *want.data())
        };
        assert!(part(outputs.output0(), &alone.0), "{what}: differs at place {place} of a batch");
        if let Some(rows) = &alone.1 {
            assert!(part(outputs.one2one(), rows), "{what}: one-to-one differs at place {place} of a batch");
        }
    }
}

fn compare_output0(what: &str, got: TensorView<'_>, want: &Tensor) {
    assert_eq!(got.shape, want.shape(), "{what}");
    let (channels, anchors) = (got.shape[1], got.shape[2]);
    for (idx, (g, w)) in got.data.iter().zip(want.data()).enumerate() {
        let channel = idx / anchors % channels;
        let tolerance = if channel < 4 { BOX_TOLERANCE_PX } else { SCORE_TOLERANCE };
        let anchor = idx % anchors;
        assert!(
            (g - w).abs() <= tolerance,
            "{what}: channel {channel} of anchor {anchor}: got {g}, expected {w}"
        );
    }
}

/// Rows with equal scores may stand in any order, so each row has to have a counterpart of nearly its score.
fn compare_one2one(what: &str, got: TensorView<'_>, want: &Tensor) {
    assert_eq!(got.shape, want.shape(), "{what}");
    let rows: Vec<&[f32]> = got.data.chunks_exact(6).collect();
    assert!(rows.windows(2).all(|pair| pair[0][4] >= pair[1][4]), "{what}: scores rise");
    let mut free = vec![true; rows.len()];
    let last = want.data()[want.data().len() - 2];
    for want in want.data().chunks_exact(6) {
        let close = |row: &[f32]| {
            row[5] == want[5]
                && (row[4] - want[4]).abs() <= SCORE_TOLERANCE
                && row[..4].iter().zip(want).all(|(g, w)| (g - w).abs() <= BOX_TOLERANCE_PX)
        };
        let found = (0..rows.len()).find(|&idx| free[idx] && close(rows[idx]));
        if let Some(idx) = found {
            free[idx] = false;
        } else {
            // Only where the list was cut may another box of the same score have taken the place.
            assert!((want[4] - last).abs() <= SCORE_TOLERANCE, "{what}: no row like {want:?}");
        }
    }
}
