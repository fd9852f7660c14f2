//! From pictures to results, for every task: which parts there are, and that odd pictures and broken networks are met.

use ferroyolo::results::RotatedBoxes;
use ferroyolo::{ErrorKind, Head, Image, Model, ModelOptions, PredictOptions, Results, Task};
use ferroyolo_tests::{convert, load, read, root, shared};

/// Narrow networks of `tests/goldens` and their tasks.
const GOLDENS: [(&str, Task); 11] = [
    ("detect8", Task::Detect),
    ("detect26", Task::Detect),
    ("segment9", Task::Segment),
    ("segment26", Task::Segment),
    ("pose8", Task::Pose),
    ("pose26", Task::Pose),
    ("obb12", Task::Obb),
    ("obb26", Task::Obb),
    ("classify", Task::Classify),
    ("semantic26", Task::Semantic),
    ("depth26", Task::Depth),
];

const REFERENCE: [(&str, Task); 8] = [
    ("yolov8-seg", Task::Segment),
    ("yolo26-seg", Task::Segment),
    ("yolov8-pose", Task::Pose),
    ("yolo26-obb", Task::Obb),
    ("yolo11-obb", Task::Obb),
    ("yolov8-cls", Task::Classify),
    ("yolo26-sem", Task::Semantic),
    ("yolo26-depth", Task::Depth),
];

fn golden_bytes(name: &str) -> Vec<u8> {
    read(&root().join(format!("tests/goldens/{name}.model.safetensors")))
}

fn golden(name: &str) -> Model {
    load(name, &golden_bytes(name), &ModelOptions { threads: Some(2), ..ModelOptions::default() })
}

/// A picture with smooth and rough parts.
fn picture(width: usize, height: usize) -> Image {
    let sample = |idx: usize| {
        let (x, y, channel) = (idx / 3 % width, idx / 3 / width, idx % 3);
        let rough = (x * 7919 + y * 104_729 + channel * 31).wrapping_mul(2_654_435_761) >> 13;
        if (x / 16 + y / 16) % 2 == 0 { rough as u8 } else { (x * 5 + y * 3 + channel * 80) as u8 }
    };
    Image::from_rgb8(width, height, (0..width * height * 3).map(sample).collect()).expect("a picture")
}

fn predict(model: &Model, image: &Image, options: &PredictOptions) -> Results {
    model.predict(image, options).unwrap_or_else(|error| panic!("{} {image:?}: {error}", model.task()))
}

/// Holds results to what their task promises.
fn check(results: &Results, image: &Image, what: &str) {
    let [height, width] = image.shape();
    let task = results.task;
    let is = |tasks: &[Task]| tasks.contains(&task);
    assert_eq!(results.orig_shape, image.shape(), "{what}");
    assert!(is(&[Task::Detect, Task::Segment, Task::Pose]) || results.boxes.is_empty(), "{what}");
    assert_eq!(results.masks.is_some(), is(&[Task::Segment]), "{what}");
    assert_eq!(results.keypoints.is_some(), is(&[Task::Pose]), "{what}");
    assert_eq!(results.obb.is_some(), is(&[Task::Obb]), "{what}");
    assert_eq!(results.probs.is_some(), is(&[Task::Classify]), "{what}");
    assert_eq!(results.class_map.is_some(), is(&[Task::Semantic]), "{what}");
    assert_eq!(results.depth.is_some(), is(&[Task::Depth]), "{what}");

    let inside = |[x, y]: [f32; 2]| (0.0..=width as f32).contains(&x) && (0.0..=height as f32).contains(&y);
    for found in results.boxes.iter() {
        let [x1, y1, x2, y2] = found.xyxy;
        assert!(inside([x1, y1]) && inside([x2, y2]), "{what}: {found:?}");
    }
    let n_boxes = results.boxes.len();
    if let Some(masks) = &results.masks {
        assert_eq!(masks.len(), n_boxes, "{what}");
        assert!(masks.iter().all(|mask| mask.area() > 0), "{what}: an empty mask");
        assert!(masks.xy().iter().all(|outline| !outline.is_empty()), "{what}");
        assert!(masks.xy().into_iter().flatten().all(inside), "{what}");
    }
    if let Some(keypoints) = &results.keypoints {
        assert_eq!(keypoints.len(), n_boxes, "{what}");
        assert!(keypoints.xy().into_iter().flatten().all(inside), "{what}");
    }
    for found in results.obb.iter().flatten() {
        assert!(found.xywhr.iter().all(|value| value.is_finite()), "{what}: {found:?}");
        assert!((0.0..=std::f32::consts::FRAC_PI_2).contains(&found.regular()[4]), "{what}: {found:?}");
    }
    if let Some(probs) = &results.probs {
        assert!((probs.values().iter().sum::<f32>() - 1.0).abs() < 1e-4, "{what}");
        assert_eq!(probs.values().len(), results.names.len(), "{what}");
    }
    if let Some(map) = &results.class_map {
        assert_eq!(map.shape(), image.shape(), "{what}");
        assert_eq!(map.counts().iter().map(|(_, n)| n).sum::<usize>(), height * width, "{what}");
        assert!(map.counts().iter().all(|(class, _)| *class < results.names.len().max(2)), "{what}");
    }
    if let Some(map) = &results.depth {
        assert!(map.shape() == image.shape() && map.meters().iter().all(|value| value.is_finite()), "{what}");
    }
    let n_records = results.to_json()["results"].as_array().map_or(0, Vec::len);
    let n_expected = match task {
        Task::Obb => results.obb.as_ref().map_or(0, RotatedBoxes::len),
        Task::Classify => results.names.len().min(5),
        Task::Semantic => results.class_map.as_ref().map_or(0, |map| map.counts().len()),
        Task::Depth => 0,
        _ => n_boxes,
    };
    assert_eq!(n_records, n_expected, "{what}");
    assert!(!results.verbose().is_empty(), "{what}");
}

#[test]
fn every_task_has_its_parts_whatever_the_picture() {
    for (name, task) in GOLDENS {
        let model = golden(name);
        assert_eq!(model.task(), task, "{name}");
        for &head in model.heads() {
            for (width, height) in [(1, 1), (20_000, 3), (3, 20_000), (53, 37), (200, 160)] {
                let image = picture(width, height);
                let options = PredictOptions { head, conf: 0.01, max_det: 40, ..PredictOptions::default() };
                let results = predict(&model, &image, &options);
                check(&results, &image, &format!("{name}, {head:?}, {width}x{height}"));
                assert_eq!(results.plot(&image).shape(), image.shape());
            }
        }
    }
}

#[test]
fn inputs_beyond_all_measure_are_refused() {
    for (name, _) in GOLDENS {
        let model = golden(name);
        for imgsz in [[usize::MAX; 2], [1 << 40, 1 << 40], [64, 1 << 30]] {
            let options = PredictOptions { imgsz: Some(imgsz), ..PredictOptions::default() };
            let error = model.predict(&picture(9, 5), &options).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Shape, "{name}: {error}");
        }
    }
}

#[test]
fn reference_networks_find_things_in_photographs() {
    let Some(shared) = shared("reference_networks_find_things_in_photographs") else { return };
    let image = Image::open(shared.join("coco64/images/000000000009.jpg")).expect("a photograph");
    for (name, task) in REFERENCE {
        let bytes = convert(&shared.join(format!("reference/checkpoints/{name}.pt")));
        let model = load(name, &bytes, &ModelOptions::default());
        assert_eq!(model.task(), task, "{name}");
        let options = PredictOptions { conf: 0.01, ..PredictOptions::default() };
        let results = predict(&model, &image, &options);
        check(&results, &image, name);
        let n_found = results.boxes.len() + results.obb.as_ref().map_or(0, RotatedBoxes::len);
        assert!(n_found > 0 || !matches!(task, Task::Segment | Task::Pose | Task::Obb), "{name}");
    }
}

#[test]
fn results_do_not_depend_on_threads_or_batch() {
    let pictures = [picture(64, 48), picture(64, 48), picture(48, 64)];
    for (name, _) in GOLDENS {
        let bytes = golden_bytes(name);
        let with_threads =
            |threads| load(name, &bytes, &ModelOptions { threads: Some(threads), ..ModelOptions::default() });
        let options = PredictOptions { conf: 0.01, rect: false, ..PredictOptions::default() };
        let parts = |results: Vec<Results>| -> Vec<Results> {
            results.into_iter().map(|found| found.with_speed(ferroyolo::results::Speed::default())).collect()
        };
        let one = with_threads(1);
        let serial: Vec<Results> = pictures.iter().map(|picture| predict(&one, picture, &options)).collect();
        let serial = parts(serial);
        let batch = with_threads(3).predict_batch(&pictures.each_ref(), &options).expect("a batch");
        assert!(parts(batch) == serial, "{name}");
    }
}

#[test]
fn masks_come_in_two_sizes() {
    let model = golden("segment26");
    let image = picture(75, 50);
    let options = PredictOptions { conf: 0.01, ..PredictOptions::default() };
    let input = predict(&model, &image, &options);
    let masks = input.masks.as_ref().expect("masks");
    assert_eq!(masks.shape(), input.input_shape);
    let retina = predict(&model, &image, &PredictOptions { retina_masks: true, ..options });
    let masks = retina.masks.as_ref().expect("masks");
    assert_eq!(masks.shape(), image.shape());
    check(&retina, &image, "retina masks");
    assert!(!masks.is_empty());
}

#[test]
fn classes_can_be_chosen_only_of_objects() {
    for (name, task) in GOLDENS {
        let model = golden(name);
        let last = model.n_classes() - 1;
        let options = PredictOptions { classes: Some(vec![last]), conf: 0.001, ..PredictOptions::default() };
        let got = model.predict(&picture(64, 64), &options);
        match task {
            Task::Classify | Task::Semantic | Task::Depth => {
                assert_eq!(got.expect_err(name).kind(), ErrorKind::Argument, "{name}");
            }
            _ => {
                let results = got.expect(name);
                let of_obb = results.obb.iter().flatten().map(|found| found.class);
                assert!(
                    results.boxes.cls().iter().copied().chain(of_obb).all(|class| class == last),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn one_to_one_heads_are_only_where_they_are() {
    let options = PredictOptions { head: Head::OneToOne, ..PredictOptions::default() };
    for name in ["segment9", "pose8", "obb12", "classify", "semantic26", "depth26"] {
        let error = golden(name).predict(&picture(64, 64), &options).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
    }
}

/// The file with the factors of all its convolutions so large that what comes out is not a number.
fn broken(name: &str) -> Vec<u8> {
    let mut bytes = golden_bytes(name);
    let (header_len, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let start = 8 + u64::from_le_bytes(*header_len) as usize;
    let header: serde_json::Value = serde_json::from_slice(&rest[..start - 8]).expect("a header");
    for (tensor, entry) in header.as_object().expect("tensors") {
        if !tensor.ends_with(".scale") {
            continue;
        }
        let [from, to] = [0, 1].map(|idx| entry["data_offsets"][idx].as_u64().expect("a number") as usize);
        for value in bytes[start + from..start + to].as_chunks_mut::<4>().0 {
            *value = 1e30f32.to_le_bytes();
        }
    }
    bytes
}

#[test]
fn what_is_not_a_number_is_no_result() {
    for (name, task) in GOLDENS {
        let model = load(name, &broken(name), &ModelOptions::default());
        for &head in model.heads() {
            let options = PredictOptions { head, conf: 0.0, ..PredictOptions::default() };
            let got = model.predict(&picture(64, 64), &options);
            match task {
                Task::Classify | Task::Semantic | Task::Depth => {
                    let error = got.expect_err(name);
                    assert_eq!(error.kind(), ErrorKind::Weights, "{name}: {error}");
                    assert!(error.to_string().contains("expected finite numbers"), "{name}: {error}");
                }
                _ => {
                    let results = got.unwrap_or_else(|error| panic!("{name}: {error}"));
                    check(&results, &picture(64, 64), name);
                }
            }
        }
    }
}
