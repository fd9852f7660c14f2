//! Where the time of a run goes.

use std::time::Duration;

use crate::network::StepInfo;

/// Times of the parts of a run, medians of several runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// In the order in which they run: a row for each step on the CPU, for each dispatch on a GPU.
    pub rows: Vec<ProfileRow>,
    /// A whole run. On the CPU the sum of its steps; on a GPU from the beginning of the first dispatch to the end of the
    /// last one, by the device's clock, when nobody looks at the time in between.
    pub run: Duration,
}

/// A part of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProfileRow {
    /// Name of the op, on a GPU of the shader.
    pub name: &'static str,
    /// What it carries out: one step on the CPU; on a GPU one or several of them, or none if it scales pictures or looks
    /// for objects.
    pub steps: Vec<StepInfo>,
    /// How long it took by itself.
    pub time: Duration,
}

impl Profile {
    /// All rows together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.rows.iter().map(|row| row.time).sum()
    }
}

impl ProfileRow {
    /// Multiply-accumulate operations of its steps.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| step.macs).sum()
    }

    /// Billions of floating-point operations per second, a multiplication and an addition for each of
    /// [`macs`](Self::macs). None if there is nothing to multiply, or if the time was too short to be told.
    #[must_use]
    pub fn gflops(&self) -> Option<f64> {
        let (flops, seconds) = (2.0 * self.macs() as f64, self.time.as_secs_f64());
        (flops > 0.0 && seconds > 0.0).then(|| flops / seconds / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_per_second() {
        let step = |macs| StepInfo {
            op: "conv2d",
            at: "model.0".into(),
            inputs: vec![[1, 3, 4, 4]],
            output: [1, 8, 4, 4],
            macs,
        };
        let row = |macs: &[u64], us| ProfileRow {
            name: "conv2d",
            steps: macs.iter().map(|&macs| step(macs)).collect(),
            time: Duration::from_micros(us),
        };
        assert_eq!(row(&[3_000, 2_000], 10).macs(), 5_000);
        assert!(row(&[3_000, 2_000], 10).gflops().is_some_and(|gflops| (gflops - 1.0).abs() < 1e-9));
        assert_eq!(row(&[0], 10).gflops(), None);
        assert_eq!(row(&[], 10).gflops(), None);
        assert_eq!(row(&[1], 0).gflops(), None);
        let rows = vec![row(&[1], 3), row(&[], 4)];
        assert_eq!(Profile { rows, run: Duration::ZERO }.sum(), Duration::from_micros(7));
    }
}
