//! What a whole picture shows.

use serde::{Deserialize, Serialize};

/// How likely each class is for a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f32>", into = "Vec<f32>")]
pub struct Probs {
    values: Vec<f32>,
    order: Vec<usize>,
}

impl From<Vec<f32>> for Probs {
    fn from(values: Vec<f32>) -> Self {
        Self::new(values)
    }
}

impl From<Probs> for Vec<f32> {
    fn from(probs: Probs) -> Self {
        probs.values
    }
}

impl Probs {
    /// Takes one probability for each class.
    #[must_use]
    pub fn new(values: Vec<f32>) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        // What is not a number comes last.
        let key = |idx: usize| if values[idx].is_nan() { f32::NEG_INFINITY } else { values[idx] + 0.0 };
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        Self { values, order }
    }

    /// The probabilities by class index, 0 to 1.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The `n` likeliest classes with their probabilities, likeliest first, of equal ones the lower index.
    pub fn top(&self, n: usize) -> impl ExactSizeIterator<Item = (usize, f32)> + '_ {
        self.order.iter().take(n).map(|&class| (class, self.values[class]))
    }

    /// The likeliest class; none if there are no classes.
    #[must_use]
    pub fn top1(&self) -> Option<(usize, f32)> {
        self.top(1).next()
    }

    /// The five likeliest classes.
    #[must_use]
    pub fn top5(&self) -> Vec<(usize, f32)> {
        self.top(5).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first() {
        let probs = Probs::new(vec![0.1, 0.2, 0.3, f32::NAN, 0.1, 0.25, 0.05]);
        let classes: Vec<usize> = probs.top5().iter().map(|(class, _)| *class).collect();
        assert_eq!(classes, [2, 5, 1, 0, 4]);
        assert_eq!(probs.top1(), Some((2, 0.3)));
        assert_eq!(probs.top(99).len(), 7);
        assert!(probs.top(99).last().is_some_and(|(class, value)| class == 3 && value.is_nan()));
        assert_eq!(Probs::new(Vec::new()).top1(), None);
    }
}
