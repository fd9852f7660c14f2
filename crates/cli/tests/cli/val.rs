//! `val`: metrics on data sets made here, good ones and bad ones.

mod tasks;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Place, arg, sample, shared};

/// Classes of the model that is built in.
const NAMES: [&str; 8] = ["circle", "square", "triangle", "star", "pentagon", "cross", "ring", "heart"];

/// A place with the sample picture under several names, and labels as the built-in model finds them.
fn labelled(n_pictures: usize) -> Place {
    let place = Place::new();
    for idx in 0..n_pictures {
        place.write(&format!("images/{idx}.png"), sample());
    }
    place.run(&["predict", "-s", "images/0.png", "--save", "first", "--save-txt"]).expect(0);
    let labels = fs::read(place.path("first/labels/0.txt")).expect("labels");
    for idx in 0..n_pictures {
        place.write(&format!("labels/{idx}.txt"), &labels);
    }
    data_yaml(&place, "");
    place
}

/// Writes `data.yaml`, with the names that the model itself has, and `more` in it.
fn data_yaml(place: &Place, more: &str) -> PathBuf {
    let mut text = format!("val: images\ntrain: images\n{more}");
    text += "names:\n";
    for (idx, name) in NAMES.iter().enumerate() {
        let _ = writeln!(text, "  {idx}: {name}");
    }
    place.write("data.yaml", text.as_bytes())
}

fn measured(place: &Place, args: &[&str], code: i32) -> Value {
    let run = place.run(&[&["val", "-d", "data.yaml", "--json", "-"], args].concat()).expect(code);
    run.json_lines().remove(0)
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn what_the_model_finds_is_right_by_its_own_labels() {
    let place = labelled(3);
    let run = place.run(&["val", "-d", "data.yaml"]).expect(0).says(&["3 images", "ms inference"]);
    let head = run.stdout.lines().next().expect("a table");
    for column in ["Class", "Images", "Instances", "Box(P", "R", "mAP50", "mAP50-95)"] {
        assert!(head.contains(column), "{head}");
    }
    assert!(run.stdout.contains("mAP75"), "{}", run.stdout);
    let metrics = measured(&place, &[], 0);
    assert!(number(&metrics["box"]["map50"]) > 0.95, "{metrics}");
    assert!(number(&metrics["box"]["map50_95"]) > 0.8, "{metrics}");
    assert!(number(&metrics["box"]["recall"]) > 0.9, "{metrics}");
    assert!(number(&metrics["box"]["ultralytics"]["map50"]) <= 0.995, "{metrics}");
    assert_eq!(
        (&metrics["images"], &metrics["failed"], &metrics["task"]),
        (&3.into(), &0.into(), &"detect".into())
    );
}

#[test]
fn results_are_the_same_for_any_number_of_threads() {
    let place = labelled(5);
    let [one, three] = ["1", "3"].map(|threads| {
        let mut metrics = measured(&place, &["--threads", threads], 0);
        metrics["speed_ms"] = Value::Null;
        metrics
    });
    assert_eq!(one, three);
}

#[test]
fn wrong_labels_cost() {
    let place = labelled(2);
    let good = number(&measured(&place, &[], 0)["box"]["map50_95"]);
    // Every box in the corner, and a class that is not there.
    place.write("labels/1.txt", b"0 0.02 0.02 0.03 0.03\n7 0.97 0.97 0.03 0.03\n");
    let bad = number(&measured(&place, &[], 0)["box"]["map50_95"]);
    assert!(bad < 0.9 * good, "{bad} of {good}");
}

#[test]
fn plots_and_boxes_are_saved() {
    let place = labelled(2);
    place.write("images/7.png", sample());
    let args = ["val", "-d", "data.yaml", "--save", "out/plots", "--save-json", "boxes.json", "-q"];
    let run = place.run(&args).expect(0);
    assert_eq!(run.stderr, "");
    assert_eq!(
        place.files("out/plots"),
        ["box_confidence.png", "box_precision_recall.png", "confusion_matrix.png"]
    );
    let boxes: Value =
        serde_json::from_slice(&fs::read(place.path("boxes.json")).expect("a file")).expect("JSON");
    let boxes = boxes.as_array().expect("a list");
    // All names are numbers, and so serve as ids.
    let ids: std::collections::BTreeSet<_> = boxes.iter().map(|found| found["image_id"].as_u64()).collect();
    assert_eq!(ids, [Some(0), Some(1), Some(7)].into());
    assert!(boxes.iter().all(|found| number(&found["score"]) > 0.001 && number(&found["bbox"][2]) >= 0.0));
}

#[test]
fn pictures_without_labels_show_nothing() {
    let place = labelled(2);
    fs::remove_file(place.path("labels/1.txt")).expect("a file");
    let run = place.run(&["val", "-d", "data.yaml"]).expect(0);
    run.says(&["2 images, 1 without a label file"]);
    assert_eq!(measured(&place, &[], 0)["unlabelled"], 1);
}

#[test]
fn bad_pictures_and_labels_are_told_and_the_rest_goes_on() {
    let place = labelled(2);
    place.write("images/2.png", b"not a picture");
    place.picture("images/3.png", 64, 64);
    place.write("labels/3.txt", b"0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n");
    place.picture("images/4.png", 1, 1);
    place.picture("images/5.png", 3000, 1);
    let run = place.run(&["val", "-d", "data.yaml", "--json", "-"]).expect(1);
    let metrics = run.json_lines().remove(0);
    assert_eq!((&metrics["images"], &metrics["failed"]), (&4.into(), &2.into()));
    assert!(number(&metrics["box"]["map50"]) > 0.9, "{metrics}");
    run.says(&[
        "2.png: not a picture",
        "labels/3.txt:2: got 3 numbers after the class",
        "2 failed and left out",
    ]);
}

#[test]
fn nothing_to_measure_is_an_error() {
    let place = Place::new();
    place.write("images/0.png", b"x");
    data_yaml(&place, "");
    let run = place.run(&["val", "-d", "data.yaml"]).expect(1).says(&["no picture could be measured"]);
    assert!(run.stdout.is_empty(), "a table of nothing: {}", run.stdout);
}

#[test]
fn bad_data_sets_are_told() {
    let place = labelled(1);
    place.run(&["val"]).expect(2).says(&["--data"]);
    place.run(&["val", "-d", "absent.yaml"]).expect(1).says(&["absent.yaml: no such file or directory"]);
    place.run(&["val", "-d", "images"]).expect(1).says(&["images: is a folder, expected a YAML file"]);
    place.run(&["val", "-d", "data.yaml", "--split", "test"]).expect(1).says(&["has no split \"test\""]);
    place.write("bad.yaml", b"val: images\nnames: [a, b]\n");
    place.run(&["val", "-d", "bad.yaml"]).expect(1).says(&["has 2 classes, but the model has 8"]);
    place.write("bad.yaml", b"val: elsewhere\nnc: 8\n");
    place.run(&["val", "-d", "bad.yaml"]).expect(1).says(&["bad.yaml: val: \"elsewhere\"", "no such file"]);
    place.write("bad.yaml", b"val: [\n");
    place.run(&["val", "-d", "bad.yaml"]).expect(1).says(&["bad.yaml: is no description of a data set"]);
}

#[test]
fn outputs_are_checked_before_the_work() {
    let place = labelled(1);
    let val = |args: &[&str]| place.run(&[&["val", "-d", "data.yaml"], args].concat());
    val(&["--save-json", "absent/boxes.json"]).expect(1).says(&["absent: no such folder"]);
    val(&["--save", "data.yaml"]).expect(1).says(&["--save data.yaml: is no folder"]);
    val(&["--save-json", "-"]).expect(2).says(&["expected the path of a file"]);
    val(&["--json", "data.yaml"]).expect(2).says(&["would overwrite the input data.yaml"]);
    val(&["--save-json", "images/0.png"]).expect(2).says(&["would overwrite the input"]);
    val(&["--save-json", "labels/0.txt"]).expect(2).says(&["would overwrite the input labels/0.txt"]);
    val(&["--json", "labels/0.txt"]).expect(2).says(&["would overwrite the input labels/0.txt"]);
    val(&["--head", "one2one"]).expect(2).says(&["--head one2one"]);
    val(&["--batch", "0"]).expect(2).says(&["at least 1"]);
}

/// The precision on photographs of COCO that the model's publishers' own outputs have, within what padding and the
/// decoding of pictures change.
#[test]
fn yolox_on_photographs() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let (model, data) = (shared.join("models/yolox_nano.pth"), shared.join("coco64/coco64.yaml"));
    let run =
        place.run(&["val", "-m", arg(&model), "-d", arg(&data), "--iou", "0.65", "--json", "-"]).expect(0);
    let metrics = run.json_lines().remove(0);
    assert_eq!(metrics["images"], 64);
    for (key, expected) in [("map50_95", 0.339), ("map50", 0.548), ("map75", 0.342)] {
        let got = number(&metrics["box"][key]);
        assert!((got - expected).abs() < 0.005, "{key}: {got}, expected {expected}");
    }
}

/// The figures of Ultralytics' own validation (input 320, batch 1).
#[test]
fn yolo11_on_photographs() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let (model, data) = (shared.join("models/yolo11n-coco128.pt"), shared.join("coco64/coco64.yaml"));
    let args = ["val", "-m", arg(&model), "-d", arg(&data), "--batch", "1", "--json", "-"];
    let metrics = place.run(&args).expect(0).json_lines().remove(0);
    let metrics = &metrics["box"];
    for (key, expected) in [("map50_95", 0.5476), ("map50", 0.6822), ("map75", 0.6109)] {
        let got = number(&metrics["ultralytics"][key]);
        assert!((got - expected).abs() < 0.005, "{key}: {got}, expected {expected}");
    }
    for (key, expected) in [("precision", 0.809), ("recall", 0.603)] {
        let got = number(&metrics[key]);
        assert!((got - expected).abs() < 0.01, "{key}: {got}, expected {expected}");
    }
}

/// Each picture has something wrong with its labels; the last one has not.
#[test]
fn every_bad_label_is_told_with_its_line() {
    let cases: [(&[u8], &str); 12] = [
        (b"0 .5 .5 .1 .1\n0 nan .5 .1 .1\n", "0.txt:2: \"nan\" is not a number"),
        (b"0 .5 .5 inf .1\n", "1.txt:1: \"inf\" is not a number"),
        (b"99999999999999999999 .5 .5 .1 .1\n", "2.txt:1: got class 100000000000000000000, the data set has"),
        (b"8 .5 .5 .1 .1\n", "3.txt:1: got class 8, the data set has classes 0 to 7"),
        (b"circle .5 .5 .1 .1\n", "4.txt:1: \"circle\" is not a number"),
        (b"0 1.5 .5 .1 .1\n", "5.txt:1: got coordinate 1.5, expected a share of the picture's side, 0 to 1"),
        (b"0 .5 -.5 .1 .1\n", "6.txt:1: got coordinate -0.5"),
        (b"0 .5 .5 .1 .1 .2\n", "7.txt:1: got 5 numbers after the class"),
        (b"\xff\xfe0\x00 \x00", "8.txt: is no text"),
        (b"0,.5,.5,.1,.1\n", "9.txt:1: \"0,.5,.5,.1,.1\" is not a number"),
        (b"\xef\xbb\xbf0 .5 .5 .1 .1\r\n\r\n0 .5 .5 .1\r\n", "10.txt:3: got 3 numbers after the class"),
        (b"-1 .5 .5 .1 .1\n", "11.txt:1: -1 is no index of a class"),
    ];
    let place = labelled(cases.len() + 2);
    for (idx, (text, _)) in cases.iter().enumerate() {
        place.write(&format!("labels/{idx}.txt"), text);
    }
    // A folder where the labels should be, and good labels with the marks and line ends of other systems.
    fs::remove_file(place.path("labels/12.txt")).expect("a file");
    fs::create_dir(place.path("labels/12.txt")).expect("a folder");
    let good = fs::read_to_string(place.path("labels/13.txt")).expect("labels");
    place.write("labels/13.txt", format!("\u{feff}{}", good.replace('\n', "\r\n")).as_bytes());
    let run = place.run(&["val", "-d", "data.yaml", "--json", "-"]).expect(1);
    let metrics = run.json_lines().remove(0);
    assert_eq!((&metrics["images"], &metrics["failed"]), (&1.into(), &13.into()));
    assert!(number(&metrics["box"]["map50"]) > 0.95, "{metrics}");
    let told: Vec<&str> = cases.iter().map(|(_, told)| *told).collect();
    run.says(&told).says(&["12.txt: is not a regular file", "13 failed and left out"]);
}

#[test]
fn lists_of_pictures_name_what_is_absent() {
    let place = labelled(2);
    place.write("list.txt", b"./images/0.png\nimages/absent.png\nimages/1.png\n");
    place.write("data.yaml", b"val: list.txt\nnc: 8\n");
    let run = place.run(&["val", "-d", "data.yaml", "--json", "-"]).expect(1);
    assert_eq!(run.json_lines()[0]["images"], 2);
    run.says(&["images/absent.png: no such file", "1 failed and left out"]);
    for (yaml, told) in [
        ("val: images\n", "names no classes: neither `names` nor `nc` is there"),
        ("val: images\nnc: 8\nnames: [a]\n", "nc is 8, but there are 1 names"),
        ("path: elsewhere\nval: images\nnc: 8\n", "elsewhere/images: no such file or directory"),
        ("val: labels\nnc: 8\n", "val: no pictures in [\"labels\"]"),
        ("val: [images, 3.7, {a: b}]\nnc: 8\n", "is no description of a data set"),
        ("val: images\nnames: {0: a, 2: b}\n", "class 1 has no name, the next one is 2"),
        ("\u{feff}val: list\nnc: 8\n", "list: no such file or directory"),
    ] {
        place.write("data.yaml", yaml.as_bytes());
        place.run(&["val", "-d", "data.yaml"]).expect(1).says(&["data.yaml", told]);
    }
    place.write("data.yaml", b"val: \xff\xfe\n");
    place.run(&["val", "-d", "data.yaml"]).expect(1).says(&["data.yaml: can't be read"]);
}
