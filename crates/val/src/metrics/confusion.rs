//! Which classes are taken for which.

use std::collections::BTreeMap;

use super::matching::Found;

/// What counts in a confusion matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfusionOptions {
    /// Detections count if their confidence is above this.
    pub conf: f32,
    /// A detection and a label are a pair if they overlap more than this.
    pub overlap: f64,
}

impl Default for ConfusionOptions {
    /// Confidence 0.25 and overlap 0.45, as is usual.
    fn default() -> Self {
        Self { conf: 0.25, overlap: 0.45 }
    }
}

/// How often a label of one class was found as another, was missed, or something was found where no label is.
///
/// The index after the last class stands for the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    n_classes: usize,
    counts: BTreeMap<(usize, usize), u64>,
}

impl ConfusionMatrix {
    /// An empty matrix of `n_classes` and the background.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        Self { n_classes, counts: BTreeMap::new() }
    }

    /// Number of classes, without the background.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Index of the background.
    #[must_use]
    pub fn background(&self) -> usize {
        self.n_classes
    }

    /// How often what is labelled `truth` was found as `found`.
    #[must_use]
    pub fn count(&self, found: usize, truth: usize) -> u64 {
        self.counts.get(&(found, truth)).copied().unwrap_or(0)
    }

    /// Counts one pair.
    pub fn add(&mut self, found: usize, truth: usize) {
        *self.counts.entry((found, truth)).or_default() += 1;
    }

    /// Adds what another matrix of as many classes has counted.
    pub fn merge(&mut self, other: &Self) {
        for (&pair, &count) in &other.counts {
            *self.counts.entry(pair).or_default() += count;
        }
    }

    /// Counts the detections and labels of a picture.
    ///
    /// Pairs are made whatever their classes, by falling overlap; each detection and each label is in one pair at most.
    pub fn add_picture(
        &mut self,
        options: &ConfusionOptions,
        found: &[Found],
        truth_classes: &[usize],
        overlap: impl Fn(usize, usize) -> f64,
    ) {
        let counted: Vec<usize> =
            (0..found.len()).filter(|&idx| found[idx].confidence > options.conf).collect();
        let mut pairs = Vec::new();
        for &detection in &counted {
            for truth in 0..truth_classes.len() {
                let overlap = overlap(detection, truth);
                if overlap > options.overlap {
                    pairs.push((overlap, detection, truth));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut detection_of, mut is_paired) = (vec![None; truth_classes.len()], vec![false; found.len()]);
        for (_, detection, truth) in pairs {
            if detection_of[truth].is_none() && !is_paired[detection] {
                detection_of[truth] = Some(detection);
                is_paired[detection] = true;
            }
        }
        for (detection, &truth) in detection_of.iter().zip(truth_classes) {
            self.add(detection.map_or(self.n_classes, |idx| found[idx].class), truth);
        }
        for idx in counted.into_iter().filter(|&idx| !is_paired[idx]) {
            self.add(found[idx].class, self.n_classes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_by_overlap() {
        let found =
            [(0, 0.9), (1, 0.8), (1, 0.7), (1, 0.2)].map(|(class, confidence)| Found { class, confidence });
        let overlaps = [[0.5, 0.0, 0.0], [0.6, 0.9, 0.0], [0.0, 0.46, 0.0], [0.0, 0.0, 1.0]];
        let mut matrix = ConfusionMatrix::new(2);
        matrix.add_picture(&ConfusionOptions::default(), &found, &[0, 0, 1], |a, b| overlaps[a][b]);
        // Detection 0 is label 0; detection 1 is label 1 under a wrong name; 2 is left over; 3 is too unsure.
        assert_eq!(matrix.count(0, 0), 1);
        assert_eq!(matrix.count(1, 0), 1);
        assert_eq!(matrix.count(1, matrix.background()), 1);
        assert_eq!(matrix.count(matrix.background(), 1), 1);
        assert_eq!(matrix.counts.values().sum::<u64>(), 4);
        matrix.merge(&matrix.clone());
        assert_eq!((matrix.count(0, 0), matrix.counts.values().sum::<u64>()), (2, 8));
    }
}
