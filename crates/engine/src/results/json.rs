//! Results as records and as JSON.
//!
//! Coordinates and confidences are rounded to five decimals and times to three, which is finer than an `f32` in
//! pixels means anything. What is not finite, and can't come from a network that works, becomes `null`.

use serde::Serialize;
use serde_json::{Value, json};

use super::{DepthRange, Keypoint, Results, Speed};

/// One thing that was found; what `Results.summary()` of Ultralytics gives.
///
/// Keys without a value are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// Name of the class.
    pub name: String,
    /// Index of the class.
    pub class: usize,
    /// How sure the network is, 0 to 1; not of a class map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The class's share of the picture, of a class map only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_ratio: Option<f64>,
    /// Where the object is.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub corners: Option<Corners>,
    /// The outline of its mask; see [`Masks::xy`](super::Masks::xy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Outline>,
    /// Its keypoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keypoints: Option<KeypointColumns>,
}

/// Corners of a box in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Corners {
    /// Of an upright box.
    Upright {
        /// Left edge.
        x1: f64,
        /// Upper edge.
        y1: f64,
        /// Right edge.
        x2: f64,
        /// Lower edge.
        y2: f64,
    },
    /// Of a rotated box, in order around it.
    Rotated {
        /// First corner.
        x1: f64,
        /// First corner.
        y1: f64,
        /// Second corner.
        x2: f64,
        /// Second corner.
        y2: f64,
        /// Third corner.
        x3: f64,
        /// Third corner.
        y3: f64,
        /// Fourth corner.
        x4: f64,
        /// Fourth corner.
        y4: f64,
    },
}

/// The points of a polygon in pixels of the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outline {
    /// Columns.
    pub x: Vec<f64>,
    /// Rows.
    pub y: Vec<f64>,
}

/// Keypoints in pixels of the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeypointColumns {
    /// Columns.
    pub x: Vec<f64>,
    /// Rows.
    pub y: Vec<f64>,
    /// How sure the network is that each can be seen, 0 to 1, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visible: Option<Vec<f64>>,
}

impl Results {
    /// What was found one by one, with numbers rounded to five decimals.
    ///
    /// Objects in the order of the boxes, the five likeliest classes of a classification, the classes of a class map
    /// by index; nothing of a depth map.
    #[must_use]
    pub fn summary(&self) -> Vec<Record> {
        let record = |class: usize, confidence: Option<f32>| Record {
            name: self.name(class),
            class,
            confidence: confidence.map(decimal),
            pixel_ratio: None,
            corners: None,
            segments: None,
            keypoints: None,
        };
        if let Some(probs) = &self.probs {
            return probs.top(5).map(|(class, value)| record(class, Some(value))).collect();
        }
        if let Some(map) = &self.class_map {
            let share = |count: usize| round(count as f64 / map.classes().len() as f64, 5);
            let of_class = |(class, count)| Record { pixel_ratio: Some(share(count)), ..record(class, None) };
            return self.class_counts(map).into_iter().map(of_class).collect();
        }
        if let Some(obb) = &self.obb {
            let of_box = |found: &super::RotatedDetection| {
                let corners = Some(Corners::rotated(found.corners()));
                Record { corners, ..record(found.class, Some(found.confidence)) }
            };
            return obb.iter().map(of_box).collect();
        }
        let mut outlines = self.masks.iter().flat_map(super::Masks::xy).map(Outline::new);
        let mut keypoints = self.keypoints.iter().flat_map(super::Keypoints::iter).map(KeypointColumns::new);
        let of_box = |found: super::Detection| Record {
            corners: Some(Corners::upright(found.xyxy)),
            segments: outlines.next(),
            keypoints: keypoints.next(),
            ..record(found.class, Some(found.confidence))
        };
        self.boxes.iter().map(of_box).collect()
    }

    /// All of it as one JSON object, with the keys `path`, `shape` (height, width), `task`, `speed_ms` and `results`.
    ///
    /// Depth estimation has the key `depth` besides: `min`, `max` and `mean` in meters, or `null` if no pixel has a
    /// distance. Displayed, the object is one line. A path that is not UTF-8 is given with replacement characters,
    /// none as `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Speed { preprocess_ms, inference_ms, postprocess_ms } = self.speed;
        // Turning these types into JSON can't fail.
        let to_value = |record| serde_json::to_value(record).unwrap_or_default();
        let results: Vec<Value> = self.summary().into_iter().map(to_value).collect();
        let mut object = json!({
            "path": self.path.as_ref().map(|path| path.to_string_lossy()),
            "shape": self.orig_shape,
            "task": self.task.as_str(),
            "speed_ms": {
                "preprocess": round(preprocess_ms, 3),
                "inference": round(inference_ms, 3),
                "postprocess": round(postprocess_ms, 3),
            },
            "results": results,
        });
        if let Some(depth) = &self.depth {
            object["depth"] = depth.range().map_or(Value::Null, |DepthRange { min, max, mean }| {
                json!({"min": decimal(min), "max": decimal(max), "mean": decimal(mean)})
            });
        }
        object
    }
}

impl Corners {
    fn upright(xyxy: [f32; 4]) -> Self {
        let [x1, y1, x2, y2] = xyxy.map(decimal);
        Self::Upright { x1, y1, x2, y2 }
    }

    fn rotated(corners: [[f32; 2]; 4]) -> Self {
        let [[x1, y1], [x2, y2], [x3, y3], [x4, y4]] = corners.map(|corner| corner.map(decimal));
        Self::Rotated { x1, y1, x2, y2, x3, y3, x4, y4 }
    }
}

impl Outline {
    fn new(points: Vec<[f32; 2]>) -> Self {
        let (x, y) = points.into_iter().map(|[x, y]| (decimal(x), decimal(y))).unzip();
        Self { x, y }
    }
}

impl KeypointColumns {
    fn new(points: &[Keypoint]) -> Self {
        let (x, y) = points.iter().map(|point| (decimal(point.xy[0]), decimal(point.xy[1]))).unzip();
        Self { x, y, visible: points.iter().map(|point| point.visible.map(decimal)).collect() }
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
    use std::sync::Arc;

    use super::*;
    use crate::results::{
        Boxes, ClassMap, DepthMap, Keypoints, Mask, Masks, Probs, RotatedBoxes, RotatedDetection,
    };

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
    fn records_fit_the_task() {
        let check = |results: Results, expected: &str| {
            assert_eq!(results.to_json()["results"].to_string(), expected);
        };
        let names: Arc<[String]> = ["person", "bus"].map(str::to_owned).into();
        let mut boxes = Boxes::new([60, 80]);
        boxes.push([0.0, 0.0, 80.0, 60.0], 0.9, 1);

        let mut masks = Masks::new([60, 80]);
        masks.push(Mask::new([5, 6], 2, vec![1; 4]).unwrap());
        check(
            Results::segment(names.clone(), [60, 80], boxes.clone(), masks),
            concat!(
                r#"[{"name":"bus","class":1,"confidence":0.9,"box":{"x1":0.0,"y1":0.0,"x2":80.0,"y2":60.0},"#,
                r#""segments":{"x":[5.0,5.0,6.0,6.0],"y":[6.0,7.0,7.0,6.0]}}]"#,
            ),
        );

        let points = [Some(0.9), Some(0.4)].map(|visible| Keypoint { xy: [10.0, 20.5], visible });
        let mut keypoints = Keypoints::new([60, 80], 2);
        keypoints.push(&points).unwrap();
        let pose = Results::pose(names.clone(), [60, 80], boxes.clone(), keypoints);
        let expected = r#"{"x":[10.0,10.0],"y":[20.5,20.5],"visible":[0.9,0.4]}"#;
        assert_eq!(pose.to_json()["results"][0]["keypoints"].to_string(), expected);
        let mut keypoints = Keypoints::new([60, 80], 1);
        keypoints.push(&[Keypoint { visible: None, ..points[0] }]).unwrap();
        let pose = Results::pose(names.clone(), [60, 80], boxes, keypoints);
        assert_eq!(pose.to_json()["results"][0]["keypoints"].to_string(), r#"{"x":[10.0],"y":[20.5]}"#);

        let mut obb = RotatedBoxes::new([60, 80]);
        obb.push(RotatedDetection { xywhr: [10.0, 20.0, 8.0, 4.0, 0.0], confidence: 0.5, class: 0 });
        check(
            Results::obb(names.clone(), [60, 80], obb),
            concat!(
                r#"[{"name":"person","class":0,"confidence":0.5,"box":{"x1":14.0,"y1":22.0,"x2":14.0,"y2":18.0,"#,
                r#""x3":6.0,"y3":18.0,"x4":6.0,"y4":22.0}}]"#,
            ),
        );

        check(
            Results::classify(names.clone(), [60, 80], Probs::new(vec![0.25, 0.75])),
            r#"[{"name":"bus","class":1,"confidence":0.75},{"name":"person","class":0,"confidence":0.25}]"#,
        );

        let map = ClassMap::new([1, 4], vec![1, 1, 0, 1]).unwrap();
        check(
            Results::semantic(names.clone(), map),
            r#"[{"name":"person","class":0,"pixel_ratio":0.25},{"name":"bus","class":1,"pixel_ratio":0.75}]"#,
        );

        let depth = Results::depth(names, DepthMap::new([1, 2], vec![1.0, 2.5]).unwrap());
        assert_eq!(depth.to_json()["depth"].to_string(), r#"{"min":1.0,"max":2.5,"mean":1.75}"#);
        check(depth, "[]");
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
