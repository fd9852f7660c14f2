//! The boxes of a picture.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One box with its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Corners `[x1, y1, x2, y2]` in pixels of the picture.
    pub xyxy: [f32; 4],
    /// How sure the network is, 0 to 1.
    pub confidence: f32,
    /// Index of the class.
    pub class: usize,
}

/// Boxes in a picture, with confidence and class.
///
/// `xyxy` are left, top, right and bottom edges, `xywh` center, width and height, in pixels of the picture. With a
/// trailing `n` they are shares of the picture's width and height.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BoxesParts")]
pub struct Boxes {
    orig_shape: [usize; 2],
    xyxy: Vec<[f32; 4]>,
    conf: Vec<f32>,
    cls: Vec<usize>,
}

/// Boxes that have not been checked yet.
#[derive(Deserialize)]
struct BoxesParts {
    orig_shape: [usize; 2],
    xyxy: Vec<[f32; 4]>,
    conf: Vec<f32>,
    cls: Vec<usize>,
}

impl TryFrom<BoxesParts> for Boxes {
    type Error = Error;

    fn try_from(BoxesParts { orig_shape, xyxy, conf, cls }: BoxesParts) -> Result<Self> {
        if xyxy.len() != conf.len() || xyxy.len() != cls.len() {
            let got = [xyxy.len(), conf.len(), cls.len()];
            return Err(Error::shape("boxes", format!("got {got:?} boxes, confidences and classes")));
        }
        Ok(Self { orig_shape, xyxy, conf, cls })
    }
}

impl Boxes {
    /// No boxes yet, in a picture of `orig_shape` (height, width).
    #[must_use]
    pub fn new(orig_shape: [usize; 2]) -> Self {
        Self { orig_shape, xyxy: Vec::new(), conf: Vec::new(), cls: Vec::new() }
    }

    /// Adds a box behind the others.
    pub fn push(&mut self, xyxy: [f32; 4], confidence: f32, class: usize) {
        self.xyxy.push(xyxy);
        self.conf.push(confidence);
        self.cls.push(class);
    }

    /// Number of boxes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.xyxy.len()
    }

    /// Whether there is no box.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.xyxy.is_empty()
    }

    /// Height and width of the picture in pixels.
    #[must_use]
    pub fn orig_shape(&self) -> [usize; 2] {
        self.orig_shape
    }

    /// Corners `[x1, y1, x2, y2]` in pixels.
    #[must_use]
    pub fn xyxy(&self) -> &[[f32; 4]] {
        &self.xyxy
    }

    /// Center, width and height `[x, y, w, h]` in pixels.
    #[must_use]
    pub fn xywh(&self) -> Vec<[f32; 4]> {
        self.xyxy.iter().copied().map(xywh).collect()
    }

    /// Corners as shares of the picture's width and height.
    #[must_use]
    pub fn xyxyn(&self) -> Vec<[f32; 4]> {
        self.xyxy.iter().map(|&corners| self.shares(corners)).collect()
    }

    /// Center, width and height as shares of the picture's width and height.
    #[must_use]
    pub fn xywhn(&self) -> Vec<[f32; 4]> {
        self.xyxy.iter().map(|&corners| self.shares(xywh(corners))).collect()
    }

    /// Confidences, 0 to 1.
    #[must_use]
    pub fn conf(&self) -> &[f32] {
        &self.conf
    }

    /// Class indices.
    #[must_use]
    pub fn cls(&self) -> &[usize] {
        &self.cls
    }

    /// The boxes one by one.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Detection> + ExactSizeIterator + '_ {
        let scores = self.conf.iter().zip(&self.cls);
        let join = |(&xyxy, (&confidence, &class))| Detection { xyxy, confidence, class };
        self.xyxy.iter().zip(scores).map(join)
    }

    fn shares(&self, [x1, y1, x2, y2]: [f32; 4]) -> [f32; 4] {
        let [height, width] = self.orig_shape.map(|side| side as f32);
        [x1 / width, y1 / height, x2 / width, y2 / height]
    }
}

fn xywh([x1, y1, x2, y2]: [f32; 4]) -> [f32; 4] {
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0, x2 - x1, y2 - y1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_box() {
        let mut boxes = Boxes::new([100, 200]);
        assert!(boxes.is_empty());
        boxes.push([20.0, 10.0, 60.0, 30.0], 0.5, 3);
        boxes.push([0.0, 0.0, 200.0, 100.0], 0.25, 1);
        assert_eq!(boxes.len(), 2);
        assert_eq!(boxes.xywh(), [[40.0, 20.0, 40.0, 20.0], [100.0, 50.0, 200.0, 100.0]]);
        assert_eq!(boxes.xyxyn(), [[0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 1.0, 1.0]]);
        assert_eq!(boxes.xywhn(), [[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0]]);
        let last = Detection { xyxy: [0.0, 0.0, 200.0, 100.0], confidence: 0.25, class: 1 };
        assert_eq!(boxes.iter().next_back(), Some(last));
        assert_eq!((boxes.conf(), boxes.cls()), (&[0.5, 0.25][..], &[3, 1][..]));
    }
}
