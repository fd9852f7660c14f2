//! Raw outputs against PyTorch's.

use std::path::{Path, PathBuf};

use ferroyolo::{Model, Outputs, Task, Tensor, TensorView};
use ferroyolo_tests::{agreement, configurations, convert, load, read, root, shared, tensors};

/// Networks that `reference/checkpoints` holds at least.
const MIN_REFERENCE: usize = 31;

/// Networks that `tests/goldens` holds at least: together they have every block and every head.
const MIN_GOLDENS: usize = 13;

/// The networks that ship with the command line, and their goldens.
const BUILT_IN: [(Task, &str, &str); 7] = [
    (Task::Detect, "demo.safetensors", "demo.safetensors"),
    (Task::Segment, "segment.safetensors", "demo-segment.safetensors"),
    (Task::Pose, "pose.safetensors", "demo-pose.safetensors"),
    (Task::Obb, "obb.safetensors", "demo-obb.safetensors"),
    (Task::Classify, "classify.safetensors", "demo-classify.safetensors"),
    (Task::Semantic, "semantic.safetensors", "demo-semantic.safetensors"),
    (Task::Depth, "depth.safetensors", "demo-depth.safetensors"),
];

const RELEASED: [&str; 2] = ["yolov8n-released", "yolo11n-released"];

#[test]
fn reference_networks_agree_with_pytorch() {
    let Some(shared) = shared("reference_networks_agree_with_pytorch") else { return };
    let folder = shared.join("reference/checkpoints");
    let entries = std::fs::read_dir(&folder).expect("the folder of checkpoints");
    let paths = entries.map(|entry| entry.expect("an entry of a folder").path());
    let mut checkpoints: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "pt")).collect();
    checkpoints.sort();
    assert!(checkpoints.len() >= MIN_REFERENCE, "found only {} networks", checkpoints.len());
    checkpoints.iter().for_each(|path| check_checkpoint(path));
}

#[test]
fn released_pickles_agree_with_pytorch() {
    let Some(shared) = shared("released_pickles_agree_with_pytorch") else { return };
    for name in RELEASED {
        check_checkpoint(&shared.join("released").join(name));
    }
}

#[test]
fn built_in_networks_agree_with_pytorch() {
    for (task, model, golden) in BUILT_IN {
        let bytes = read(&root().join("crates/cli/assets").join(model));
        for options in configurations() {
            let model = load(model, &bytes, &options);
            let golden = root().join("tests/goldens").join(golden);
            assert_eq!(model.task(), task);
            check(&model, &golden);
            check_batches(&model, &golden);
        }
    }
}

#[test]
fn narrow_networks_agree_with_pytorch() {
    let goldens = root().join("tests/goldens");
    let entries =
        std::fs::read_dir(&goldens).expect("the goldens").map(|entry| entry.expect("an entry").path());
    let models: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().ends_with(".model.safetensors")).collect();
    assert!(models.len() >= MIN_GOLDENS, "found only {} goldens", models.len());
    for path in models {
        let name = path.file_name().expect("a name").to_string_lossy().replace(".model.safetensors", "");
        let bytes = read(&path);
        for options in configurations() {
            let (model, golden) =
                (load(&name, &bytes, &options), goldens.join(format!("{name}.safetensors")));
            check(&model, &golden);
            check_batches(&model, &golden);
        }
    }
}

/// Compares `STEM.pt` with `STEM.safetensors` in every configuration, in batches with the best one only: how batches
/// are cut does not depend on the network, and plain code takes its time.
fn check_checkpoint(stem: &Path) {
    let bytes = convert(&stem.with_extension("pt"));
    let golden = stem.with_extension("safetensors");
    for (idx, options) in configurations().enumerate() {
        let model = load(&stem.display().to_string(), &bytes, &options);
        check(&model, &golden);
        if idx == 0 {
            check_batches(&model, &golden);
        }
    }
}

fn check(model: &Model, golden: &Path) {
    let what = format!("{} on {} with {} threads", golden.display(), model.isa_name(), model.threads());
    let golden = tensors(golden);
    let differences = agreement(model, &golden);
    assert!(differences.is_close(), "{what}: {differences}");
}

/// Wherever it stands in a batch, and whatever stands beside it, a picture gives the same values, to the bit.
fn check_batches(model: &Model, golden: &Path) {
    let what = format!("{} on {} with {} threads", golden.display(), model.isa_name(), model.threads());
    let golden = tensors(golden);
    let mut session = model.session();
    let images = &golden["images"];
    let alone = owned(session.run(images).unwrap_or_else(|error| panic!("{what}: {error}")));
    let [_, c, h, w] = images.shape() else { panic!("{what}: expected NCHW") };
    let flipped: Vec<f32> = images.data().iter().rev().copied().collect();
    for place in 0..3 {
        let mut batch: Vec<&[f32]> = vec![&flipped; 3];
        batch[place] = images.data();
        let batch = Tensor::new(vec![3, *c, *h, *w], batch.concat()).expect("three pictures");
        let together = owned(session.run(&batch).unwrap_or_else(|error| panic!("{what}: {error}")));
        for (alone, together) in alone.iter().zip(&together) {
            let Some(alone) = alone else { continue };
            let len = alone.data().len();
            let same = together.as_ref().is_some_and(|all| {
                all.data().len() == 3 * len && all.data()[place * len..][..len] == *alone.data()
            });
            assert!(same, "{what}: {:?} differs at place {place} of a batch", alone.shape());
        }
    }
}

fn owned(outputs: Outputs<'_>) -> [Option<Tensor>; 3] {
    let all = [outputs.output0(), outputs.one2one(), outputs.proto()];
    all.map(|output: Option<TensorView<'_>>| output.map(|view| view.to_tensor()))
}
