//! `bench`: the figures and their names.

use serde_json::Value;

use crate::support::Place;

const FIELDS: [&str; 13] = [
    "model",
    "device",
    "precision",
    "threads",
    "imgsz",
    "batch",
    "runs",
    "latency_ms",
    "end_to_end_ms",
    "images_per_second",
    "peak_rss_bytes",
    "arena_bytes",
    "weights_bytes",
];

const QUICK: [&str; 9] = ["bench", "--device", "cpu", "--imgsz", "64,96", "--runs", "4", "--warmup", "1"];

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_fields_of_the_contract() {
    let place = Place::new();
    let run = place.run(&[&QUICK[..], &["--threads", "2", "--batch", "3", "--json", "-"]].concat()).expect(0);
    let [object] = &run.json_lines()[..] else { panic!("{}", run.stdout) };
    assert_eq!(keys(object), FIELDS);
    assert_eq!(object["device"], "cpu");
    assert_eq!(object["precision"], "f32");
    assert_eq!(object["imgsz"], serde_json::json!([64, 96]));
    for (key, value) in [("threads", 2), ("batch", 3), ("runs", 4)] {
        assert_eq!(object[key], value, "{key}");
    }
    for key in ["latency_ms", "end_to_end_ms"] {
        let times = &object[key];
        assert_eq!(keys(times), ["min", "p50", "p90", "mean"]);
        let [min, p50, p90, mean] =
            ["min", "p50", "p90", "mean"].map(|key| times[key].as_f64().expect("a number"));
        assert!(0.0 < min && min <= p50 && p50 <= p90 && min <= mean, "{times}");
    }
    for key in ["images_per_second", "arena_bytes", "weights_bytes"] {
        assert!(object[key].as_f64().is_some_and(|value| value > 0.0), "{key}");
    }
    assert!(
        object["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20) || !cfg!(target_os = "linux")
    );
    let mean = object["end_to_end_ms"]["mean"].as_f64().expect("a number");
    let rate = object["images_per_second"].as_f64().expect("a number");
    assert!((rate * mean / 3e3 - 1.0).abs() < 0.01, "{rate} images/s, {mean} ms for 3");
}

#[test]
fn steps_are_timed_on_the_cpu() {
    let run = Place::new().run(&[&QUICK[..], &["--profile", "--json", "-"]].concat()).expect(0);
    let object = &run.json_lines()[0];
    let rows = object["profile"].as_array().expect("rows");
    assert!(rows.len() > 20, "{object}");
    for row in rows {
        let [step] = row["steps"].as_array().expect("steps").as_slice() else { panic!("{row}") };
        assert_eq!(row["name"], step["op"]);
        assert!(step["at"].as_str().is_some_and(|at| !at.is_empty()), "{row}");
        assert!(row["us"].as_f64().is_some_and(|us| us >= 0.0), "{row}");
    }
    let macs: u64 = rows.iter().filter_map(|row| row["macs"].as_u64()).sum();
    assert!(macs > 100_000, "{object}");
}

#[test]
fn without_json_there_is_a_table() {
    let place = Place::new();
    let run = place.run(&[&QUICK[..], &["--json", "out.json"]].concat()).expect(0);
    for text in ["network", "end to end", "p50", "images/s", "64x96"] {
        assert!(run.stdout.contains(text), "{}", run.stdout);
    }
    let text = std::fs::read_to_string(place.path("out.json")).expect("the file");
    assert_eq!(keys(&serde_json::from_str(&text).expect("one object")), FIELDS);
}
