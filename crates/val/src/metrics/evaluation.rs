//! Matches of all pictures, and the metrics they make.

use std::collections::BTreeMap;

use super::curves::{self, Curve};
use super::matching::{Labelled, Match, N_THRESHOLDS, Verdict};
use super::precision::{AveragePrecision, N_RECALLS, PrecisionRecall};

/// Gathers the matches of pictures.
///
/// Pictures count in the order in which they are added only where confidences of different pictures are equal.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    classes: BTreeMap<usize, OfClass>,
    n_pictures: usize,
}

#[derive(Clone, Debug, Default)]
struct OfClass {
    /// Confidences of detections, and what they are worth.
    rated: Vec<(f32, Verdict)>,
    n_truths: usize,
    n_pictures: usize,
}

/// The metrics of one class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassMetrics {
    /// Index of the class.
    pub class: usize,
    /// Pictures that have a label of this class.
    pub n_pictures: usize,
    /// Labels of this class.
    pub n_instances: usize,
    /// Share of the detections that are right, at an overlap of 0.5 and [`Metrics::confidence`].
    pub precision: f64,
    /// Share of the labels that are found, at the same point.
    pub recall: f64,
    /// Average precision as COCO defines it.
    pub ap: AveragePrecision,
    /// Average precision as Ultralytics computes it, by lines between the points of the curve.
    pub ap_of_lines: AveragePrecision,
    /// Precision at recalls of 0.00, 0.01, ..., 1.00, at an overlap of 0.5.
    pub precision_by_recall: Vec<f64>,
}

/// The metrics of a data set. Means are over the classes that have labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Pictures that were looked at.
    pub n_pictures: usize,
    /// Labels of all classes.
    pub n_instances: usize,
    /// The confidence at which the mean F1 is best.
    pub confidence: f64,
    /// Mean precision at that confidence.
    pub precision: f64,
    /// Mean recall at that confidence.
    pub recall: f64,
    /// Mean average precision as COCO defines it.
    pub ap: AveragePrecision,
    /// Mean average precision as Ultralytics computes it.
    pub ap_of_lines: AveragePrecision,
    /// The classes that have labels, by index.
    pub classes: Vec<ClassMetrics>,
    /// Mean precision, recall and F1 over the confidence, at an overlap of 0.5.
    pub curve: Curve,
}

impl Evaluation {
    /// Adds a picture by the matches of its detections and by its labels, of which those that are ignored do not count.
    pub fn add(&mut self, matches: &[Match], labelled: &[Labelled]) {
        self.n_pictures += 1;
        for found in matches {
            let of_class = self.classes.entry(found.found.class).or_default();
            of_class.rated.push((found.found.confidence, found.verdict));
        }
        let counted = labelled.iter().filter(|label| !label.is_ignored);
        let mut truths: Vec<usize> = counted.map(|label| label.class).collect();
        truths.sort_unstable();
        for of_class in truths.chunk_by(|a, b| a == b) {
            let entry = self.classes.entry(of_class[0]).or_default();
            entry.n_truths += of_class.len();
            entry.n_pictures += 1;
        }
    }

    /// Works the metrics out.
    #[must_use]
    pub fn finish(mut self) -> Metrics {
        // What is found of a class that no picture shows has no recall, and counts nowhere.
        self.classes.retain(|_, of_class| of_class.n_truths > 0);
        let n_classes = self.classes.len();
        let mut curve = Curve::new();
        let mut measured = Vec::with_capacity(n_classes);
        for (&class, of_class) in &mut self.classes {
            let OfClass { rated, n_truths, n_pictures } = of_class;
            rated.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            let counted = |threshold: usize| rated.iter().filter(move |(_, of)| !of.is_ignored(threshold));
            let confidences: Vec<f32> = counted(0).map(|(confidence, _)| *confidence).collect();
            let at = |threshold: usize| {
                PrecisionRecall::new(counted(threshold).map(|(_, of)| of.is_hit(threshold)), *n_truths)
            };
            let loosest = at(0);
            curve.add(&confidences, &loosest, n_classes);
            let (mut ap, mut ap_of_lines) = ([0.0; N_THRESHOLDS], [0.0; N_THRESHOLDS]);
            for threshold in 0..N_THRESHOLDS {
                let points = at(threshold);
                ap[threshold] = points.average();
                ap_of_lines[threshold] = points.average_of_lines();
            }
            let metrics = ClassMetrics {
                class,
                n_pictures: *n_pictures,
                n_instances: *n_truths,
                precision: 0.0,
                recall: 0.0,
                ap: AveragePrecision(ap),
                ap_of_lines: AveragePrecision(ap_of_lines),
                precision_by_recall: loosest.by_recall().to_vec(),
            };
            measured.push((metrics, confidences, loosest));
        }
        let confidence = curve.best_confidence();
        let classes: Vec<_> = measured
            .into_iter()
            .map(|(metrics, confidences, points)| {
                let (precision, recall) = curves::at(&confidences, &points, confidence);
                ClassMetrics { precision, recall, ..metrics }
            })
            .collect();
        let mean = |value: fn(&ClassMetrics) -> f64| {
            // The sum of nothing is -0.
            (classes.iter().map(value).sum::<f64>() + 0.0) / n_classes.max(1) as f64
        };
        Metrics {
            n_pictures: self.n_pictures,
            n_instances: classes.iter().map(|class| class.n_instances).sum(),
            confidence,
            precision: mean(|class| class.precision),
            recall: mean(|class| class.recall),
            ap: AveragePrecision::over(classes.iter().map(|class| &class.ap)),
            ap_of_lines: AveragePrecision::over(classes.iter().map(|class| &class.ap_of_lines)),
            classes,
            curve,
        }
    }
}

impl Metrics {
    /// The metrics of a class, given by index; nothing if it has no labels that count.
    #[must_use]
    pub fn of_class(&self, class: usize) -> Option<&ClassMetrics> {
        let at = self.classes.binary_search_by_key(&class, |of| of.class).ok()?;
        Some(&self.classes[at])
    }

    /// Mean precision of all classes at recalls of 0.00, 0.01, ..., 1.00, at an overlap of 0.5.
    #[must_use]
    pub fn precision_by_recall(&self) -> Vec<f64> {
        let n = self.classes.len().max(1) as f64;
        (0..N_RECALLS)
            .map(|idx| self.classes.iter().map(|class| class.precision_by_recall[idx]).sum::<f64>() / n)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{Found, match_picture};

    /// Adds a picture whose detections, of one class each, overlap the labels of that class so much.
    fn add(evaluation: &mut Evaluation, found: &[(usize, f32, f64)], truth: &[usize]) {
        let detections: Vec<_> =
            found.iter().map(|&(class, confidence, _)| Found { class, confidence }).collect();
        let truth: Vec<_> = truth.iter().copied().map(Labelled::counted).collect();
        let matches = match_picture(&detections, &truth, |detection, _| found[detection].2);
        evaluation.add(&matches, &truth);
    }

    #[test]
    fn two_classes() {
        let mut evaluation = Evaluation::default();
        add(&mut evaluation, &[(0, 0.9, 1.0), (1, 0.8, 0.6), (5, 0.9, 0.0)], &[0, 1, 0]);
        add(&mut evaluation, &[(0, 0.7, 0.0)], &[]);
        let metrics = evaluation.finish();
        assert_eq!((metrics.n_pictures, metrics.n_instances, metrics.classes.len()), (2, 3, 2));
        let [first, second] = &metrics.classes[..] else { panic!("two classes") };
        assert_eq!((first.class, first.n_pictures, first.n_instances), (0, 1, 2));
        assert_eq!((metrics.of_class(1), metrics.of_class(5)), (Some(second), None));
        assert!((first.ap.mean() - 51.0 / 101.0).abs() < 1e-12);
        assert!((second.ap.ap50() - 1.0).abs() < 1e-12 && second.ap.ap75() == 0.0);
        assert!((second.ap.mean() - 0.3).abs() < 1e-12);
        assert!((metrics.ap.ap50() - (51.0 / 101.0 + 1.0) / 2.0).abs() < 1e-12);
        assert!(metrics.recall == 0.75 && (0.75..=1.0).contains(&metrics.precision));
        assert_eq!(metrics.precision_by_recall()[0], 1.0);
        assert_eq!(metrics.precision_by_recall()[100], 0.5);
    }

    #[test]
    fn nothing_labelled_or_nothing_found() {
        let metrics = Evaluation::default().finish();
        assert_eq!((metrics.n_pictures, metrics.ap.mean(), metrics.precision), (0, 0.0, 0.0));
        assert!(metrics.precision.is_sign_positive() && metrics.recall.is_sign_positive());
        let mut evaluation = Evaluation::default();
        add(&mut evaluation, &[], &[0]);
        add(&mut evaluation, &[(1, 0.5, 1.0)], &[]);
        let metrics = evaluation.finish();
        assert_eq!((metrics.classes.len(), metrics.ap_of_lines.mean(), metrics.recall), (1, 0.0, 0.0));
    }

    #[test]
    fn ignored_labels_are_not_missed_and_make_nothing_wrong() {
        let ignored = |class: usize| Labelled { class, is_ignored: true };
        let truth = [Labelled::counted(0), ignored(0), ignored(1)];
        let found = [(0, 0.9), (0, 0.8), (1, 0.7)].map(|(class, confidence)| Found { class, confidence });
        let mut evaluation = Evaluation::default();
        evaluation.add(&match_picture(&found, &truth, |a, b| f64::from(u8::from(2 - a == b))), &truth);
        let metrics = evaluation.finish();
        // The second one is matched with what is ignored; of the class 1 nothing counts.
        assert_eq!((metrics.classes.len(), metrics.n_instances), (1, 1));
        assert_eq!((metrics.ap.mean(), metrics.ap_of_lines.mean()), (0.0, 0.0));
        let mut evaluation = Evaluation::default();
        evaluation.add(&match_picture(&found, &truth, |a, b| f64::from(u8::from(a == b))), &truth);
        let metrics = evaluation.finish();
        assert_eq!((metrics.classes[0].n_pictures, metrics.n_instances), (1, 1));
        assert!((metrics.ap.mean() - 1.0).abs() < 1e-12 && metrics.precision == 1.0);
        // If all that was found of a class is ignored, nothing is found.
        let mut evaluation = Evaluation::default();
        evaluation.add(&match_picture(&found[..1], &truth[..2], |_, b| b as f64), &truth[..2]);
        let metrics = evaluation.finish();
        assert_eq!((metrics.ap_of_lines.mean(), metrics.recall, metrics.n_instances), (0.0, 0.0, 1));
    }

    proptest! {
        /// All labels found, and nothing else, is perfect, in whichever order; lines end in precision 0 at recall 1.
        #[test]
        fn perfect_is_one(classes in prop::collection::vec(0..4usize, 1..20)) {
            let mut evaluation = Evaluation::default();
            for (idx, &class) in classes.iter().enumerate() {
                add(&mut evaluation, &[(class, 0.9 / (idx + 1) as f32, 1.0)], &[class]);
            }
            let metrics = evaluation.finish();
            prop_assert!((metrics.ap.mean() - 1.0).abs() < 1e-9 && (metrics.ap_of_lines.mean() - 0.995).abs() < 1e-9);
            prop_assert!((metrics.precision - 1.0).abs() < 1e-9);
        }

        /// Average precision depends on the order of confidences, not on their values.
        #[test]
        fn only_ranks_count(found in prop::collection::vec((0..3usize, 0.01..1.0f32, 0.3..1.0f64), 1..30)) {
            let [mut plain, mut halved] = [Evaluation::default(), Evaluation::default()];
            add(&mut plain, &found, &[0, 0, 1, 2, 2]);
            let found: Vec<_> = found.iter().map(|&(class, confidence, iou)| (class, confidence / 2.0, iou)).collect();
            add(&mut halved, &found, &[0, 0, 1, 2, 2]);
            prop_assert_eq!(plain.finish().ap, halved.finish().ap);
        }
    }
}
