//! Precision, recall and F1 over the confidence from which on detections count.

use super::precision::PrecisionRecall;

/// Confidences at which curves are looked up: 0 to 1, evenly spaced.
pub const N_CONFIDENCES: usize = 1000;

/// Width of the moving average by which the best confidence is found, in points of a curve.
const SMOOTHING: usize = N_CONFIDENCES / 10 + 1;

/// The means of all classes at [`N_CONFIDENCES`] confidences from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Share of the detections that are right.
    pub precision: Vec<f64>,
    /// Share of the labels that are found.
    pub recall: Vec<f64>,
    /// Harmonic mean of both, of each class by itself.
    pub f1: Vec<f64>,
}

impl Curve {
    /// All zero.
    pub(super) fn new() -> Self {
        let zeros = vec![0.0; N_CONFIDENCES];
        Self { precision: zeros.clone(), recall: zeros.clone(), f1: zeros }
    }

    /// Adds the curve of a class, which is one of `n_classes`.
    ///
    /// `confidences` fall, one for each point of `curve`. A class without detections adds nothing.
    pub(super) fn add(&mut self, confidences: &[f32], curve: &PrecisionRecall, n_classes: usize) {
        if confidences.is_empty() {
            return;
        }
        let share = 1.0 / n_classes as f64;
        for idx in 0..N_CONFIDENCES {
            let (precision, recall) = at(confidences, curve, confidence(idx));
            self.precision[idx] += precision * share;
            self.recall[idx] += recall * share;
            self.f1[idx] += f1(precision, recall) * share;
        }
    }

    /// The confidence with the best F1, after a moving average that passes over single peaks.
    #[must_use]
    pub fn best_confidence(&self) -> f64 {
        let half = SMOOTHING / 2;
        let clamped = |idx: usize| self.f1[idx.saturating_sub(half).min(N_CONFIDENCES - 1)];
        let mut best = (0, f64::NEG_INFINITY);
        for idx in 0..N_CONFIDENCES {
            let mean = (idx..idx + SMOOTHING).map(clamped).sum::<f64>() / SMOOTHING as f64;
            if mean > best.1 {
                best = (idx, mean);
            }
        }
        confidence(best.0)
    }
}

fn confidence(idx: usize) -> f64 {
    idx as f64 / (N_CONFIDENCES - 1) as f64
}

/// Precision and recall of a class if detections count from `confidence` on.
///
/// Between two detections both change along a line; above the surest one precision is 1 and recall 0.
pub fn at(confidences: &[f32], curve: &PrecisionRecall, confidence: f64) -> (f64, f64) {
    let Some(&surest) = confidences.first() else { return (0.0, 0.0) };
    if confidence > f64::from(surest) {
        return (1.0, 0.0);
    }
    let next = confidences.partition_point(|&known| f64::from(known) >= confidence);
    let last = next.saturating_sub(1);
    let share = confidences.get(next).map_or(0.0, |&below| {
        let above = f64::from(confidences[last]);
        (above - confidence) / (above - f64::from(below))
    });
    let value =
        |values: &[f64]| values[last] + share * (values.get(next).copied().unwrap_or(0.0) - values[last]);
    (value(&curve.precision), value(&curve.recall))
}

/// Harmonic mean; 0 if both are.
pub fn f1(precision: f64, recall: f64) -> f64 {
    let sum = precision + recall;
    if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_by_hand() {
        let curve = PrecisionRecall::new([true, false, true].into_iter(), 4);
        let confidences = [0.8, 0.6, 0.4];
        assert_eq!(at(&confidences, &curve, 0.9), (1.0, 0.0));
        let near = |confidence, (precision, recall): (f64, f64)| {
            let (p, r) = at(&confidences, &curve, confidence);
            assert!((p - precision).abs() < 1e-6 && (r - recall).abs() < 1e-6, "{p} {r}");
        };
        near(f64::from(0.8f32), (1.0, 0.25));
        near(0.7, (0.75, 0.25));
        near(0.5, ((0.5 + 2.0 / 3.0) / 2.0, 0.375));
        near(0.0, (2.0 / 3.0, 0.5));
        assert_eq!(at(&[], &PrecisionRecall::default(), 0.5), (0.0, 0.0));
        assert_eq!((f1(0.0, 0.0), f1(1.0, 1.0), f1(0.5, 0.25)), (0.0, 1.0, 1.0 / 3.0));
    }

    #[test]
    fn the_best_confidence_lies_on_a_plateau() {
        let mut curve = Curve::new();
        assert_eq!(curve.best_confidence(), 0.0);
        curve.f1[400..700].fill(0.5);
        curve.f1[100] = 1.0;
        let best = curve.best_confidence();
        assert!((0.44..0.46).contains(&best), "{best}");
    }
}
