//! The text file with the labels of one picture.
//!
//! One object a line: the index of its class, then numbers that are shares of the picture's width and height.
//!
//! | kind | after the class |
//! |---|---|
//! | box | centre x, centre y, width, height |
//! | polygon | x1 y1 x2 y2 x3 y3 ..., at least three corners |
//! | keypoints | a box, then x y or x y visibility of each keypoint |
//! | turned box | x1 y1 x2 y2 x3 y3 x4 y4 |

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Coordinates so far outside of the picture are taken for slips of rounding. They are not changed.
const SLIP: f64 = 0.01;

/// Bytes that a label file may have.
const MAX_BYTES: u64 = 64 << 20;

/// What the labels of a data set say of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// A box. Polygons are taken too; their bounding boxes count.
    Box,
    /// A polygon.
    Polygon,
    /// A box and keypoints.
    Keypoints {
        /// Keypoints of an object.
        n: usize,
        /// Values of a keypoint: 2 or 3.
        dims: usize,
    },
    /// A turned box by its four corners.
    Oriented,
}

/// A keypoint of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keypoint {
    /// `[x, y]` as shares of width and height.
    pub xy: [f64; 2],
    /// Whether it is labelled, be it hidden or not.
    pub is_labelled: bool,
}

/// What a label says beyond the box.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Nothing.
    Box,
    /// Corners of the outline.
    Polygon(Vec<[f64; 2]>),
    /// The keypoints.
    Keypoints(Vec<Keypoint>),
    /// The corners of the turned box.
    Oriented([[f64; 2]; 4]),
}

/// One labelled object; coordinates are shares of the picture's width and height.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Index of the class.
    pub class: usize,
    /// Corners `[x1, y1, x2, y2]` of the box, or of the bounding box.
    pub xyxy: [f64; 4],
    /// What the label says beyond that.
    pub shape: Shape,
}

/// The labels of one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// The objects, in the order of the file.
    pub objects: Vec<Object>,
    /// Lines that repeat another one; they are dropped.
    pub n_duplicates: usize,
    /// Whether there is no label file, which means a picture without objects.
    pub is_missing: bool,
}

impl Labels {
    /// Reads a label file. If there is none the picture shows no object.
    ///
    /// Errors with `ErrorKind::Label`, naming file and line, if a line is not of `kind`, holds what is not a number,
    /// a coordinate below 0 or above 1 (by more than rounding explains), a negative width or height, or a class that is
    /// not below `n_classes`.
    pub fn read(path: &Path, kind: LabelKind, n_classes: usize) -> Result<Self> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { is_missing: true, ..Self::default() });
            }
            Err(error) => return Err(Error::io(path, error)),
        };
        if !meta.is_file() {
            return Err(Error::label(path, "is not a regular file"));
        }
        if meta.len() > MAX_BYTES {
            return Err(Error::label(path, format!("has {} bytes, at most {MAX_BYTES}", meta.len())));
        }
        let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| Error::label(path, "is no text").with_source(error))?;
        Self::parse(path, text, kind, n_classes)
    }

    /// As [`Labels::read`], from the text of the file; `path` is what errors call it.
    pub fn parse(path: &Path, text: &str, kind: LabelKind, n_classes: usize) -> Result<Self> {
        let mut labels = Self::default();
        let mut seen = HashSet::new();
        for (idx, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let in_line = |message| Error::label_line(path, idx + 1, message);
            let (class, values) = parse_line(line, n_classes).map_err(in_line)?;
            let bits: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
            if !seen.insert((class, bits)) {
                labels.n_duplicates += 1;
                continue;
            }
            let (xyxy, shape) = shape_of(&values, kind).map_err(in_line)?;
            labels.objects.push(Object { class, xyxy, shape });
        }
        Ok(labels)
    }
}

/// The class, and the numbers after it.
fn parse_line(line: &str, n_classes: usize) -> std::result::Result<(usize, Vec<f64>), String> {
    let number = |word: &str| match word.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{:?} is not a number", shortened(word))),
    };
    let mut words = line.split_whitespace();
    // Some programs write classes as 3.0.
    let class = number(words.next().unwrap_or_default())?;
    if class < 0.0 || class.fract() != 0.0 {
        return Err(format!("{class} is no index of a class"));
    }
    if class >= n_classes as f64 {
        return Err(format!(
            "got class {class}, the data set has classes 0 to {}",
            n_classes.saturating_sub(1)
        ));
    }
    let values = words.map(number).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((class as usize, values))
}

fn shape_of(values: &[f64], kind: LabelKind) -> std::result::Result<([f64; 4], Shape), String> {
    let n = values.len();
    let wrong = |expected: &str| Err(format!("got {n} numbers after the class, expected {expected}"));
    let is_polygon = n >= 6 && n.is_multiple_of(2);
    match kind {
        LabelKind::Box if n == 4 => Ok((box_of(values)?, Shape::Box)),
        LabelKind::Box if is_polygon => Ok((bounds(&points(values)?), Shape::Box)),
        LabelKind::Box => wrong("4 for a box, or x and y of at least 3 corners"),
        LabelKind::Polygon if is_polygon => {
            let corners = points(values)?;
            Ok((bounds(&corners), Shape::Polygon(corners)))
        }
        LabelKind::Polygon => wrong("x and y of at least 3 corners"),
        LabelKind::Oriented => match points(values)?[..] {
            [a, b, c, d] if n == 8 => Ok((bounds(&[a, b, c, d]), Shape::Oriented([a, b, c, d]))),
            _ => wrong("8 for the corners of a turned box"),
        },
        LabelKind::Keypoints { n: n_keypoints, dims } => {
            if n != 4 + n_keypoints * dims {
                return wrong(&format!("4 for a box and {n_keypoints} times {dims} for keypoints"));
            }
            let (corners, rest) = values.split_at(4);
            let keypoints = rest.chunks_exact(dims).map(keypoint).collect::<std::result::Result<_, _>>()?;
            Ok((box_of(corners)?, Shape::Keypoints(keypoints)))
        }
    }
}

fn keypoint(values: &[f64]) -> std::result::Result<Keypoint, String> {
    let xy = [share(values[0])?, share(values[1])?];
    // Without a visibility a point counts as labelled unless it lies at the very corner, where absent ones are put.
    let is_labelled = match values.get(2) {
        Some(visibility) if [0.0, 1.0, 2.0].contains(visibility) => *visibility > 0.0,
        Some(visibility) => return Err(format!("got visibility {visibility}, expected 0, 1 or 2")),
        None => xy != [0.0, 0.0],
    };
    Ok(Keypoint { xy, is_labelled })
}

fn box_of(values: &[f64]) -> std::result::Result<[f64; 4], String> {
    let [x, y, w, h] = [share(values[0])?, share(values[1])?, side(values[2])?, side(values[3])?];
    Ok([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0])
}

fn points(values: &[f64]) -> std::result::Result<Vec<[f64; 2]>, String> {
    values.as_chunks().0.iter().map(|&[x, y]| Ok([share(x)?, share(y)?])).collect()
}

fn share(value: f64) -> std::result::Result<f64, String> {
    if (-SLIP..=1.0 + SLIP).contains(&value) {
        Ok(value)
    } else {
        Err(format!("got coordinate {value}, expected a share of the picture's side, 0 to 1"))
    }
}

/// A width or height.
fn side(value: f64) -> std::result::Result<f64, String> {
    if value < 0.0 {
        Err(format!("got {value} for a width or height, expected 0 to 1"))
    } else {
        share(value)
    }
}

fn bounds(points: &[[f64; 2]]) -> [f64; 4] {
    let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    points.iter().fold(start, |[x1, y1, x2, y2], &[x, y]| [x1.min(x), y1.min(y), x2.max(x), y2.max(y)])
}

/// A word that an error can show whatever the file holds.
fn shortened(word: &str) -> String {
    word.chars().take(30).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    const POSE: LabelKind = LabelKind::Keypoints { n: 2, dims: 3 };
    const POINTS: LabelKind = LabelKind::Keypoints { n: 2, dims: 2 };

    fn parse(text: &str, kind: LabelKind) -> Result<Labels> {
        Labels::parse(Path::new("a.txt"), text, kind, 3)
    }

    #[track_caller]
    fn check_error(text: &str, kind: LabelKind, expected: &str) {
        let error = parse(text, kind).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), ErrorKind::Label);
    }

    #[test]
    fn boxes() {
        let labels = parse("\u{feff}0 0.5 0.5 0.5 0.25\r\n\n2.0 0 1 1 1.005\n", LabelKind::Box).unwrap();
        assert_eq!(labels.objects.len(), 2);
        assert_eq!((labels.objects[0].class, labels.objects[0].xyxy), (0, [0.25, 0.375, 0.75, 0.625]));
        assert_eq!(labels.objects[1].class, 2);
        assert_eq!(parse(" \n\n", LabelKind::Box).unwrap(), Labels::default());
        let slip = parse("0 -0.01 0.5 0.5 0.25", LabelKind::Box).unwrap();
        assert_eq!(slip.objects[0].xyxy, [-0.26, 0.375, 0.24, 0.625]);
        let polygon = parse("1 0.1 0.2 0.4 0.1 0.3 0.8", LabelKind::Box).unwrap();
        assert_eq!(polygon.objects[0].xyxy, [0.1, 0.1, 0.4, 0.8]);
    }

    #[test]
    fn polygons() {
        let labels = parse("1 0.1 0.2 0.4 0.1 0.3 0.8", LabelKind::Polygon).unwrap();
        let corners = vec![[0.1, 0.2], [0.4, 0.1], [0.3, 0.8]];
        assert_eq!(labels.objects[0].shape, Shape::Polygon(corners));
        check_error(
            "1 0.1 0.2 0.4 0.1",
            LabelKind::Polygon,
            "a.txt:1: got 4 numbers after the class, expected x and y of at least 3 corners",
        );
        assert!(parse("1 0.1 0.2 0.4 0.1 0.3", LabelKind::Polygon).is_err());
        // What is cut at the border is often off it by a last digit.
        let cut = parse("1 -1e-7 0.2 0.4 -0.00001 1.0000001 0.8", LabelKind::Polygon).unwrap();
        assert_eq!(cut.objects[0].xyxy, [-1e-7, -0.00001, 1.0000001, 0.8]);
    }

    #[test]
    fn keypoints() {
        let labels = parse("0 .5 .5 1 1 .1 .2 2 0 0 0", POSE).unwrap();
        let expected =
            [([0.1, 0.2], true), ([0.0, 0.0], false)].map(|(xy, is_labelled)| Keypoint { xy, is_labelled });
        assert_eq!(labels.objects[0].shape, Shape::Keypoints(expected.to_vec()));
        let labels = parse("0 .5 .5 1 1 .1 .2 0 0", POINTS).unwrap();
        assert_eq!(labels.objects[0].shape, Shape::Keypoints(expected.to_vec()));
        check_error(
            "\n0 .5 .5 1 1 .1 .2 2",
            POSE,
            "a.txt:2: got 7 numbers after the class, expected 4 for a box and 2 times 3 for keypoints",
        );
        check_error("0 .5 .5 1 1 .1 .2 3 0 0 0", POSE, "a.txt:1: got visibility 3, expected 0, 1 or 2");
    }

    #[test]
    fn turned_boxes() {
        let labels = parse("0 0 0 1 0 1 1 0 1", LabelKind::Oriented).unwrap();
        let corners = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        assert_eq!(labels.objects[0].shape, Shape::Oriented(corners));
        for bad in ["0 .5 .5 .5 .5", "0 0 0 1 0 1 1 0 1 .5", "0 0 0 1 0 1 1 0 1 .5 .5", "0"] {
            assert!(parse(bad, LabelKind::Oriented).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_that_repeat_are_counted() {
        let labels = parse("0 .5 .5 .5 .5\n0 .50 .5 .5 .5\n1 .5 .5 .5 .5\n", LabelKind::Box).unwrap();
        assert_eq!((labels.objects.len(), labels.n_duplicates), (2, 1));
    }

    #[test]
    fn bad_lines_are_named() {
        let good = "0 .5 .5 .5 .5\n";
        for (line, message) in [
            ("3 .5 .5 .5 .5", "got class 3, the data set has classes 0 to 2"),
            ("-1 .5 .5 .5 .5", "-1 is no index of a class"),
            ("0.5 .5 .5 .5 .5", "0.5 is no index of a class"),
            ("1e300 .5 .5 .5 .5", "got class 1"),
            ("x .5 .5 .5 .5", "\"x\" is not a number"),
            ("0 nan .5 .5 .5", "\"nan\" is not a number"),
            ("0 inf .5 .5 .5", "\"inf\" is not a number"),
            ("0 1.02 .5 .5 .5", "got coordinate 1.02, expected a share of the picture's side, 0 to 1"),
            ("0 .5 -.011 .1 .5", "got coordinate -0.011, expected a share of the picture's side, 0 to 1"),
            ("0 .5 .5 -.001 .5", "got -0.001 for a width or height, expected 0 to 1"),
            ("0 .5 .5 .5 1.02", "got coordinate 1.02"),
            ("0 320 240 50 60", "got coordinate 320"),
            ("0 .5 .5 .5", "got 3 numbers after the class"),
            ("0 .5 .5 .5 .5 .9", "got 5 numbers after the class"),
            ("0", "got 0 numbers after the class"),
        ] {
            let told = parse(&format!("{good}{line}\n{good}"), LabelKind::Box).unwrap_err().to_string();
            assert!(told.starts_with(&format!("a.txt:2: {message}")), "{told}");
        }
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| Labels::read(&dir.path().join(name), LabelKind::Box, 3);
        assert!(read("absent.txt").unwrap().is_missing);
        fs::write(dir.path().join("a.txt"), b"").unwrap();
        assert_eq!(read("a.txt").unwrap(), Labels::default());
        fs::write(dir.path().join("b.txt"), b"\xff\xfe0").unwrap();
        assert!(read("b.txt").unwrap_err().to_string().ends_with("b.txt: is no text"));
        fs::create_dir(dir.path().join("c.txt")).unwrap();
        assert!(read("c.txt").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-0-9. a-z\n\t]{0,200}|.{0,200}") {
            for kind in [LabelKind::Box, LabelKind::Polygon, POSE, POINTS, LabelKind::Oriented] {
                if let Ok(labels) = parse(&text, kind) {
                    for object in &labels.objects {
                        prop_assert!(object.class < 3 && object.xyxy.iter().all(|side| side.is_finite()));
                    }
                }
            }
        }
    }
}
