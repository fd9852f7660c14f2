//! `predict` with networks of every task.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Place, arg};

/// A narrow network with random weights.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/goldens")
        .join(format!("{name}.model.safetensors"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// What is found on one picture, 80 by 60 pixels, and the place with what was saved.
fn predict(name: &str, args: &[&str]) -> (Place, Value) {
    let place = Place::new();
    place.picture("in/a.png", 80, 60);
    let model = golden(name);
    let common = ["predict", "-m", arg(&model), "-s", "in", "--json", "-", "--conf", "0.01"];
    let run = place.run(&[&common, args].concat()).expect(0);
    let object = run.json_lines().remove(0);
    (place, object)
}

fn results(object: &Value) -> &[Value] {
    object["results"].as_array().expect("an array")
}

fn lines(place: &Place) -> Vec<Vec<String>> {
    let labels = std::fs::read_to_string(place.path("out/labels/a.txt")).expect("labels");
    labels.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[test]
fn segmentation_gives_outlines() {
    for args in [&[][..], &["--retina-masks"], &["--head", "one2one"]] {
        let (place, object) =
            predict("segment26", &[&["--save", "out", "--save-txt", "--save-conf"], args].concat());
        assert_eq!(object["task"], "segment");
        let found = results(&object);
        assert!(!found.is_empty(), "{args:?}");
        for found in found {
            assert_eq!(keys(found), ["name", "class", "confidence", "box", "segments"]);
            let [x, y] = ["x", "y"].map(|key| found["segments"][key].as_array().expect("points").len());
            assert!(x == y && x > 0);
        }
        let lines = lines(&place);
        assert_eq!(lines.len(), found.len());
        assert!(lines.iter().all(|line| line.len() >= 4 && line.len() % 2 == 0), "class, points, confidence");
        assert_eq!(place.files("out"), ["a.png", "labels/a.txt"]);
    }
}

#[test]
fn masks_are_saved_as_pictures() {
    for (flag, size) in [(&[][..], None), (&["--retina-masks"], Some((80, 60)))] {
        let (place, object) = predict("segment9", &[&["--save", "out", "--save-masks"], flag].concat());
        let names: Vec<String> =
            place.files("out").into_iter().filter(|name| name.starts_with("masks/")).collect();
        assert!(names.len() == results(&object).len() && !names.is_empty(), "{names:?}");
        let mask = image::open(place.path("out/masks/a_1.png")).expect("a mask");
        let mask = mask.as_luma8().expect("8-bit gray").clone();
        assert!(mask.pixels().any(|pixel| pixel.0 == [255]));
        assert!(size.is_none_or(|size| mask.dimensions() == size));
    }
}

#[test]
fn pose_estimation_gives_keypoints() {
    let (place, object) = predict("pose8", &["--save-txt", "--save", "out"]);
    assert_eq!(object["task"], "pose");
    let found = results(&object);
    assert!(!found.is_empty());
    let n_points = found[0]["keypoints"]["x"].as_array().expect("points").len();
    for found in found {
        assert_eq!(keys(found), ["name", "class", "confidence", "box", "keypoints"]);
        assert_eq!(found["keypoints"]["y"].as_array().map(Vec::len), Some(n_points));
    }
    let n_values = keys(&found[0]["keypoints"]).len();
    assert!(lines(&place).iter().all(|line| line.len() == 5 + n_points * n_values));
}

#[test]
fn rotated_boxes_have_four_corners() {
    let (place, object) = predict("obb26", &["--save-txt", "--save", "out"]);
    assert_eq!(object["task"], "obb");
    assert!(!results(&object).is_empty());
    for found in results(&object) {
        assert_eq!(keys(found), ["name", "class", "confidence", "box"]);
        assert_eq!(keys(&found["box"]), ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"]);
    }
    assert!(lines(&place).iter().all(|line| line.len() == 9));
}

#[test]
fn classification_gives_the_likeliest_classes() {
    let (place, object) = predict("classify", &["--save-txt", "--save", "out"]);
    assert_eq!((&object["task"], &object["shape"]), (&"classify".into(), &serde_json::json!([60, 80])));
    let found = results(&object);
    assert!(!found.is_empty() && found.len() <= 5);
    let confidences: Vec<f64> =
        found.iter().map(|found| found["confidence"].as_f64().expect("a number")).collect();
    assert!(confidences.is_sorted_by(|a, b| a >= b), "{confidences:?}");
    assert!(found.iter().all(|found| keys(found) == ["name", "class", "confidence"]));
    assert_eq!(lines(&place).len(), found.len());
    assert_eq!(lines(&place)[0][1], found[0]["name"].as_str().expect("a name"));
}

#[test]
fn class_maps_are_saved_as_pictures() {
    let (place, object) = predict("semantic26", &["--save", "out"]);
    assert_eq!(object["task"], "semantic");
    assert_eq!(place.files("out"), ["a.png", "classes/a.png"]);
    let map = image::open(place.path("out/classes/a.png")).expect("a map");
    let map = map.as_luma8().expect("8-bit gray").clone();
    assert_eq!(map.dimensions(), (80, 60));
    for found in results(&object) {
        assert_eq!(keys(found), ["name", "class", "pixel_ratio"]);
        let class = found["class"].as_u64().expect("a number") as u8;
        let count = map.pixels().filter(|pixel| pixel.0 == [class]).count();
        let share = found["pixel_ratio"].as_f64().expect("a number");
        assert!((share - count as f64 / 4800.0).abs() < 1e-5, "{found}");
    }
}

#[test]
fn depth_maps_are_saved_as_pictures() {
    let (place, object) = predict("depth26", &["--save", "out"]);
    assert_eq!(keys(&object), ["path", "shape", "task", "speed_ms", "results", "depth"]);
    assert!(results(&object).is_empty());
    assert_eq!(place.files("out"), ["a.png", "depth/a.png"]);
    let map = image::open(place.path("out/depth/a.png")).expect("a map");
    let map = map.as_luma16().expect("16-bit gray").clone();
    let steps = map.pixels().map(|pixel| f64::from(pixel.0[0]));
    let near = steps.clone().fold(f64::INFINITY, f64::min) / 256.0;
    let far = steps.fold(0.0, f64::max) / 256.0;
    let told = |key: &str| object["depth"][key].as_f64().expect("a number");
    assert!((near - told("min")).abs() < 3e-3 && (far - told("max")).abs() < 3e-3, "{near} {far}");
    assert!(told("min") <= told("mean") && told("mean") <= told("max"));
}

#[test]
fn flags_that_make_no_sense_for_the_task_are_refused() {
    let place = Place::new();
    place.picture("a.png", 20, 20);
    for (name, flag) in [
        ("classify", &["--classes", "0"][..]),
        ("classify", &["--max-det", "3"]),
        ("classify", &["--agnostic-nms"]),
        ("classify", &["--multi-label"]),
        ("semantic26", &["--classes", "0"]),
        ("semantic26", &["--max-det", "3"]),
        ("semantic26", &["--agnostic-nms"]),
        ("semantic26", &["--save-crop"]),
        ("depth26", &["--classes", "0"]),
        ("depth26", &["--max-det", "3"]),
        ("depth26", &["--agnostic-nms"]),
        ("depth26", &["--save-crop"]),
        ("detect26", &["--agnostic-nms", "--head", "one2one"]),
        ("semantic26", &["--save-txt"]),
        ("depth26", &["--save-txt"]),
        ("obb26", &["--save-crop"]),
        ("classify", &["--save-crop"]),
        ("pose8", &["--retina-masks"]),
        ("pose8", &["--save-masks"]),
        ("pose8", &["--head", "one2one"]),
    ] {
        let model = golden(name);
        let args = [&["predict", "-m", arg(&model), "-s", "a.png"], flag].concat();
        place.run(&args).expect(2).says(&[flag[0]]);
        assert_eq!(place.files(""), ["a.png"], "{name} {flag:?}");
    }
}

const WITH_OBJECTS: [&str; 6] = ["detect8", "detect26", "segment9", "pose8", "obb12", "obb26"];

#[test]
fn classes_are_chosen_in_every_task_with_objects() {
    for name in WITH_OBJECTS {
        let (_, all) = predict(name, &["--max-det", "10000"]);
        let class = &results(&all)[0]["class"];
        let (_, chosen) = predict(name, &["--max-det", "10000", "--classes", &class.to_string()]);
        let expected: Vec<_> = results(&all).iter().filter(|found| found["class"] == *class).collect();
        assert_eq!(results(&chosen).iter().collect::<Vec<_>>(), expected, "{name}");
        // Several are a union.
        let other = results(&all).iter().map(|found| &found["class"]).find(|other| *other != class);
        let Some(other) = other else { continue };
        let (_, both) = predict(name, &["--max-det", "10000", "--classes", &format!("{class},{other}")]);
        let expected = results(&all).iter().filter(|found| [class, other].contains(&&found["class"]));
        assert_eq!(results(&both).iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_most_confident_are_kept_in_every_task_with_objects() {
    for name in WITH_OBJECTS {
        let (_, all) = predict(name, &[]);
        let n_all = results(&all).len();
        assert!(n_all > 1, "{name}: {n_all}");
        for n in [1, n_all - 1] {
            let (_, most) = predict(name, &["--max-det", &n.to_string()]);
            assert_eq!(results(&most), &results(&all)[..n], "{name}");
        }
    }
}

/// Whether a box lies inside the picture, rather than being cut off at its edges after the suppression.
fn is_whole(found: &Value) -> bool {
    let side = |key: &str| found["box"][key].as_f64().expect("a number");
    side("x1") > 0.0 && side("y1") > 0.0 && side("x2") < 80.0 && side("y2") < 60.0
}

/// How much of both boxes together lies in both.
fn iou(a: &Value, b: &Value) -> f64 {
    let side = |found: &Value, key: &str| found["box"][key].as_f64().expect("a number");
    let overlap = |from: &str, to: &str| {
        let end = side(a, to).min(side(b, to));
        (end - side(a, from).max(side(b, from))).max(0.0)
    };
    let area =
        |found: &Value| (side(found, "x2") - side(found, "x1")) * (side(found, "y2") - side(found, "y1"));
    let both = overlap("x1", "x2") * overlap("y1", "y2");
    both / (area(a) + area(b) - both)
}

#[test]
fn classes_suppress_each_other_when_asked_to() {
    let flags = ["--max-det", "10000", "--iou", "0.3"];
    let mut n_pairs = 0;
    for name in WITH_OBJECTS {
        let (_, each) = predict(name, &flags);
        let (_, agnostic) = predict(name, &[&flags[..], &["--agnostic-nms"]].concat());
        let (each, agnostic) = (results(&each), results(&agnostic));
        assert_eq!(agnostic[0], each[0], "{name}: the best box is suppressed by none");
        assert!(agnostic.len() <= each.len(), "{name}");
        if name.starts_with("obb") {
            continue;
        }
        let overlapping = |found: &[Value]| {
            let found: Vec<_> = found.iter().filter(|found| is_whole(found)).collect();
            let pairs =
                found.iter().enumerate().flat_map(|(idx, a)| found[..idx].iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| iou(a, b) > 0.301).count()
        };
        assert_eq!(overlapping(agnostic), 0, "{name}");
        n_pairs += overlapping(each);
    }
    assert!(n_pairs > 0, "boxes of different classes have to overlap somewhere");
}

#[test]
fn confidences_end_the_lines_of_every_task() {
    for name in WITH_OBJECTS {
        let flags = ["--save", "out", "--save-txt", "--max-det", "5"];
        let (without, object) = predict(name, &flags);
        let (with, _) = predict(name, &[&flags[..], &["--save-conf"]].concat());
        let (without, with) = (lines(&without), lines(&with));
        assert!(!with.is_empty() && with.len() == without.len(), "{name}");
        let confidences: Vec<f64> =
            results(&object).iter().map(|found| found["confidence"].as_f64().expect("a number")).collect();
        for (with, without) in with.iter().zip(&without) {
            assert_eq!(with[..with.len() - 1], without[..], "{name}");
            let told: f64 = with[with.len() - 1].parse().expect("a number");
            assert!(confidences.iter().any(|confidence| (confidence - told).abs() < 2e-5), "{name}: {told}");
        }
    }
    // A classification's lines have it in any case.
    let (plain, _) = predict("classify", &["--save", "out", "--save-txt"]);
    let (asked, _) = predict("classify", &["--save", "out", "--save-txt", "--save-conf"]);
    assert_eq!(lines(&plain), lines(&asked));
}

#[test]
fn crops_are_cut_out_where_there_are_upright_boxes() {
    for name in ["detect8", "segment9", "pose8"] {
        let (place, object) = predict(name, &["--save-crop", "--save", "out", "--max-det", "4"]);
        let n_crops = place.files("out/crops").len();
        assert!(n_crops > 0 && n_crops <= results(&object).len(), "{name}: {n_crops}");
    }
}
