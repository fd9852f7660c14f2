//! Results as records and as JSON.
//!
//! Coordinates and confidences are rounded to five decimals and times to three, which is finer than an `f32` in
//! pixels means anything. What is not finite, and can't come from a network that works, becomes `null`.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Results, Speed};

/// One object that was found; what `Results.summary()` of Ultralytics gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// Name of the class.
    pub name: String,
    /// Index of the class.
    pub class: usize,
    /// How sure the network is, 0 to 1.
    pub confidence: f64,
    /// Where the object is.
    #[serde(rename = "box")]
    pub corners: Corners,
}

/// Corners of a box in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Corners {
    /// Left edge.
    pub x1: f64,
    /// Upper edge.
    pub y1: f64,
    /// Right edge.
    pub x2: f64,
    /// Lower edge.
    pub y2: f64,
}

impl Results {
    /// The objects one by one, in the order of the boxes, with numbers rounded to five decimals.
    #[must_use]
    pub fn summary(&self) -> Vec<Record> {
        let record = |found: super::Detection| {
            let [x1, y1, x2, y2] = found.xyxy.map(decimal);
            Record {
                name: self.name(found.class),
                class: found.class,
                confidence: decimal(found.confidence),
                corners: Corners { x1, y1, x2, y2 },
            }
        };
        self.boxes.iter().map(record).collect()
    }

    /// All of it as one JSON object, with the keys `path`, `shape` (height, width), `task`, `speed_ms` and `results`.
    ///
    /// Displayed, it is one line. A path that is not UTF-8 is given with replacement characters, none as `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Speed { preprocess_ms, inference_ms, postprocess_ms } = self.speed;
        let results: Vec<Value> = self.summary().into_iter().map(|record| record.to_json()).collect();
        json!({
            "path": self.path.as_ref().map(|path| path.to_string_lossy()),
            "shape": self.orig_shape,
            "task": self.task.as_str(),
            "speed_ms": {
                "preprocess": round(preprocess_ms, 3),
                "inference": round(inference_ms, 3),
                "postprocess": round(postprocess_ms, 3),
            },
            "results": results,
        })
    }
}

impl Record {
    fn to_json(&self) -> Value {
        let Corners { x1, y1, x2, y2 } = self.corners;
        json!({
            "name": self.name,
            "class": self.class,
            "confidence": self.confidence,
            "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        })
    }
}

/// The shortest decimal number that means this `f32`, rounded to five decimals.
fn decimal(value: f32) -> f64 {
    round(value.to_string().parse().unwrap_or(f64::NAN), 5)
}

fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    // Adding zero turns -0 into 0.
    (value * scale).round() / scale + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Boxes;

    fn results() -> Results {
        let mut boxes = Boxes::new([1080, 810]);
        boxes.push([22.8, 231.3, 805.0, 756.8], 0.94, 1);
        let speed = Speed { preprocess_ms: 1.1, inference_ms: 21.0, postprocess_ms: 0.300_04 };
        Results::detect(["person", "bus"].map(str::to_owned).into(), [1080, 810], boxes).with_speed(speed)
    }

    #[test]
    fn json_is_as_documented() {
        let expected = concat!(
            r#"{"path":"bus.jpg","shape":[1080,810],"task":"detect","#,
            r#""speed_ms":{"preprocess":1.1,"inference":21.0,"postprocess":0.3},"#,
            r#""results":[{"name":"bus","class":1,"confidence":0.94,"#,
            r#""box":{"x1":22.8,"y1":231.3,"x2":805.0,"y2":756.8}}]}"#,
        );
        assert_eq!(results().with_path("bus.jpg").to_json().to_string(), expected);
    }

    #[test]
    fn records_serialize_like_the_object() {
        let all = serde_json::to_value(results().summary()).unwrap();
        assert_eq!(results().to_json()["results"], all);
    }

    #[test]
    fn odd_values_are_told() {
        let mut results = results();
        results.boxes.push([f32::NAN, f32::INFINITY, 0.123_456_79, -0.0], 0.1, 80);
        let json = results.to_json();
        assert!(json["path"].is_null());
        let record = &json["results"][1];
        assert_eq!((&record["name"], &record["class"]), (&json!("80"), &json!(80)));
        assert!(record["box"]["x1"].is_null() && record["box"]["y1"].is_null());
        assert_eq!(record["box"]["x2"], json!(0.12346));
    }

    #[test]
    fn names_are_escaped() {
        let mut results = results();
        results.names = ["", "a \"b\"\n\u{1}é"].map(str::to_owned).into();
        let text = results.to_json().to_string();
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["results"][0]["name"], json!("a \"b\"\n\u{1}é"));
        assert!(!text.contains('\n'));
    }
}
