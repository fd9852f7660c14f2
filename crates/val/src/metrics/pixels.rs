//! Semantic segmentation, pixel by pixel.

use crate::dataset::{IGNORED, n_map_values};

/// Counts pixels by class.
#[derive(Clone, Debug)]
pub struct PixelCounts {
    /// For each value of the maps: pixels labelled so, found so, and both.
    values: Vec<[u64; 3]>,
    /// The value of the first class.
    first: usize,
}

/// How well the classes of pixels are found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PixelMetrics {
    /// Mean intersection over union of the classes that are labelled somewhere.
    pub mean_iou: f64,
    /// Share of the labelled pixels whose class is right.
    pub accuracy: f64,
    /// Labelled pixels.
    pub n_pixels: u64,
    /// Of each class by index: labelled pixels, and intersection over union, if it is labelled or found somewhere.
    pub classes: Vec<(u64, Option<f64>)>,
}

impl PixelCounts {
    /// Nothing counted yet, of `n_classes`. The maps of a single class have 1 where it is and 0 elsewhere, which then is
    /// a value but no class.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        let n_values = n_map_values(n_classes);
        Self { values: vec![[0; 3]; n_values], first: n_values - n_classes }
    }

    /// Counts the pixels of a picture. Labels that are no value of the maps, and [`IGNORED`], are passed over.
    ///
    /// Pixels beyond the end of the shorter one are left out.
    pub fn add(&mut self, found: &[u16], truth: &[u8]) {
        for (&found, &truth) in found.iter().zip(truth) {
            let is_ignored = truth == IGNORED;
            let (found, truth) = (usize::from(found), usize::from(truth));
            if is_ignored || truth >= self.values.len() {
                continue;
            }
            self.values[truth][0] += 1;
            // A class that the data set does not have is wrong wherever it is found.
            if let Some(counts) = self.values.get_mut(found) {
                counts[1] += 1;
            }
            if found == truth {
                self.values[truth][2] += 1;
            }
        }
    }

    /// Adds what has been counted elsewhere, of as many classes.
    pub fn merge(&mut self, other: &Self) {
        for (counts, more) in self.values.iter_mut().zip(&other.values) {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }

    /// Works the metrics out.
    #[must_use]
    pub fn finish(&self) -> PixelMetrics {
        let iou = |&[truth, found, both]: &[u64; 3]| {
            let union = truth + found - both;
            (union > 0).then(|| both as f64 / union as f64)
        };
        let classes: Vec<_> =
            self.values[self.first..].iter().map(|counts| (counts[0], iou(counts))).collect();
        let labelled = classes.iter().filter(|(n_labelled, _)| *n_labelled > 0);
        let ious: Vec<f64> = labelled.filter_map(|(_, iou)| *iou).collect();
        let n_pixels = self.values.iter().map(|counts| counts[0]).sum();
        let n_right: u64 = self.values.iter().map(|counts| counts[2]).sum();
        PixelMetrics {
            // The sum of nothing is -0.
            mean_iou: (ious.iter().sum::<f64>() + 0.0) / ious.len().max(1) as f64,
            accuracy: if n_pixels == 0 { 0.0 } else { n_right as f64 / n_pixels as f64 },
            n_pixels,
            classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_by_hand() {
        let mut counts = PixelCounts::new(4);
        counts.add(&[0, 0, 1, 1, 2, 9], &[0, 1, 1, 1, 255, 0]);
        let metrics = counts.finish();
        // Class 0: one of three; class 1: two of three; class 2 is found where nothing is labelled; 3 is nowhere.
        assert_eq!(metrics.classes, [(2, Some(1.0 / 3.0)), (3, Some(2.0 / 3.0)), (0, None), (0, None)]);
        assert_eq!((metrics.mean_iou, metrics.accuracy, metrics.n_pixels), (0.5, 0.6, 5));
        counts.merge(&counts.clone());
        assert_eq!((counts.finish().mean_iou, counts.finish().n_pixels), (0.5, 10));
        // A class that is found and labelled nowhere harms those whose pixels it takes, and has no part in the mean.
        let mut counts = PixelCounts::new(2);
        counts.add(&[0, 0, 1, 1], &[0, 0, 0, 0]);
        assert_eq!((counts.finish().mean_iou, counts.finish().classes[1]), (0.5, (0, Some(0.0))));
        let nothing = PixelCounts::new(2).finish().mean_iou;
        assert!(nothing == 0.0 && nothing.is_sign_positive());
    }

    #[test]
    fn a_single_class_is_told_from_the_rest() {
        let mut counts = PixelCounts::new(1);
        counts.add(&[1, 1, 0, 0, 0, 1], &[1, 0, 1, 0, 0, 255]);
        let metrics = counts.finish();
        assert_eq!(metrics.classes, [(2, Some(1.0 / 3.0))]);
        assert_eq!((metrics.mean_iou, metrics.accuracy, metrics.n_pixels), (1.0 / 3.0, 0.6, 5));
        let mut counts = PixelCounts::new(1);
        counts.add(&[0, 0, 0, 1], &[0; 4]);
        assert_eq!((counts.finish().mean_iou, counts.finish().accuracy), (0.0, 0.75));
    }

    #[test]
    fn what_is_ignored_is_no_class_of_many() {
        let mut counts = PixelCounts::new(300);
        counts.add(&[255, 254], &[255, 254]);
        assert_eq!((counts.finish().n_pixels, counts.finish().mean_iou), (1, 1.0));
    }
}
