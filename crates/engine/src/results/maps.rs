//! A value for each pixel: classes and distances.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::gray;

/// Steps of a depth PNG per meter.
const DEPTH_STEPS: f32 = 256.0;

/// The class of every pixel of a picture. A network of one class gives 1 where it is and 0 elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ClassMapParts")]
pub struct ClassMap {
    shape: [usize; 2],
    classes: Vec<u16>,
}

/// A class map that has not been checked yet.
#[derive(Deserialize)]
struct ClassMapParts {
    shape: [usize; 2],
    classes: Vec<u16>,
}

impl TryFrom<ClassMapParts> for ClassMap {
    type Error = Error;

    fn try_from(parts: ClassMapParts) -> Result<Self> {
        Self::new(parts.shape, parts.classes)
    }
}

impl ClassMap {
    /// Takes the classes of a picture of `shape` (height, width), row after row.
    ///
    /// Errors with `ErrorKind::Shape` unless there is one for each pixel.
    pub fn new(shape: [usize; 2], classes: Vec<u16>) -> Result<Self> {
        check_len("class map", shape, classes.len())?;
        Ok(Self { shape, classes })
    }

    /// Height and width of the picture.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Class indices row after row.
    #[must_use]
    pub fn classes(&self) -> &[u16] {
        &self.classes
    }

    /// Classes that appear, by index, with the number of their pixels.
    #[must_use]
    pub fn counts(&self) -> Vec<(usize, usize)> {
        let mut counts = Vec::new();
        // Neighbors are mostly alike, so runs are counted.
        for run in self.classes.chunk_by(|a, b| a == b) {
            let class = usize::from(run[0]);
            if counts.len() <= class {
                counts.resize(class + 1, 0);
            }
            counts[class] += run.len();
        }
        counts.into_iter().enumerate().filter(|&(_, count)| count > 0).collect()
    }

    /// The map as a gray PNG whose values are class indices: of 8 bits, or of 16 if a class is above 255.
    ///
    /// Errors with `ErrorKind::Image` if a PNG can't hold it.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        gray::encode_png(self.shape, &self.classes)
    }
}

/// The distance of every pixel of a picture from the camera, in meters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DepthMapParts")]
pub struct DepthMap {
    shape: [usize; 2],
    meters: Vec<f32>,
}

/// A depth map that has not been checked yet.
#[derive(Deserialize)]
struct DepthMapParts {
    shape: [usize; 2],
    meters: Vec<f32>,
}

impl TryFrom<DepthMapParts> for DepthMap {
    type Error = Error;

    fn try_from(parts: DepthMapParts) -> Result<Self> {
        Self::new(parts.shape, parts.meters)
    }
}

/// Smallest, largest and mean distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthRange {
    /// Nearest, in meters.
    pub min: f32,
    /// Farthest, in meters.
    pub max: f32,
    /// Mean, in meters.
    pub mean: f32,
}

impl DepthMap {
    /// Takes the distances of a picture of `shape` (height, width), row after row.
    ///
    /// Errors with `ErrorKind::Shape` unless there is one for each pixel.
    pub fn new(shape: [usize; 2], meters: Vec<f32>) -> Result<Self> {
        check_len("depth map", shape, meters.len())?;
        Ok(Self { shape, meters })
    }

    /// Height and width of the picture.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Distances row after row, in meters.
    #[must_use]
    pub fn meters(&self) -> &[f32] {
        &self.meters
    }

    /// The map as a gray PNG of 16 bits: the distance in meters times 256, rounded, from 1 to 65535; 0 where it is not
    /// known. This is how KITTI's depth maps are written.
    ///
    /// Errors with `ErrorKind::Image` if a PNG can't hold it.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let step = |&meters: &f32| {
            let is_known = meters.is_finite();
            if is_known { (meters * DEPTH_STEPS).round().clamp(1.0, f32::from(u16::MAX)) as u16 } else { 0 }
        };
        gray::encode_png16(self.shape, &self.meters.iter().map(step).collect::<Vec<_>>())
    }

    /// Nearest, farthest and mean distance of the pixels that have one; `None` if none has.
    #[must_use]
    pub fn range(&self) -> Option<DepthRange> {
        let (mut min, mut max, mut sum, mut count) = (f32::INFINITY, f32::NEG_INFINITY, 0.0f64, 0usize);
        for &value in self.meters.iter().filter(|value| value.is_finite()) {
            (min, max) = (min.min(value), max.max(value));
            sum += f64::from(value);
            count += 1;
        }
        (count > 0).then(|| DepthRange { min, max, mean: (sum / count as f64) as f32 })
    }
}

fn check_len(at: &str, shape: [usize; 2], got: usize) -> Result<()> {
    if shape[0].checked_mul(shape[1]) == Some(got) {
        return Ok(());
    }
    Err(Error::shape(at, format!("got {got} values for a picture of {shape:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_by_class() {
        let map = ClassMap::new([2, 3], vec![4, 4, 0, 4, 300, 0]).unwrap();
        assert_eq!(map.counts(), [(0, 2), (4, 3), (300, 1)]);
        assert!(ClassMap::new([0, 0], Vec::new()).unwrap().counts().is_empty());
        assert!(ClassMap::new([2, 3], vec![0; 5]).is_err());
    }

    fn decoded(png: &[u8]) -> (image::ColorType, Vec<u16>) {
        let picture = image::load_from_memory(png).unwrap();
        (picture.color(), picture.to_luma16().into_raw())
    }

    #[test]
    fn maps_are_gray_pngs() {
        let map = ClassMap::new([1, 3], vec![0, 7, 255]).unwrap();
        assert_eq!(decoded(&map.to_png().unwrap()), (image::ColorType::L8, vec![0, 7 * 257, 65535]));
        let map = ClassMap::new([1, 2], vec![0, 256]).unwrap();
        assert_eq!(decoded(&map.to_png().unwrap()), (image::ColorType::L16, vec![0, 256]));
        let map = DepthMap::new([1, 4], vec![1.0, 0.0, 1e9, f32::NAN]).unwrap();
        assert_eq!(decoded(&map.to_png().unwrap()), (image::ColorType::L16, vec![256, 1, 65535, 0]));
        assert!(ClassMap::new([0, 1], Vec::new()).unwrap().to_png().is_err());
    }

    #[test]
    fn a_range_is_of_what_is_known() {
        let map = DepthMap::new([1, 4], vec![1.0, f32::INFINITY, 4.0, f32::NAN]).unwrap();
        assert_eq!(map.range(), Some(DepthRange { min: 1.0, max: 4.0, mean: 2.5 }));
        assert_eq!(DepthMap::new([1, 1], vec![f32::NAN]).unwrap().range(), None);
        assert!(DepthMap::new([usize::MAX, 2], Vec::new()).is_err());
    }
}
