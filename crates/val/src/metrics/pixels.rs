//! Semantic segmentation, pixel by pixel.

/// Counts pixels by class.
#[derive(Clone, Debug)]
pub struct PixelCounts {
    /// For each class: pixels labelled so, found so, and both.
    classes: Vec<[u64; 3]>,
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
    /// Nothing counted yet, of `n_classes`.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        Self { classes: vec![[0; 3]; n_classes] }
    }

    /// Counts the pixels of a picture. Labels that are no class, such as [`crate::dataset::IGNORED`], are passed over.
    ///
    /// Pixels beyond the end of the shorter one are left out.
    pub fn add(&mut self, found: &[u16], truth: &[u8]) {
        for (&found, &truth) in found.iter().zip(truth) {
            let (found, truth) = (usize::from(found), usize::from(truth));
            if truth >= self.classes.len() {
                continue;
            }
            self.classes[truth][0] += 1;
            // A class that the data set does not have is wrong wherever it is found.
            if let Some(counts) = self.classes.get_mut(found) {
                counts[1] += 1;
            }
            if found == truth {
                self.classes[truth][2] += 1;
            }
        }
    }

    /// Adds what has been counted elsewhere, of as many classes.
    pub fn merge(&mut self, other: &Self) {
        for (counts, more) in self.classes.iter_mut().zip(&other.classes) {
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
        let classes: Vec<_> = self.classes.iter().map(|counts| (counts[0], iou(counts))).collect();
        let labelled = classes.iter().filter(|(n_labelled, _)| *n_labelled > 0);
        let ious: Vec<f64> = labelled.filter_map(|(_, iou)| *iou).collect();
        let n_pixels = self.classes.iter().map(|counts| counts[0]).sum();
        let n_right: u64 = self.classes.iter().map(|counts| counts[2]).sum();
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
        let nothing = PixelCounts::new(1).finish().mean_iou;
        assert!(nothing == 0.0 && nothing.is_sign_positive());
    }
}
