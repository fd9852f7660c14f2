//! `predict`: lines, JSON, options.

use serde_json::Value;

use crate::support::{Place, arg, demo, sample};

#[test]
fn without_arguments_it_finds_the_shapes_of_the_sample() {
    let place = Place::new();
    let run = place.run(&["predict"]).expect(0).says(&["speed: ", "images/s", "runs/predict/sample.png"]);
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let rest = run.stdout.strip_prefix("image 1/1 sample.png: ").unwrap_or_else(|| panic!("{}", run.stdout));
    let (size, rest) = rest.split_once(' ').expect("a size, then what was found");
    assert!(size.split('x').all(|side| side.parse::<usize>().is_ok_and(|side| side % 32 == 0)), "{size}");
    let found: Vec<_> = rest.trim_end().split(", ").collect();
    assert!(found.len() >= 3, "at least two classes and a time: {rest}");
    assert!(
        found.last().is_some_and(|time| time.strip_suffix("ms").is_some_and(|ms| ms.parse::<f64>().is_ok()))
    );
    let saved = image::open(place.path("runs/predict/sample.png")).expect("a picture");
    assert!(saved.width() > 32);
    // A second run leaves the first one's files alone.
    place.run(&["predict"]).expect(0).says(&["runs/predict2/sample.png"]);
}

#[test]
fn json_has_the_fields_of_the_contract() {
    let place = Place::new();
    let run = place.run(&["predict", "--json", "-"]).expect(0);
    let [object] = &run.json_lines()[..] else { panic!("{}", run.stdout) };
    assert_eq!(keys(object), ["path", "shape", "task", "speed_ms", "results"]);
    assert_eq!(object["path"], "sample.png");
    assert_eq!(object["task"], "detect");
    assert_eq!(keys(&object["speed_ms"]), ["preprocess", "inference", "postprocess"]);
    let [height, width] = [0, 1].map(|idx| object["shape"][idx].as_f64().expect("a number"));
    let results = object["results"].as_array().expect("an array");
    assert!(results.len() >= 2, "{object}");
    let mut last = 1.0;
    for found in results {
        assert_eq!(keys(found), ["name", "class", "confidence", "box"]);
        assert_eq!(keys(&found["box"]), ["x1", "y1", "x2", "y2"]);
        let confidence = found["confidence"].as_f64().expect("a number");
        assert!((0.25..=last).contains(&confidence), "{confidence} after {last}");
        last = confidence;
        let [x1, y1, x2, y2] =
            ["x1", "y1", "x2", "y2"].map(|key| found["box"][key].as_f64().expect("a number"));
        assert!(0.0 <= x1 && x1 < x2 && x2 <= width && 0.0 <= y1 && y1 < y2 && y2 <= height, "{found}");
        assert!(found["name"].is_string() && found["class"].is_u64());
    }
}

#[test]
fn options_change_what_is_found() {
    let place = Place::new();
    let find = |args: &[&str]| {
        let run = place.run(&[&["predict", "--json", "-"], args].concat()).expect(0);
        run.json_lines().remove(0)["results"].as_array().expect("an array").clone()
    };
    let all = find(&[]);
    let best = all[0].clone();
    assert_eq!(find(&["--max-det", "1"]), std::slice::from_ref(&best));
    let class = best["class"].to_string();
    let of_class = find(&["--classes", &class]);
    assert!(!of_class.is_empty() && of_class.iter().all(|found| found["class"] == best["class"]));
    assert_eq!(of_class.len(), all.iter().filter(|found| found["class"] == best["class"]).count());
    assert!(find(&["--conf", "1"]).is_empty());
    assert!(find(&["--conf", "0.001"]).len() >= all.len());
    let several = find(&["--conf", "0.001", "--max-det", "10000", "--multi-label"]);
    assert!(pairs(&several).any(|(a, b)| a["box"] == b["box"] && a["class"] != b["class"]));
    // Boxes are compared before they are clipped, so those at the edge may overlap more afterwards.
    let mut apart = find(&["--conf", "0.001", "--iou", "0.3", "--agnostic-nms"]);
    let sample = image::load_from_memory(sample()).expect("a picture");
    apart.retain(|found| inside(&found["box"], [sample.width(), sample.height()]));
    assert!(pairs(&apart).all(|(a, b)| overlap(&a["box"], &b["box"]) < 0.301));
    assert!(!find(&["--imgsz", "256,320", "--no-rect"]).is_empty());
}

#[test]
fn results_do_not_depend_on_threads_or_batch() {
    let place = Place::new();
    for idx in 0..5 {
        place.picture(&format!("in/{idx}.png"), 200, 160);
    }
    let find = |args: &[&str]| {
        let run =
            place.run(&[&["predict", "-s", "in", "--json", "-", "--conf", "0.01"], args].concat()).expect(0);
        let mut objects = run.json_lines();
        for object in &mut objects {
            object["speed_ms"] = Value::Null;
        }
        assert_eq!(objects.len(), 5);
        objects
    };
    let one = find(&["--threads", "1"]);
    assert_eq!(one, find(&["--threads", "2"]));
    assert_eq!(one, find(&["--threads", "3", "--batch", "2"]));
    assert_eq!(one, find(&["--batch", "64"]));
}

#[test]
fn sizes_are_rounded_up_to_the_stride_with_a_warning() {
    let place = Place::new();
    let run =
        place.run(&["predict", "--imgsz", "100,130", "--no-rect"]).expect(0).says(&["warning: ", "128,160"]);
    assert!(run.stdout.contains(": 128x160 "), "{}", run.stdout);
    let run = place.run(&["predict", "--imgsz", "1"]).expect(0).says(&["32,32"]);
    assert!(run.stdout.contains(": 32x32 "), "{}", run.stdout);
}

#[test]
fn pictures_are_padded_only_to_the_stride() {
    let place = Place::new();
    let picture = place.picture("wide.png", 320, 80);
    let size = |args: &[&str]| {
        let run = place.run(&[&["predict", "-s", arg(&picture), "--imgsz", "320"], args].concat()).expect(0);
        run.stdout.split(' ').nth(3).expect("a size").to_owned()
    };
    assert_eq!(size(&[]), "96x320");
    assert_eq!(size(&["--no-rect"]), "320x320");
}

#[test]
fn a_head_that_the_model_lacks_is_wrong_usage() {
    let place = Place::new();
    place.run(&["predict", "--head", "one2many"]).expect(0);
    place.run(&["predict", "--head", "one2one"]).expect(2).says(&["one2one", "one2many"]);
}

#[test]
fn quiet_tells_nothing() {
    let place = Place::new();
    let run = place.run(&["predict", "--quiet"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let run = place.run(&["predict", "-q", "-s", "absent.jpg"]).expect(1).says(&["absent.jpg"]);
    assert!(run.stdout.is_empty());
}

#[test]
fn json_into_a_file_leaves_the_lines() {
    let place = Place::new();
    let run = place.run(&["predict", "--json", "out.jsonl"]).expect(0);
    assert!(run.stdout.starts_with("image 1/1 sample.png: "), "{}", run.stdout);
    let text = std::fs::read_to_string(place.path("out.jsonl")).expect("the file");
    let object: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(object["path"], "sample.png");
    place.run(&["predict", "--json", "absent/out.jsonl"]).expect(1).says(&["absent/out.jsonl"]);
}

#[test]
fn a_model_file_is_the_same_as_the_model_built_in() {
    let place = Place::new();
    place.write("demo.safetensors", &demo());
    let find = |args: &[&str]| {
        let run = place.run(&[&["predict", "--json", "-"], args].concat()).expect(0);
        run.json_lines().remove(0)["results"].clone()
    };
    assert_eq!(find(&[]), find(&["-m", "demo.safetensors"]));
}

#[test]
fn colours_stay_out_of_pipes() {
    let place = Place::new();
    let run = place.run(&["predict", "-s", "absent.jpg", "--imgsz", "33"]).expect(1);
    assert!(!run.stderr.contains('\x1b') && !run.stdout.contains('\x1b'), "{}", run.stderr);
}

/// All pairs of different elements.
fn pairs(found: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    found.iter().enumerate().flat_map(|(idx, a)| found[idx + 1..].iter().map(move |b| (a, b)))
}

/// Whether a box touches no edge of a picture of `size`, width and height.
fn inside(corners: &Value, size: [u32; 2]) -> bool {
    let [width, height] = size.map(f64::from);
    let at = |key: &str| corners[key].as_f64().expect("a number");
    at("x1") > 0.0 && at("y1") > 0.0 && at("x2") < width && at("y2") < height
}

/// Intersection over union.
fn overlap(a: &Value, b: &Value) -> f64 {
    let at = |of: &Value, key: &str| of[key].as_f64().expect("a number");
    let side = |low, high| (at(a, high).min(at(b, high)) - at(a, low).max(at(b, low))).max(0.0);
    let area = |of| (at(of, "x2") - at(of, "x1")) * (at(of, "y2") - at(of, "y1"));
    let shared = side("x1", "x2") * side("y1", "y2");
    shared / (area(a) + area(b) - shared)
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}
