//! Average precision: the area under the curve of precision over recall.

use super::matching::N_THRESHOLDS;

/// Number of recalls at which precision is looked up: 0.00, 0.01, ..., 1.00.
pub const N_RECALLS: usize = 101;

/// Average precision at each threshold of overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AveragePrecision(pub [f64; N_THRESHOLDS]);

impl AveragePrecision {
    /// At an overlap of 0.5.
    #[must_use]
    pub fn ap50(&self) -> f64 {
        self.0[0]
    }

    /// At an overlap of 0.75.
    #[must_use]
    pub fn ap75(&self) -> f64 {
        self.0[5]
    }

    /// The mean of all thresholds, 0.50 to 0.95.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / N_THRESHOLDS as f64
    }

    /// The mean of some classes, threshold by threshold; 0 without any.
    #[must_use]
    pub fn over<'a>(classes: impl ExactSizeIterator<Item = &'a Self>) -> Self {
        let n = classes.len().max(1) as f64;
        let mut sum = [0.0; N_THRESHOLDS];
        for class in classes {
            sum.iter_mut().zip(class.0).for_each(|(sum, ap)| *sum += ap);
        }
        Self(sum.map(|sum| sum / n))
    }
}

/// The recalls at which precision is looked up.
pub fn recalls() -> [f64; N_RECALLS] {
    // As evenly spaced numbers are computed elsewhere, to the bit: a recall may lie on one of them.
    std::array::from_fn(|idx| if idx + 1 == N_RECALLS { 1.0 } else { idx as f64 * 0.01 })
}

/// Precision and recall after each detection of a class, in the order of falling confidence.
#[derive(Clone, Debug, Default)]
pub struct PrecisionRecall {
    pub precision: Vec<f64>,
    pub recall: Vec<f64>,
}

impl PrecisionRecall {
    /// From whether each detection is right; `n_truths`, the number of labels, is at least 1.
    pub fn new(hits: impl Iterator<Item = bool>, n_truths: usize) -> Self {
        let mut curve = Self::default();
        let mut n_right = 0.0;
        for (idx, is_right) in hits.enumerate() {
            n_right += f64::from(u8::from(is_right));
            curve.precision.push(n_right / (idx + 1) as f64);
            curve.recall.push(n_right / n_truths as f64);
        }
        curve
    }

    /// The best precision at each of [`recalls`] or more; 0 beyond the last recall.
    ///
    /// Source: the COCO evaluation, <https://cocodataset.org/#detection-eval>.
    pub fn by_recall(&self) -> [f64; N_RECALLS] {
        let best = envelope(&self.precision);
        recalls().map(|wanted| {
            let at = self.recall.partition_point(|recall| *recall < wanted);
            best.get(at).copied().unwrap_or(0.0)
        })
    }

    /// COCO's average precision: the mean of [`PrecisionRecall::by_recall`].
    pub fn average(&self) -> f64 {
        self.by_recall().iter().sum::<f64>() / N_RECALLS as f64
    }

    /// Average precision as Ultralytics reports it: from the point of recall 0 and precision 1 on, straight lines join
    /// the points of the curve, and the area below is taken by trapezoids between [`recalls`].
    ///
    /// It is a little less than COCO's, most so for classes with few labels, and at most 0.995: at recall 1 the line ends
    /// in precision 0. Without detections it is 0.
    pub fn average_of_lines(&self) -> f64 {
        let Some(&last) = self.recall.last() else { return 0.0 };
        let recall: Vec<f64> =
            [0.0].into_iter().chain(self.recall.iter().copied()).chain([last, 1.0]).collect();
        let precision: Vec<f64> =
            [1.0].into_iter().chain(self.precision.iter().copied()).chain([0.0; 2]).collect();
        let best = envelope(&precision);
        let values = recalls().map(|wanted| interpolate(&recall, &best, wanted));
        values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0 * 0.01).sum()
    }
}

/// The largest value from each position on.
fn envelope(values: &[f64]) -> Vec<f64> {
    let mut best = values.to_vec();
    for idx in (1..best.len()).rev() {
        best[idx - 1] = best[idx - 1].max(best[idx]);
    }
    best
}

/// The value at `x` on the lines through the points (`xs`, `ys`), of which there is at least one; `xs` rise or stay.
///
/// Beyond the ends the values there hold on; where `xs` stay, the last point counts.
fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let above = xs.partition_point(|&known| known <= x);
    match above {
        0 => ys[0],
        _ if above == xs.len() => ys[above - 1],
        _ => {
            let slope = (ys[above] - ys[above - 1]) / (xs[above] - xs[above - 1]);
            ys[above - 1] + slope * (x - xs[above - 1])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(hits: &[u8], n_truths: usize) -> PrecisionRecall {
        PrecisionRecall::new(hits.iter().map(|&hit| hit == 1), n_truths)
    }

    #[track_caller]
    fn check(hits: &[u8], n_truths: usize, expected: f64) {
        let average = curve(hits, n_truths).average();
        assert!((average - expected).abs() < 1e-12, "{average}, expected {expected}");
    }

    #[test]
    fn average_precision_by_hand() {
        check(&[1, 1], 2, 1.0);
        check(&[], 2, 0.0);
        check(&[0, 0], 2, 0.0);
        // Recalls 0 to 0.5 have precision 1: 51 of 101.
        check(&[1], 2, 51.0 / 101.0);
        // Recalls above 0.5 have precision 2/3.
        check(&[1, 0, 1], 2, (51.0 + 50.0 * 2.0 / 3.0) / 101.0);
        // A later, better precision counts for the recalls before it.
        check(&[0, 1, 1, 1], 3, 0.75);
    }

    #[test]
    fn lines_lie_below_steps() {
        assert!((curve(&[1, 1], 2).average_of_lines() - 0.995).abs() < 1e-12);
        // The only point is (recall 0, precision 0), and the line from (0, 1) to it has no area.
        assert_eq!(curve(&[0], 2).average_of_lines(), 0.0);
        assert_eq!(curve(&[], 2).average_of_lines(), 0.0);
        // Precision 1 up to a recall of 0.49, and 0 from 0.50 on: where points share a recall the last one counts.
        let half = curve(&[1], 2).average_of_lines();
        assert!((half - 0.495).abs() < 1e-12, "{half}");
    }

    #[test]
    fn lines_through_points() {
        let at = |x| interpolate(&[0.0, 1.0, 1.0, 2.0], &[0.0, 1.0, 5.0, 7.0], x);
        assert_eq!([-1.0, 0.5, 1.0, 1.5, 2.0, 3.0].map(at), [0.0, 0.5, 5.0, 6.0, 7.0, 7.0]);
    }

    proptest! {
        #[test]
        fn averages_are_shares_and_agree(hits in prop::collection::vec(0..2u8, 1..60), more in 0..20usize) {
            let n_truths = hits.iter().filter(|hit| **hit == 1).count() + more;
            prop_assume!(n_truths > 0);
            let curve = curve(&hits, n_truths);
            let (steps, lines) = (curve.average(), curve.average_of_lines());
            prop_assert!((0.0..=1.0).contains(&steps) && (0.0..=1.0 + 1e-9).contains(&lines));
            // Between two points the line is at most half a step of recall away, at both ends half a hundredth.
            prop_assert!((steps - lines).abs() <= 0.5 / n_truths as f64 + 0.02, "{} {}", steps, lines);
        }

        /// A further right detection at the end never makes it worse.
        #[test]
        fn right_detections_never_harm(hits in prop::collection::vec(0..2u8, 0..40)) {
            let n_truths = hits.len() + 1;
            let mut more = hits.clone();
            more.push(1);
            prop_assert!(curve(&more, n_truths).average() >= curve(&hits, n_truths).average());
        }
    }
}
