//! `val` of networks for every task but detection, on labels made of what they find themselves.
//!
//! The networks are narrow and random, so what they find is no use; but it is right by its own labels, and wrong by
//! those of the mirrored picture.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::number;
use crate::support::{Place, arg, workspace};

/// Size of the pictures, which is that of the networks' input: nothing is scaled, and nothing is cut off.
const SIZE: (u32, u32) = (96, 64);

fn golden(name: &str) -> PathBuf {
    workspace(&format!("tests/goldens/{name}.model.safetensors"))
}

fn place() -> Place {
    let place = Place::new();
    place.picture("images/a.png", SIZE.0, SIZE.1);
    let mirrored =
        image::imageops::flip_horizontal(&image::open(place.path("images/a.png")).expect("a picture"));
    mirrored.save(place.path("images/b.png")).expect("a file");
    place
}

fn val(place: &Place, model: &str, args: &[&str], code: i32) -> Value {
    let model = golden(model);
    let common = ["val", "-m", arg(&model), "-d", "data.yaml", "--json", "-"];
    place.run(&[&common, args].concat()).expect(code).json_lines().remove(0)
}

/// Mean average precision by two sets of rules.
#[derive(Debug)]
struct Means {
    coco: f64,
    ultralytics: f64,
}

#[track_caller]
fn check([own, mirrored]: [Means; 2], least: f64) {
    let is_right = |own: f64, mirrored: f64, least: f64| own > least && mirrored < own / 2.0;
    // Many boxes of random networks reach out of the picture, which Ultralytics holds against them.
    let all =
        is_right(own.coco, mirrored.coco, least) && is_right(own.ultralytics, mirrored.ultralytics, 0.03);
    assert!(all, "own labels {own:?}, mirrored {mirrored:?}");
}

/// Saves what the network finds in the pictures as `found/labels`.
fn find(place: &Place, model: &str) {
    let path = golden(model);
    let predict = ["predict", "-m", arg(&path), "-s", "images", "--save", "found", "--save-txt", "-q"];
    let predict =
        [&predict[..], &["--conf", "0.3", "--iou", "0.3", "--max-det", "60", "--multi-label"]].concat();
    place.run(&predict).expect(0);
}

/// Labels of what the network finds in the pictures, and the means of `what` by them and by their mirror images.
///
/// `dims` are the values of a keypoint, of which the first one is an x, as are all even ones of what is no keypoint.
fn own_and_mirrored(model: &str, what: &str, dims: Option<usize>) -> [Means; 2] {
    let place = place();
    find(&place, model);
    let keypoints = dims.map_or_else(String::new, |dims| format!("kpt_shape: [3, {dims}]\n"));
    let n_classes = if what == "pose" { 1 } else { 3 };
    place.write("data.yaml", format!("val: images\n{keypoints}nc: {n_classes}\n").as_bytes());

    [false, true].map(|is_mirrored| {
        for name in ["a", "b"] {
            let found = fs::read_to_string(place.path(&format!("found/labels/{name}.txt"))).expect("labels");
            let lines: Vec<String> =
                found.lines().filter_map(|line| label(line, dims, is_mirrored)).collect();
            assert!(!lines.is_empty());
            place.write(&format!("labels/{name}.txt"), lines[..lines.len().min(8)].join("\n").as_bytes());
        }
        let metrics = val(&place, model, &[], 0);
        assert_eq!((&metrics["images"], &metrics["failed"]), (&2.into(), &0.into()));
        assert!(number(&metrics["instances"]) > 3.0, "{metrics}");
        for key in ["map50", "map75", "map50_95"] {
            assert!(number(&metrics[what]["ultralytics"][key]) <= 0.995, "{metrics}");
        }
        let means = &metrics[what];
        Means { coco: number(&means["map50_95"]), ultralytics: number(&means["ultralytics"]["map50_95"]) }
    })
}

/// A line of labels from a line of what was found; nothing if it reaches out of the picture.
fn label(line: &str, dims: Option<usize>, is_mirrored: bool) -> Option<String> {
    let (class, values) = line.split_once(' ').expect("a class and numbers");
    let values: Vec<f64> = values.split(' ').map(|value| value.parse().expect("a number")).collect();
    let value_at = |(idx, value): (usize, f64)| {
        let (axis, is_box) = match dims {
            Some(dims) if idx >= 4 => ((idx - 4) % dims, false),
            Some(_) => (idx, true),
            None => (idx % 2, false),
        };
        match axis {
            0 if is_mirrored => 1.0 - value,
            2 if !is_box => 2.0,
            _ => value,
        }
    };
    let values: Vec<f64> = values.into_iter().enumerate().map(value_at).collect();
    let is_inside = dims.is_some() || values.iter().all(|value| (0.0..=1.0).contains(value));
    let text = || values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    is_inside.then(|| format!("{class} {}", text()))
}

#[test]
fn masks() {
    check(own_and_mirrored("segment26", "mask", None), 0.15);
    check(own_and_mirrored("segment26", "box", None), 0.4);
}

#[test]
fn poses() {
    check(own_and_mirrored("pose8", "pose", Some(3)), 0.6);
}

/// Of every second label no keypoint is known. By COCO's rules nothing is missed; Ultralytics misses half.
#[test]
fn objects_without_keypoints_need_no_pose() {
    let place = place();
    find(&place, "pose8");
    place.write("data.yaml", b"val: images\nkpt_shape: [3, 3]\nnc: 1\n");
    for name in ["a", "b"] {
        let found = fs::read_to_string(place.path(&format!("found/labels/{name}.txt"))).expect("labels");
        let lines = found.lines().filter_map(|line| label(line, Some(3), false)).take(8);
        let without = |(idx, line): (usize, String)| match idx % 2 {
            0 => line,
            _ => format!("{} 0 0 0 0 0 0 0 0 0", line.split(' ').take(5).collect::<Vec<_>>().join(" ")),
        };
        let lines: Vec<String> = lines.enumerate().map(without).collect();
        assert!(lines.len() > 3);
        place.write(&format!("labels/{name}.txt"), lines.join("\n").as_bytes());
    }
    let pose = &val(&place, "pose8", &[], 0)["pose"];
    assert!(number(&pose["map50"]) > 0.6, "{pose}");
    assert!(number(&pose["ultralytics"]["map50"]) < 0.55, "{pose}");
}

#[test]
fn turned_boxes() {
    check(own_and_mirrored("obb26", "box", None), 0.06);
}

#[test]
fn classes_of_pictures() {
    let place = place();
    let model = golden("classify");
    let run = place.run(&["predict", "-m", arg(&model), "-s", "images", "--json", "-"]).expect(0);
    let answers: Vec<Vec<String>> = run
        .json_lines()
        .iter()
        .map(|line| {
            let answers = line["results"].as_array().expect("answers");
            answers.iter().map(|answer| answer["name"].as_str().expect("a name").to_owned()).collect()
        })
        .collect();
    let measured = |ranks: [usize; 2]| {
        let folder = tempfile::tempdir_in(place.path("images")).expect("a folder");
        for ((name, rank), answers) in ["a", "b"].iter().zip(ranks).zip(&answers) {
            // Beyond the five answers that are given any other class will do.
            let other = (0..7).map(|idx| format!("class{idx}")).find(|name| !answers.contains(name));
            let class = answers.get(rank).cloned().or(other).expect("a class");
            let to = folder.path().join("val").join(class);
            fs::create_dir_all(&to).expect("a folder");
            fs::copy(place.path(&format!("images/{name}.png")), to.join(format!("{name}.png")))
                .expect("a copy");
        }
        let args = ["val", "-m", arg(&model), "-d", arg(folder.path()), "--json", "-"];
        let metrics = place.run(&args).expect(0).json_lines().remove(0);
        [number(&metrics["top1"]), number(&metrics["top5"])]
    };
    assert_eq!(measured([0, 0]), [1.0, 1.0]);
    assert_eq!(measured([0, 1]), [0.5, 1.0]);
    assert_eq!(measured([4, 5]), [0.0, 0.5]);
}

/// If all is labelled as one class, the share that is right is that which is found as that class; the shares of all
/// classes are one whole.
#[test]
fn classes_of_pixels() {
    let place = place();
    place.write("data.yaml", b"val: images\nnc: 5\n");
    let labelled = |class_of: &dyn Fn(u32) -> u8| {
        let map = image::GrayImage::from_fn(SIZE.0, SIZE.1, |x, _| image::Luma([class_of(x)]));
        fs::create_dir_all(place.path("masks")).expect("a folder");
        for name in ["a", "b"] {
            map.save(place.path(&format!("masks/{name}.png"))).expect("a file");
        }
        val(&place, "semantic26", &[], 0)
    };
    let mut shares = Vec::new();
    for class in 0..5 {
        let metrics = labelled(&|_| class);
        assert_eq!(metrics["pixels"], 2 * SIZE.0 * SIZE.1);
        assert_eq!(metrics["pixel_accuracy"], metrics["miou"]);
        shares.push(number(&metrics["pixel_accuracy"]));
    }
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{shares:?}");
    assert!(shares.iter().any(|share| *share > 0.2), "{shares:?}");
    // The left half counts for nothing.
    assert_eq!(labelled(&|x| if x < SIZE.0 / 2 { 255 } else { 0 })["pixels"], SIZE.0 * SIZE.1);
}

#[test]
fn keypoints_have_to_fit_the_model() {
    let place = place();
    for (shape, told) in [
        ("", "data.yaml: has no kpt_shape, which a pose model needs"),
        ("kpt_shape: [5, 3]\n", "data.yaml: has 5 keypoints an object, but the model has 3"),
        ("kpt_shape: [3, 4]\n", "data.yaml: kpt_shape is [3, 4], expected [keypoints, 2] or [keypoints, 3]"),
    ] {
        place.write("data.yaml", format!("val: images\n{shape}nc: 1\n").as_bytes());
        let model = golden("pose8");
        place.run(&["val", "-m", arg(&model), "-d", "data.yaml"]).expect(1).says(&[told]);
    }
    place.write("data.yaml", b"val: images\nkpt_shape: [3, 2]\nnc: 1\n");
    place.write("labels/a.txt", b"0 .5 .5 .5 .5 .1 .1 .2 .2 .3 .3\n");
    place.write("labels/b.txt", b"\n0 .5 .5 .5 .5 .1 .1 2 .2 .2 2 .3 .3 2\n");
    let model = golden("pose8");
    let run = place.run(&["val", "-m", arg(&model), "-d", "data.yaml"]).expect(1);
    run.says(&[
        "labels/b.txt:2: got 13 numbers after the class, expected 4 for a box and 3 times 2",
        "1 failed",
    ]);
}

#[test]
fn bad_class_maps_are_told_and_the_rest_goes_on() {
    let place = place();
    place.write("data.yaml", b"val: images\nnc: 5\nmasks_dir: maps\n");
    let map = |name: &str, [w, h]: [u32; 2], class: u8| {
        fs::create_dir_all(place.path("maps")).expect("a folder");
        image::GrayImage::from_pixel(w, h, image::Luma([class])).save(place.path(name)).expect("a file");
    };
    map("maps/a.png", [SIZE.0, SIZE.1], 4);
    map("maps/b.png", [SIZE.0, SIZE.1], 9);
    place.picture("images/c.png", 20, 20);
    place.picture("images/d.png", 20, 20);
    place.write("maps/d.png", b"no picture");
    place.picture("images/e.png", 20, 10);
    map("maps/e.png", [10, 20], 4);
    let model = golden("semantic26");
    let run = place.run(&["val", "-m", arg(&model), "-d", "data.yaml", "--json", "-"]).expect(1);
    let metrics = run.json_lines().remove(0);
    assert_eq!((&metrics["images"], &metrics["failed"]), (&1.into(), &4.into()));
    run.says(&[
        "images/e.png: maps/e.png: has 10x20 pixels, the picture 20x10",
        "maps/b.png: got class 9 at (0, 0), the data set has classes 0 to 4",
        "maps/c.png: no such file or directory",
        "maps/d.png: is no readable PNG",
    ]);
}
