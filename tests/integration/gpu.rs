//! Networks on a graphics processor, or the program that stands in for one, against PyTorch and against the CPU.

use std::path::PathBuf;
use std::thread;

use ferroyolo::{
    Device, ErrorKind, Image, Model, ModelOptions, Precision, PredictOptions, Results, adapters, automatic,
};
use ferroyolo_tests::{agreement, convert, demo_bytes, gpu, load, read, root, shared, tensors};

/// Largest differences of 16-bit floats from PyTorch's 32 bits on the small networks in `tests/goldens`: in pixels, of
/// scores, of other values. Random weights make the sizes of boxes large, YOLOX takes the exponential of them.
const F16_TOLERANCES: [f32; 3] = [10.0, 0.03, 0.25];

/// All small networks with recorded outputs, by name.
pub(crate) fn goldens() -> Vec<(String, Vec<u8>)> {
    let folder = root().join("tests/goldens");
    let entries =
        std::fs::read_dir(&folder).expect("the goldens").map(|entry| entry.expect("an entry").path());
    let models: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().ends_with(".model.safetensors")).collect();
    assert!(models.len() >= 13, "found only {} goldens", models.len());
    let name = |path: &PathBuf| {
        path.file_name().expect("a name").to_string_lossy().replace(".model.safetensors", "")
    };
    let mut all: Vec<_> = models.iter().map(|path| (name(path), read(path))).collect();
    all.push(("demo".into(), demo_bytes()));
    all
}

#[test]
fn narrow_networks_agree_with_pytorch_on_the_gpu() {
    let Some(options) = gpu("narrow_networks_agree_with_pytorch_on_the_gpu", Precision::F32) else { return };
    for (name, bytes) in goldens() {
        let model = load(&name, &bytes, &options);
        let golden = tensors(&root().join(format!("tests/goldens/{name}.safetensors")));
        let differences = agreement(&model, &golden);
        assert!(differences.is_close(), "{name}: {differences}");
    }
}

#[test]
fn narrow_networks_are_near_pytorch_with_half_precision() {
    let Some(options) = gpu("narrow_networks_are_near_pytorch_with_half_precision", Precision::F16) else {
        return;
    };
    let [pixels, scores, others] = F16_TOLERANCES;
    for (name, bytes) in goldens() {
        let model = load(&name, &bytes, &options);
        let golden = tensors(&root().join(format!("tests/goldens/{name}.safetensors")));
        let differences = agreement(&model, &golden);
        let is_near = differences.pixels.is_none_or(|got| got <= pixels)
            && differences.scores.is_none_or(|got| got <= scores)
            && differences.others.is_none_or(|got| got <= others);
        eprintln!("{name}: {differences}");
        assert!(is_near, "{name}: {differences}");
    }
}

#[test]
fn reference_networks_agree_with_pytorch_on_the_gpu() {
    let test = "reference_networks_agree_with_pytorch_on_the_gpu";
    let (Some(shared), Some(options)) = (shared(test), gpu(test, Precision::F32)) else { return };
    for name in ["yolov8", "yolov10n", "yolo11", "yolo11-seg", "yolo12", "yolo26-pose"] {
        let stem = shared.join("reference/checkpoints").join(name);
        let model = load(name, &convert(&stem.with_extension("pt")), &options);
        let differences = agreement(&model, &tensors(&stem.with_extension("safetensors")));
        assert!(differences.is_close(), "{name}: {differences}");
    }
}

/// Launching is what small networks wait for.
#[test]
fn branches_of_a_head_go_together() {
    let test = "branches_of_a_head_go_together";
    let (Some(shared), Some(options)) = (shared(test), gpu(test, Precision::F32)) else { return };
    for (name, most) in [("yolov8n-released", 60), ("yolo11n-released", 75)] {
        let model = load(name, &convert(&shared.join("released").join(format!("{name}.pt"))), &options);
        let mut session = model.session();
        assert_eq!(session.dispatches(), None);
        let image = Image::open(root().join("crates/cli/assets/sample.png")).expect("the sample picture");
        session.predict(&[&image], &PredictOptions::default()).expect("a run");
        let dispatches = session.dispatches().expect("a run on a GPU");
        eprintln!("{name}: {dispatches} dispatches");
        assert!(dispatches <= most, "{name}: {dispatches} dispatches, expected at most {most}");
    }
}

#[test]
fn threads_share_a_device() {
    let Some(options) = gpu("threads_share_a_device", Precision::F32) else { return };
    let model = load("demo", &demo_bytes(), &options);
    let image = Image::open(root().join("crates/cli/assets/sample.png")).expect("the sample picture");
    // Small, and as unsure as it has to be then.
    let of_size = |imgsz| PredictOptions { imgsz: Some(imgsz), conf: 0.01, ..PredictOptions::default() };
    let find = |model: &Model| {
        let results = model.predict(&image, &of_size([128, 128])).expect("a run");
        results.to_json()["results"].to_string()
    };
    let alone = find(&model);
    assert!(alone.contains("confidence"), "nothing was found: {alone}");
    for n_threads in 1..=8 {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(|| find(&model))).collect();
            // Another one makes a plan that nobody has made, and at last opens the device once more.
            let planner = scope.spawn(|| {
                model.predict(&image, &of_size([64, 32 * n_threads])).expect("a run of another shape");
                if n_threads == 8 {
                    assert_eq!(find(&load("demo", &demo_bytes(), &options)), alone);
                }
            });
            for thread in threads {
                assert_eq!(thread.join().expect("no panic"), alone);
            }
            planner.join().expect("no panic");
        });
    }
}

/// Pictures of several sizes: parts of the sample.
fn parts() -> Vec<Image> {
    let sample = Image::open(root().join("crates/cli/assets/sample.png")).expect("the sample picture");
    let part = |[height, width]: [usize; 2]| {
        let rows = sample.pixels().chunks_exact(3 * sample.width()).take(height);
        let pixels = rows.flat_map(|row| &row[..3 * width]).copied().collect();
        Image::from_rgb8(width, height, pixels).expect("a part")
    };
    let [h, w] = sample.shape();
    let sizes = [[h, w], [h / 2, w], [h, w / 3], [h / 2, w], [h - 7, w - 5], [33, 40], [h, w]];
    sizes.into_iter().map(part).collect()
}

fn found(results: &Results) -> String {
    results.to_json()["results"].to_string()
}

#[test]
fn batches_on_their_way_give_what_single_runs_give() {
    let test = "batches_on_their_way_give_what_single_runs_give";
    let processors = [Some(ModelOptions::default()), gpu(test, Precision::F32)];
    let images = parts();
    for options in processors.into_iter().flatten() {
        let model = load("demo", &demo_bytes(), &options);
        // Programs that stand in for a GPU are slow.
        let wanted = PredictOptions { imgsz: Some([128, 128]), ..PredictOptions::default() };
        let alone: Vec<String> =
            images.iter().map(|image| found(&model.predict(image, &wanted).expect("a run"))).collect();
        assert!(alone[0].contains("confidence"), "nothing was found");

        let mut session = model.session();
        assert!(session.dequeue().is_none());
        for image in &images {
            session.enqueue(&[image], &wanted).expect("a start");
        }
        // A run in between has nothing to do with those on their way.
        let between = session.predict(&[&images[0]], &wanted).expect("a run");
        assert_eq!(found(&between[0]), alone[0]);
        let bad = PredictOptions { conf: 7.0, ..wanted.clone() };
        assert_eq!(session.enqueue(&[&images[0]], &bad).unwrap_err().kind(), ErrorKind::Argument);
        for want in &alone {
            let results = session.dequeue().expect("a batch").expect("results");
            assert_eq!(results.iter().map(found).collect::<Vec<_>>(), [want.as_str()]);
        }
        assert!(session.dequeue().is_none());

        // Pictures of a batch don't see each other.
        let square = PredictOptions { rect: false, ..wanted };
        let single = |image: &Image| found(&model.predict(image, &square).expect("a run"));
        for n in [2, 3, images.len()] {
            let batch: Vec<&Image> = images.iter().take(n).collect();
            session.enqueue(&batch, &square).expect("a start");
            session.enqueue(&batch[1..], &square).expect("a start");
            for batch in [&batch[..], &batch[1..]] {
                let results = session.dequeue().expect("a batch").expect("results");
                assert!(
                    results.iter().map(found).eq(batch.iter().map(|image| single(image))),
                    "batch of {n}"
                );
            }
        }
    }
}

#[test]
fn adapters_that_are_not_there_are_told() {
    let options = ModelOptions { device: Device::Gpu(Some(adapters().len())), ..ModelOptions::default() };
    let error = Model::from_bytes("demo", &demo_bytes(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("there is no adapter"), "{error}");
}

#[test]
fn auto_is_a_real_device_or_the_cpu() {
    let model = load("demo", &demo_bytes(), &ModelOptions::default());
    let all = adapters();
    let real = automatic(&all).ok();
    match model.adapter() {
        Some(adapter) => {
            assert_eq!(Some(adapter), real);
            assert_eq!(model.device(), Device::Gpu(Some(adapter.index)));
            assert!(model.device_name().contains(&adapter.name), "{}", model.device_name());
        }
        None => {
            // A device that is there and was not taken has to say why.
            assert_eq!(model.fallback().is_some(), real.is_some());
            assert_eq!(model.device(), Device::Cpu);
            assert_eq!(model.device_name(), format!("CPU ({})", model.isa_name()));
        }
    }
    let half = ModelOptions { precision: Precision::F16, ..ModelOptions::default() };
    match Model::from_bytes("demo", &demo_bytes(), &half) {
        Ok(model) => assert!(model.adapter().expect("a GPU").is_usable_gpu()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("f16 is for GPUs"), "{error}");
        }
    }
}

#[test]
fn a_program_is_never_taken_for_a_graphics_processor() {
    let options = ModelOptions { device: Device::Gpu(None), ..ModelOptions::default() };
    match Model::from_bytes("demo", &demo_bytes(), &options) {
        Ok(model) => assert!(!model.adapter().expect("a GPU").is_software),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Device),
    }
}
