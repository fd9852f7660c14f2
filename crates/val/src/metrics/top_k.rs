//! Accuracy of classification.

use std::collections::BTreeMap;

/// Classes that count as an answer besides the first one.
const K: usize = 5;

/// Counts pictures whose class is the first answer, or among the first five.
#[derive(Clone, Debug, Default)]
pub struct TopK {
    classes: BTreeMap<usize, [u64; 3]>,
}

/// Accuracy of classification, of a class or of all pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopKMetrics {
    /// Number of pictures.
    pub n_pictures: u64,
    /// Share of the pictures whose class is the first answer.
    pub top1: f64,
    /// Share of the pictures whose class is among the first five answers.
    pub top5: f64,
}

impl TopK {
    /// Adds a picture by its class and the answers, best first.
    pub fn add(&mut self, truth: usize, answers: &[usize]) {
        let rank = answers.iter().position(|answer| *answer == truth);
        let [n, first, among] = self.classes.entry(truth).or_default();
        *n += 1;
        *first += u64::from(rank == Some(0));
        *among += u64::from(rank.is_some_and(|rank| rank < K));
    }

    /// Of all pictures.
    #[must_use]
    pub fn all(&self) -> TopKMetrics {
        let add = |sum: [u64; 3], of: &[u64; 3]| std::array::from_fn(|idx| sum[idx] + of[idx]);
        metrics(self.classes.values().fold([0; 3], add))
    }

    /// Of each class that has pictures, by index.
    #[must_use]
    pub fn by_class(&self) -> Vec<(usize, TopKMetrics)> {
        self.classes.iter().map(|(&class, &counts)| (class, metrics(counts))).collect()
    }
}

fn metrics([n_pictures, first, among]: [u64; 3]) -> TopKMetrics {
    let share = |count: u64| if n_pictures == 0 { 0.0 } else { count as f64 / n_pictures as f64 };
    TopKMetrics { n_pictures, top1: share(first), top5: share(among) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let mut counts = TopK::default();
        assert_eq!(counts.all(), TopKMetrics::default());
        counts.add(3, &[3, 1, 2]);
        counts.add(3, &[0, 1, 2, 4, 3]);
        counts.add(3, &[0, 1, 2, 4, 5, 3]);
        counts.add(1, &[]);
        assert_eq!(counts.all(), TopKMetrics { n_pictures: 4, top1: 0.25, top5: 0.5 });
        assert_eq!(counts.by_class()[0], (1, TopKMetrics { n_pictures: 1, top1: 0.0, top5: 0.0 }));
    }
}
