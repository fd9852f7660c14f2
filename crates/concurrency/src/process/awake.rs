//! Time by which workers are judged: only that in which this process ran.
//!
//! While this process is stopped (by a signal, a debugger, or with the machine that it runs on) nobody reads what workers
//! send. By the clock they would all have been silent for too long when it goes on. That it was stopped is not told to a
//! process; but its supervisor looks at the clock every [`tick`](Awake::tick), so a much longer time between two looks is
//! one in which it did not run, and of that only two ticks count. A machine that is only slow is judged more mildly.

use std::time::Duration;

/// A tick is never longer: looking costs nothing to speak of.
const MAX_TICK: Duration = Duration::from_secs(1);

/// Nor shorter, so that the supervisor does not do nothing but look.
const MIN_TICK: Duration = Duration::from_millis(1);

/// Ticks in the shortest time that is measured so.
const N_TICKS: u32 = 8;

/// A clock that stands still while this process does. Without a clock of its own: time is passed in.
#[derive(Debug)]
pub(crate) struct Awake {
    tick: Duration,
    looked: Duration,
    awake: Duration,
}

impl Awake {
    /// A clock for `patience`, times of which even the shortest is to be measured well.
    pub(crate) fn new(patience: impl IntoIterator<Item = Duration>) -> Awake {
        let shortest = patience.into_iter().filter(|time| !time.is_zero()).min().unwrap_or(MAX_TICK);
        let tick = (shortest / N_TICKS).clamp(MIN_TICK, MAX_TICK);
        Awake { tick, looked: Duration::ZERO, awake: Duration::ZERO }
    }

    /// How long after a look the next one has to be made, at the latest.
    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// The time in which this process ran until `now`, and that it runs now.
    pub(crate) fn look(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.looked);
        self.looked = self.looked.max(now);
        self.awake += passed.min(self.tick * 2);
        self.awake
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn ticks_divide_the_shortest_patience() {
        let tick = |patience: &[Duration]| Awake::new(patience.iter().copied()).tick();
        assert_eq!(tick(&[15 * S, 60 * S]), S);
        assert_eq!(tick(&[15 * S, S]), S / 8);
        assert_eq!(tick(&[15 * S, Duration::ZERO]), S);
        assert_eq!(tick(&[Duration::from_nanos(1)]), Duration::from_millis(1));
    }

    #[test]
    fn of_a_time_without_looks_two_ticks_count() {
        let mut awake = Awake::new([15 * S]);
        assert_eq!(awake.look(S), S);
        assert_eq!(awake.look(3 * S), 3 * S, "a late look is one, too");
        assert_eq!(awake.look(100 * S), 5 * S);
        assert_eq!(awake.look(99 * S), 5 * S, "threads may look with a time that they took before");
        assert_eq!(awake.look(101 * S), 6 * S);
    }

    proptest! {
        /// It never goes back nor faster than the clock, keeps up with it while looks come, and stands still without.
        #[test]
        fn it_stands_still_only_while_nobody_looks(gaps_ms in prop::collection::vec(0_u64..5000, 1..100)) {
            let mut awake = Awake::new([15 * S]);
            let (mut now, mut before) = (Duration::ZERO, Duration::ZERO);
            for gap_ms in gaps_ms {
                let gap = Duration::from_millis(gap_ms);
                now += gap;
                let ran = awake.look(now) - before;
                before += ran;
                prop_assert_eq!(ran, gap.min(2 * S));
                prop_assert!(before <= now);
            }
        }
    }
}
