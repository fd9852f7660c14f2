//! The keypoints of objects.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One keypoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keypoint {
    /// Position `[x, y]` in pixels of the picture.
    pub xy: [f32; 2],
    /// How sure the network is that the point can be seen, 0 to 1; `None` if it does not say.
    pub visible: Option<f32>,
}

/// The keypoints of the objects of a picture, in the order of the boxes.
///
/// Each object has the same number of them, in the order in which the network was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "KeypointsParts")]
pub struct Keypoints {
    orig_shape: [usize; 2],
    n_points: usize,
    points: Vec<Keypoint>,
}

/// Keypoints that have not been checked yet.
#[derive(Deserialize)]
struct KeypointsParts {
    orig_shape: [usize; 2],
    n_points: usize,
    points: Vec<Keypoint>,
}

impl TryFrom<KeypointsParts> for Keypoints {
    type Error = Error;

    fn try_from(KeypointsParts { orig_shape, n_points, points }: KeypointsParts) -> Result<Self> {
        if n_points == 0 || !points.len().is_multiple_of(n_points) {
            let message = format!("got {} points for objects of {n_points}", points.len());
            return Err(Error::shape("keypoints", message));
        }
        Ok(Self { orig_shape, n_points, points })
    }
}

impl Keypoints {
    /// No objects yet, each with `n_points` keypoints, in a picture of `orig_shape` (height, width).
    ///
    /// Zero points are taken for one.
    #[must_use]
    pub fn new(orig_shape: [usize; 2], n_points: usize) -> Self {
        Self { orig_shape, n_points: n_points.max(1), points: Vec::new() }
    }

    /// Adds the points of an object behind the others.
    ///
    /// Errors with `ErrorKind::Shape` unless they are as many as those of the other objects.
    pub fn push(&mut self, points: &[Keypoint]) -> Result<()> {
        if points.len() != self.n_points {
            let message = format!("got {}, expected {}", points.len(), self.n_points);
            return Err(Error::shape("keypoints", message));
        }
        self.points.extend_from_slice(points);
        Ok(())
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len() / self.n_points
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Number of keypoints of an object.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.n_points
    }

    /// Height and width of the picture in pixels.
    #[must_use]
    pub fn orig_shape(&self) -> [usize; 2] {
        self.orig_shape
    }

    /// The points of object `idx`.
    #[must_use]
    pub fn get(&self, idx: usize) -> Option<&[Keypoint]> {
        self.iter().nth(idx)
    }

    /// The points of each object.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, Keypoint> {
        self.points.chunks_exact(self.n_points)
    }

    /// Positions `[x, y]` in pixels, object after object.
    #[must_use]
    pub fn xy(&self) -> Vec<Vec<[f32; 2]>> {
        self.iter().map(|points| points.iter().map(|point| point.xy).collect()).collect()
    }

    /// Positions as shares of the picture's width and height.
    #[must_use]
    pub fn xyn(&self) -> Vec<Vec<[f32; 2]>> {
        let [height, width] = self.orig_shape.map(|side| side as f32);
        let share = |point: &Keypoint| [point.xy[0] / width, point.xy[1] / height];
        self.iter().map(|points| points.iter().map(share).collect()).collect()
    }

    /// Whether the network says how visible points are.
    #[must_use]
    pub fn has_visible(&self) -> bool {
        self.points.first().is_some_and(|point| point.visible.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_told_by_object() {
        let mut keypoints = Keypoints::new([100, 200], 2);
        let point = |x, y, visible| Keypoint { xy: [x, y], visible };
        keypoints.push(&[point(20.0, 10.0, Some(0.5)), point(100.0, 50.0, Some(0.1))]).unwrap();
        keypoints.push(&[point(0.0, 0.0, Some(0.0)); 2]).unwrap();
        assert!(keypoints.push(&[point(1.0, 2.0, Some(1.0))]).is_err());
        assert_eq!((keypoints.len(), keypoints.n_points(), keypoints.has_visible()), (2, 2, true));
        assert_eq!(keypoints.xyn()[0], [[0.1, 0.1], [0.5, 0.5]]);
        assert_eq!(keypoints.get(1).unwrap()[1], point(0.0, 0.0, Some(0.0)));
        assert!(keypoints.get(2).is_none());
        assert!(Keypoints::new([1, 1], 0).is_empty());
    }
}
