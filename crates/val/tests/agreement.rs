//! The metrics agree with pycocotools, on labels and detections made up by `coco/make.py`.

use ferroyolo_val::geometry::{Mask, area, box_iou, oks, oks_of_box, sigmas};
use ferroyolo_val::metrics::{Evaluation, Found, Labelled, N_THRESHOLDS, match_picture};
use serde_json::Value;

/// Largest difference of an average precision from pycocotools'.
const TOLERANCE: f64 = 1e-9;

fn made() -> Value {
    serde_json::from_str(include_str!("coco/coco.json")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|value| value.as_f64().expect("a number")).collect()
}

fn xyxy(instance: &Value) -> [f64; 4] {
    let [x, y, w, h] = numbers(&instance["box"])[..] else { panic!("four numbers") };
    [x, y, x + w, y + h]
}

fn points(instance: &Value) -> Vec<[f64; 2]> {
    let points = instance["points"].as_array().expect("points").iter().map(numbers);
    points.map(|point| [point[0], point[1]]).collect()
}

fn class(instance: &Value) -> usize {
    instance["class"].as_u64().expect("a class") as usize
}

/// The mask whose run lengths are given, and which must give the same ones back.
fn mask(instance: &Value, size: usize) -> Mask {
    let runs: Vec<usize> = numbers(&instance["runs"]).into_iter().map(|run| run as usize).collect();
    let columns: Vec<bool> =
        runs.iter().enumerate().flat_map(|(idx, &run)| std::iter::repeat_n(idx % 2 == 1, run)).collect();
    let rows: Vec<bool> = (0..size * size).map(|at| columns[at % size * size + at / size]).collect();
    let mask = Mask::from_values([size, size], &rows, |inside| *inside);
    assert_eq!(mask.run_lengths(), runs);
    mask
}

/// The keypoints of a label, where they are visible.
fn labelled_points(truth: &Value) -> Vec<Option<[f64; 2]>> {
    let visible = truth["visible"].as_array().expect("flags").iter().map(|flag| flag.as_bool() == Some(true));
    points(truth).into_iter().zip(visible).map(|(xy, on)| on.then_some(xy)).collect()
}

/// Compares the average precisions of all classes and overlaps, with `overlap` of a detection and a label, and with
/// labels of which some are ignored.
fn check(kind: &str, is_ignored: impl Fn(&Value) -> bool, overlap: impl Fn(&Value, &Value) -> f64) {
    let made = made();
    let mut evaluation = Evaluation::default();
    for picture in made["pictures"].as_array().expect("pictures") {
        let (truth, found) = (&picture["truth"], &picture["found"]);
        let (truth, found) = (truth.as_array().expect("labels"), found.as_array().expect("detections"));
        let labelled: Vec<_> = truth
            .iter()
            .map(|label| Labelled { class: class(label), is_ignored: is_ignored(label) })
            .collect();
        let detections: Vec<_> = found
            .iter()
            .map(|one| Found {
                class: class(one),
                confidence: one["conf"].as_f64().expect("a number") as f32,
            })
            .collect();
        let matches = match_picture(&detections, &labelled, |a, b| overlap(&found[a], &truth[b]));
        evaluation.add(&matches, &labelled);
    }
    let metrics = evaluation.finish();
    let expected = made["expected"][kind].as_array().expect("classes");
    assert_eq!(metrics.classes.len(), expected.len());
    for (class, expected) in metrics.classes.iter().zip(expected) {
        let expected = numbers(expected);
        assert_eq!(expected.len(), N_THRESHOLDS);
        for (got, expected) in class.ap.0.iter().zip(&expected) {
            assert!(
                (got - expected).abs() < TOLERANCE,
                "{kind}: class {}: {got}, expected {expected}",
                class.class
            );
        }
    }
}

#[test]
fn boxes() {
    check("bbox", |_| false, |found, truth| box_iou(xyxy(found), xyxy(truth)));
}

#[test]
fn masks() {
    let size = made()["size"].as_u64().expect("a number") as usize;
    check("segm", |_| false, |found, truth| mask(truth, size).iou(&mask(found, size)));
}

#[test]
fn poses() {
    let sigmas = sigmas(17);
    let has_none = |truth: &Value| labelled_points(truth).iter().all(Option::is_none);
    check("keypoints", has_none, |found, truth| {
        if has_none(truth) {
            return oks_of_box(xyxy(truth), &points(found), &sigmas);
        }
        oks(&labelled_points(truth), &points(found), area(xyxy(truth)), &sigmas)
    });
}
