//! Which detections of a picture are right.

use std::cmp::Reverse;

/// Number of thresholds of overlap.
pub const N_THRESHOLDS: usize = 10;

/// The overlaps that count as right: 0.50, 0.55, ..., 0.95.
#[must_use]
pub fn thresholds() -> [f64; N_THRESHOLDS] {
    // As evenly spaced numbers are computed elsewhere, to the bit: an overlap may lie on a threshold.
    let step = (0.95 - 0.5) / (N_THRESHOLDS - 1) as f64;
    std::array::from_fn(|idx| if idx + 1 == N_THRESHOLDS { 0.95 } else { 0.5 + idx as f64 * step })
}

/// What a detection says, but for where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Index of the class.
    pub class: usize,
    /// How sure the network is.
    pub confidence: f32,
}

/// What a label says, but for where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Index of the class.
    pub class: usize,
    /// Whether it need not be found. A detection that is matched with it is neither right nor wrong.
    pub is_ignored: bool,
}

impl Labelled {
    /// A label that is to be found.
    #[must_use]
    pub fn counted(class: usize) -> Self {
        Self { class, is_ignored: false }
    }
}

/// A detection, and the thresholds at which it is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// What the detection says.
    pub found: Found,
    pub(super) verdict: Verdict,
}

/// What a detection is at each threshold. Data sets have millions of these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Bit `i` is set if the detection is right at threshold `i`.
    hits: u16,
    /// Bit `i` is set if the detection counts for nothing at threshold `i`.
    ignored: u16,
}

impl Match {
    /// Whether the detection is right at a threshold, given by index.
    #[must_use]
    pub fn is_hit(&self, threshold_idx: usize) -> bool {
        self.verdict.is_hit(threshold_idx)
    }

    /// Whether the detection is matched with a label that is ignored, at a threshold given by index.
    #[must_use]
    pub fn is_ignored(&self, threshold_idx: usize) -> bool {
        self.verdict.is_ignored(threshold_idx)
    }
}

impl Verdict {
    pub fn is_hit(self, threshold_idx: usize) -> bool {
        self.hits >> threshold_idx & 1 == 1
    }

    pub fn is_ignored(self, threshold_idx: usize) -> bool {
        self.ignored >> threshold_idx & 1 == 1
    }
}

/// Matches the detections of a picture with its labels, by falling confidence.
///
/// Each detection takes the label of its class that it overlaps most, among those that are not taken yet and that it
/// overlaps enough; each label is taken once, those that are ignored only if no other is left. This is done for each
/// threshold by itself. `overlap` is asked for the index of a detection and the index of a label, for pairs of one class
/// only. The matches come in the order in which they were made.
///
/// Source: the COCO evaluation, <https://cocodataset.org/#detection-eval>, without crowds.
#[must_use]
pub fn match_picture(
    found: &[Found],
    labelled: &[Labelled],
    overlap: impl Fn(usize, usize) -> f64,
) -> Vec<Match> {
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|&a, &b| found[b].confidence.total_cmp(&found[a].confidence));
    let thresholds = thresholds();
    let mut is_taken = vec![0u16; labelled.len()];
    let mut overlaps = Vec::new();
    let matched = order.into_iter().map(|idx| {
        let Found { class, .. } = found[idx];
        let of_class = labelled.iter().enumerate().filter(|(_, label)| label.class == class);
        overlaps.clear();
        overlaps.extend(of_class.map(|(truth, _)| (truth, overlap(idx, truth))));
        overlaps.retain(|(_, overlap)| *overlap >= thresholds[0]);
        // Of labels that overlap alike the last one is taken, and so it comes first.
        overlaps.sort_by_key(|(truth, _)| Reverse(*truth));
        overlaps.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        overlaps.sort_by_key(|(truth, _)| labelled[*truth].is_ignored);
        let mut verdict = Verdict::default();
        for (bit, threshold) in thresholds.iter().enumerate() {
            let mut enough = overlaps.iter().filter(|(_, overlap)| overlap >= threshold);
            if let Some((truth, _)) = enough.find(|(truth, _)| is_taken[*truth] >> bit & 1 == 0) {
                is_taken[*truth] |= 1 << bit;
                let bits = if labelled[*truth].is_ignored { &mut verdict.ignored } else { &mut verdict.hits };
                *bits |= 1 << bit;
            }
        }
        Match { found: found[idx], verdict }
    });
    matched.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(class: usize, confidence: f32) -> Found {
        Found { class, confidence }
    }

    /// Confidences and numbers of thresholds, from `overlaps[detection][label]` of one class.
    fn check(confidences: &[f32], overlaps: &[&[f64]], expected: &[(f32, usize)]) {
        let found: Vec<_> = confidences.iter().map(|&confidence| found(0, confidence)).collect();
        let truth = vec![Labelled::counted(0); overlaps[0].len()];
        let matches = match_picture(&found, &truth, |a, b| overlaps[a][b]);
        let got: Vec<_> = matches
            .iter()
            .map(|found| (found.found.confidence, (0..N_THRESHOLDS).filter(|&idx| found.is_hit(idx)).count()))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn thresholds_are_even() {
        for (idx, threshold) in thresholds().into_iter().enumerate() {
            assert!((threshold - (0.5 + 0.05 * idx as f64)).abs() < 1e-12);
        }
        assert_eq!(thresholds()[9], 0.95);
    }

    #[test]
    fn the_surest_comes_first() {
        check(&[0.2, 0.9], &[&[0.9], &[0.6]], &[(0.9, 3), (0.2, 6)]);
        check(&[0.9, 0.2], &[&[0.9], &[0.6]], &[(0.9, 9), (0.2, 0)]);
    }

    #[test]
    fn the_second_best_label_is_taken_if_the_best_is_gone() {
        check(&[0.9, 0.8], &[&[0.9, 0.0], &[0.8, 0.7]], &[(0.9, 9), (0.8, 5)]);
        check(&[0.9, 0.8], &[&[0.5, 0.5], &[0.5, 0.4]], &[(0.9, 1), (0.8, 1)]);
    }

    #[test]
    fn borders_count() {
        check(&[0.9], &[&[0.95]], &[(0.9, 10)]);
        check(&[0.9], &[&[0.5]], &[(0.9, 1)]);
        check(&[0.9], &[&[0.4999]], &[(0.9, 0)]);
        check(&[0.9], &[&[f64::NAN]], &[(0.9, 0)]);
        check(&[0.9], &[&[]], &[(0.9, 0)]);
    }

    #[test]
    fn classes_are_kept_apart() {
        let truth = [Labelled::counted(0)];
        let matches = match_picture(&[found(1, 0.9), found(0, 0.8)], &truth, |_, _| 1.0);
        assert!(!matches[0].is_hit(0) && matches[1].is_hit(9));
        assert!(match_picture(&[], &truth, |_, _| 1.0).is_empty());
    }

    #[test]
    fn ignored_labels_come_last_and_count_for_nothing() {
        let truth = [Labelled { class: 0, is_ignored: true }, Labelled::counted(0)];
        let overlaps = [[0.9, 0.6], [0.8, 0.7], [0.9, 0.9]];
        let found = [0.9, 0.8, 0.7].map(|confidence| found(0, confidence));
        let matches = match_picture(&found, &truth, |a, b| overlaps[a][b]);
        let shown = |threshold: usize| {
            let told = |of: &Match| match (of.is_hit(threshold), of.is_ignored(threshold)) {
                (true, false) => 'h',
                (false, true) => 'i',
                (false, false) => '-',
                (true, true) => panic!("right and ignored at once"),
            };
            matches.iter().map(told).collect::<String>()
        };
        // At 0.50 the first takes the counted label, though it overlaps the other more; at 0.65 it can't.
        assert_eq!([shown(0), shown(3), shown(5), shown(7), shown(9)], ["hi-", "ih-", "i-h", "i-h", "---"]);
    }

    proptest! {
        #[test]
        fn no_label_is_taken_twice(
            confidences in prop::collection::vec(0.0..1.0f32, 0..12),
            overlaps in prop::collection::vec(0.0..1.0f64, 12 * 6),
        ) {
            let detections: Vec<_> =
                confidences.iter().enumerate().map(|(idx, &confidence)| found(idx % 2, confidence)).collect();
            let truth = [0, 1, 0, 1, 0, 0].map(Labelled::counted);
            let matches = match_picture(&detections, &truth, |a, b| overlaps[6 * a + b]);
            prop_assert_eq!(matches.len(), detections.len());
            prop_assert!(matches.is_sorted_by(|a, b| a.found.confidence >= b.found.confidence));
            for threshold in 0..N_THRESHOLDS {
                for class in 0..2 {
                    let of_class = |found: &&Match| found.found.class == class && found.is_hit(threshold);
                    let n_labels = truth.iter().filter(|of| of.class == class).count();
                    prop_assert!(matches.iter().filter(of_class).count() <= n_labels);
                }
            }
        }
    }
}
