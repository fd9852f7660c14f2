//! Objects that are found on a graphics processor, or the program that stands in for one, against those of the CPU.

use crate::gpu::goldens;
use ferroyolo::results::Masks;
use ferroyolo::{Head, Image, ModelOptions, Precision, PredictOptions, Results, Session};
use ferroyolo_tests::{gpu, load, read, root};

/// Largest difference of a coordinate in pixels of the picture, and of a score, an angle or a visibility. Maps differ in
/// the last bits, and boxes of random weights are large.
const TOLERANCE_PX: f32 = 0.05;
const TOLERANCE: f32 = 2e-4;

/// Of a mask's pixels, as many may differ as one in so many: those where the mask ends.
const PIXELS_PER_DIFFERENCE: usize = 200;

/// Bytes that are read back of a picture with a few objects, whatever its size: here of 320 x 320.
const MOST: u64 = 64 << 10;
const MOST_WITH_MASKS: u64 = 256 << 10;

fn models() -> Vec<(String, Vec<u8>)> {
    let mut all = goldens();
    all.extend(["segment", "pose", "obb", "depth"].map(|name| (name.to_owned(), built_in(name))));
    all
}

fn built_in(name: &str) -> Vec<u8> {
    read(&root().join(format!("crates/cli/assets/{name}.safetensors")))
}

fn sample() -> Image {
    Image::open(root().join("crates/cli/assets/sample.png")).expect("the sample picture")
}

fn near(got: &[f32], want: &[f32], tolerance: f32) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() <= tolerance)
}

/// Holds two results against each other; returns how many objects there are.
fn compare(got: &Results, want: &Results, what: &str) -> usize {
    assert_eq!(got.boxes.cls(), want.boxes.cls(), "{what}");
    assert!(near(got.boxes.conf(), want.boxes.conf(), TOLERANCE), "{what}");
    let (boxes, expected) = (got.boxes.xyxy().as_flattened(), want.boxes.xyxy().as_flattened());
    assert!(near(boxes, expected, TOLERANCE_PX), "{what}: {boxes:?} is not {expected:?}");
    let mut n_objects = got.boxes.len();
    if let (Some(got), Some(want)) = (&got.obb, &want.obb) {
        assert_eq!(got.len(), want.len(), "{what}");
        n_objects += got.len();
        for (got, want) in got.iter().zip(want) {
            assert_eq!(got.class, want.class, "{what}");
            let [x, y, w, h, angle] = want.xywhr;
            assert!(near(&got.xywhr[..4], &[x, y, w, h], TOLERANCE_PX), "{what}: {got:?} is not {want:?}");
            assert!(near(&[got.xywhr[4], got.confidence], &[angle, want.confidence], TOLERANCE), "{what}");
        }
    }
    if let (Some(got), Some(want)) = (&got.keypoints, &want.keypoints) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            assert!(near(&got.xy, &want.xy, TOLERANCE_PX), "{what}: {got:?} is not {want:?}");
            let visible = [got, want].map(|point| point.visible.unwrap_or(2.0));
            assert!(near(&visible[..1], &visible[1..], TOLERANCE), "{what}: {got:?} is not {want:?}");
        }
    }
    if let (Some(got), Some(want)) = (&got.masks, &want.masks) {
        assert_eq!((got.len(), got.shape()), (want.len(), want.shape()), "{what}");
        let [height, width] = want.shape();
        for (got, want) in got.iter().zip(want.iter()) {
            let all = (0..height).flat_map(|y| (0..width).map(move |x| [x, y]));
            let n_different = all.filter(|&[x, y]| got.contains(x, y) != want.contains(x, y)).count();
            let most = 2 + want.area() / PIXELS_PER_DIFFERENCE;
            assert!(n_different <= most, "{what}: {n_different} of {} pixels differ", want.area());
        }
        let coarse = |masks: &Masks| -> Vec<_> {
            let coarse = (0..masks.len()).filter_map(|idx| masks.coarse(idx));
            coarse.map(|(mask, hw)| (mask.area(), hw)).collect()
        };
        let (got, want) = (coarse(got), coarse(want));
        assert_eq!(got.len(), want.len(), "{what}");
        for ((got, got_hw), (want, want_hw)) in got.into_iter().zip(want) {
            assert!(got_hw == want_hw && got.abs_diff(want) <= 2 + want / PIXELS_PER_DIFFERENCE, "{what}");
        }
    }
    n_objects
}

fn sessions(name: &str, bytes: &[u8], on_gpu: &ModelOptions) -> [Session; 2] {
    let on_cpu = ModelOptions { threads: Some(2), ..ModelOptions::default() };
    [on_gpu, &on_cpu].map(|options| load(name, bytes, options).session())
}

#[test]
fn every_task_finds_on_the_gpu_what_it_finds_on_the_cpu() {
    let Some(on_gpu) = gpu("every_task_finds_on_the_gpu_what_it_finds_on_the_cpu", Precision::F32) else {
        return;
    };
    let image = sample();
    // Its upper half, so that pictures of two sizes are in a batch.
    let [height, width] = [image.height() / 2, image.width()];
    let upper = image.pixels()[..height * width * 3].to_vec();
    let part = Image::from_rgb8(width, height, upper).expect("a picture");
    let mut n_objects = 0;
    for (name, bytes) in models() {
        let [mut gpu, mut cpu] = sessions(&name, &bytes, &on_gpu);
        let heads: Vec<Head> = load(&name, &bytes, &on_gpu).heads().to_vec();
        for head in heads {
            let options = PredictOptions { head, max_det: 30, ..PredictOptions::default() };
            let all = [
                options.clone(),
                PredictOptions { retina_masks: true, ..options.clone() },
                PredictOptions { multi_label: true, ..options.clone() },
            ];
            for options in &all {
                let what = format!("{name}: {options:?}");
                let [got, want] = [&mut gpu, &mut cpu]
                    .map(|session| session.predict(&[&part, &image], options).expect("a run"));
                assert_eq!(got.len(), want.len());
                n_objects += got.iter().zip(&want).map(|(g, w)| compare(g, w, &what)).sum::<usize>();
            }
            let [got, want] = [&mut gpu, &mut cpu]
                .map(|session| session.predict_whole(&[&image], &options).expect("a run"));
            n_objects += compare(&got[0], &want[0], &format!("{name}, whole: {options:?}"));
        }
    }
    assert!(n_objects > 1000, "found only {n_objects}");
}

#[test]
fn little_is_read_back() {
    let test = "little_is_read_back";
    for precision in [Precision::F32, Precision::F16] {
        let Some(on_gpu) = gpu(test, precision) else { return };
        for (name, most) in [("demo", MOST), ("pose", MOST), ("obb", MOST), ("segment", MOST_WITH_MASKS)] {
            let mut session = load(name, &built_in(name), &on_gpu).session();
            let options = PredictOptions { imgsz: Some([320; 2]), rect: false, ..PredictOptions::default() };
            session.predict(&[&sample()], &options).expect("a run");
            let n_bytes = session.traffic().expect("a run on a GPU").read_back;
            eprintln!("{name} {precision:?}: {n_bytes} bytes");
            assert!((1..=most).contains(&n_bytes), "{name} {precision:?}: {n_bytes} bytes");
        }
    }
}

/// Masks of one batch are made while the next ones compute.
#[test]
fn masks_are_those_of_their_own_batch() {
    let Some(on_gpu) = gpu("masks_are_those_of_their_own_batch", Precision::F32) else { return };
    let mut session = load("segment", &built_in("segment"), &on_gpu).session();
    let sample = sample();
    let [height, width] = sample.shape();
    let turned: Vec<u8> = sample.pixels().as_chunks::<3>().0.iter().rev().flatten().copied().collect();
    let grey = vec![114; height * width * 3];
    let others = [turned, grey].map(|pixels| Image::from_rgb8(width, height, pixels).expect("a picture"));
    let [turned, grey] = &others;
    let images = [&sample, turned, grey];
    let options = PredictOptions::default();
    let alone = images.map(|image| session.predict(&[image], &options).expect("a run").remove(0));
    assert!(!alone[0].boxes.is_empty() && alone[0].boxes.xyxy() != alone[1].boxes.xyxy());
    for image in images.iter().cycle().take(7) {
        session.enqueue(&[image], &options).expect("room");
    }
    for want in alone.iter().cycle().take(7) {
        let got = session.dequeue().expect("a batch").expect("a run").remove(0);
        assert_eq!(got.boxes.xyxy(), want.boxes.xyxy());
        let [got, want] = [&got, want].map(|results| {
            let masks = results.masks.as_ref().expect("masks");
            masks.iter().map(|mask| (mask.origin(), mask.pixels().to_vec())).collect::<Vec<_>>()
        });
        assert_eq!(got, want);
    }
    assert!(session.dequeue().is_none());
}
