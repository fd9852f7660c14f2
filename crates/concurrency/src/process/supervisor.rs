//! When to start a worker again: a state machine without clock, threads or processes.
//!
//! Time is a duration since the pool was made and is passed in; chance comes from a seed. What it decides:
//!
//! - A worker that answered a job, or was idle for a while, had a healthy run; after its death the next start is
//!   immediate.
//! - After a run that was not healthy the slot waits: the first delay is `backoff`, each further one twice as long, up
//!   to `max_backoff`, and of each a random share of up to a half is taken off, so that slots do not march in step.
//! - More than `budget` such runs within `window`, over all slots, open the circuit: nothing is started for `cool_down`.
//!   So do more than `in_a_row` of them in every slot, however long they took. Then one slot may try. If its worker has a healthy run the circuit closes; if it dies the circuit opens again.
//! - After [`Supervisor::close`] nothing is started.

use std::collections::VecDeque;
use std::time::Duration;

/// How eagerly dead workers are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The delay after the first run that was not healthy.
    pub backoff: Duration,
    /// The longest delay.
    pub max_backoff: Duration,
    /// How many runs may be unhealthy within `window` before the circuit opens.
    pub budget: u32,
    /// The time that `budget` is for.
    pub window: Duration,
    /// How many runs in a row may be unhealthy, in every slot, before the circuit opens: workers that take long to fail
    /// never exceed a budget for a time.
    pub in_a_row: u32,
    /// How long the circuit stays open before one worker is tried.
    pub cool_down: Duration,
    /// After this long without a job a run is healthy.
    pub healthy_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            backoff: Duration::from_millis(20),
            max_backoff: Duration::from_secs(5),
            budget: 20,
            window: Duration::from_secs(60),
            in_a_row: 4,
            cool_down: Duration::from_secs(10),
            healthy_after: Duration::from_secs(10),
        }
    }
}

/// What to do about starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start this slot's worker.
    Start(usize),
    /// Nothing before this time.
    At(Duration),
    /// Nothing until something happens.
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed,
    Open {
        until: Duration,
    },
    /// One slot tries; `None` until it has been started.
    HalfOpen {
        probe: Option<usize>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Down { start_at: Duration },
    Up,
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: RestartPolicy,
    slots: Vec<Slot>,
    /// Unhealthy runs in a row, by slot.
    n_failed: Vec<u32>,
    /// When runs turned out unhealthy, within the window.
    failures: VecDeque<Duration>,
    circuit: Circuit,
    closed: bool,
    random: u64,
}

impl Supervisor {
    pub(crate) fn new(policy: RestartPolicy, n_slots: usize, seed: u64) -> Supervisor {
        Supervisor {
            policy,
            slots: vec![Slot::Down { start_at: Duration::ZERO }; n_slots],
            n_failed: vec![0; n_slots],
            failures: VecDeque::new(),
            circuit: Circuit::Closed,
            closed: false,
            random: seed,
        }
    }

    pub(crate) fn policy(&self) -> &RestartPolicy {
        &self.policy
    }

    pub(crate) fn is_open(&self) -> bool {
        self.circuit != Circuit::Closed
    }

    /// What to do now. A slot that is to be started counts as up from here on.
    pub(crate) fn next(&mut self, now: Duration) -> Next {
        if self.closed {
            return Next::Idle;
        }
        match self.circuit {
            Circuit::Open { until } if now < until => return Next::At(until),
            Circuit::Open { .. } => self.circuit = Circuit::HalfOpen { probe: None },
            Circuit::HalfOpen { probe: Some(_) } => return Next::Idle,
            Circuit::HalfOpen { probe: None } | Circuit::Closed => {}
        }
        let down = self.slots.iter().enumerate().filter_map(|(idx, slot)| match slot {
            Slot::Down { start_at } => Some((*start_at, idx)),
            Slot::Up => None,
        });
        match down.min() {
            None => Next::Idle,
            Some((start_at, _)) if now < start_at => Next::At(start_at),
            Some((_, idx)) => {
                self.slots[idx] = Slot::Up;
                if let Circuit::HalfOpen { probe } = &mut self.circuit {
                    *probe = Some(idx);
                }
                Next::Start(idx)
            }
        }
    }

    /// The slot's worker has shown that it works: it answered a job, or was idle for long enough.
    pub(crate) fn healthy(&mut self, idx: usize) {
        self.n_failed[idx] = 0;
        if self.circuit == (Circuit::HalfOpen { probe: Some(idx) }) {
            self.circuit = Circuit::Closed;
            self.failures.clear();
        }
    }

    /// The slot's worker is dead, or could not be started at all.
    pub(crate) fn died(&mut self, idx: usize, was_healthy: bool, now: Duration) {
        debug_assert_eq!(self.slots[idx], Slot::Up, "a worker that was not started can't die");
        if was_healthy {
            self.healthy(idx);
            self.slots[idx] = Slot::Down { start_at: now };
            return;
        }
        let was_probe = self.circuit == Circuit::HalfOpen { probe: Some(idx) };
        self.n_failed[idx] = self.n_failed[idx].saturating_add(1);
        let delay = self.delay(self.n_failed[idx]);
        self.slots[idx] = Slot::Down { start_at: now.saturating_add(delay) };
        let since = now.saturating_sub(self.policy.window);
        self.failures.push_back(now);
        let budget = self.policy.budget as usize;
        while self.failures.front().is_some_and(|at| *at < since) || self.failures.len() > budget + 1 {
            self.failures.pop_front();
        }
        // An open circuit stays open for the time that was said: stragglers that die meanwhile do not prolong it.
        let all_fail = self.n_failed.iter().all(|n| *n > self.policy.in_a_row);
        let too_many = self.failures.len() > budget || all_fail;
        if was_probe || (too_many && self.circuit == Circuit::Closed) {
            self.circuit = Circuit::Open { until: now.saturating_add(self.policy.cool_down) };
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    fn delay(&mut self, n_failed: u32) -> Duration {
        let doublings = n_failed.saturating_sub(1).min(30);
        let whole = self.policy.backoff.saturating_mul(1 << doublings).min(self.policy.max_backoff);
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((x ^ x >> 31) >> 40) as f64 / (1_u64 << 24) as f64;
        whole.mul_f64(1.0 - share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(budget: u32) -> RestartPolicy {
        RestartPolicy {
            backoff: 10 * MS,
            max_backoff: 80 * MS,
            budget,
            window: 1000 * MS,
            in_a_row: u32::MAX,
            cool_down: 500 * MS,
            healthy_after: 200 * MS,
        }
    }

    /// What happens to a pool.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Wait(u32),
        Healthy(usize),
        Dies(usize),
        Close,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (0..120_u32).prop_map(Event::Wait),
            2 => (0..4_usize).prop_map(Event::Healthy),
            6 => (0..4_usize).prop_map(Event::Dies),
        ];
        (proptest::collection::vec(event, 0..150), any::<bool>()).prop_map(|(mut events, closes)| {
            if closes {
                events.insert(events.len() / 2, Event::Close);
            }
            events
        })
    }

    proptest! {
        /// The laws of restarts, over everything that can happen to a pool of four.
        #[test]
        fn starts_obey_the_laws(events in events(), budget in 0..6_u32, seed: u64) {
            let mut supervisor = Supervisor::new(policy(budget), 4, seed);
            let mut now = Duration::ZERO;
            let mut is_closed = false;
            // Since when each slot is up, and whether it was healthy; when it may start again, at the earliest.
            let mut up: [Option<bool>; 4] = [None; 4];
            let mut earliest = [Duration::ZERO; 4];
            let mut latest = [Duration::ZERO; 4];
            let mut failures: Vec<Duration> = Vec::new();
            let mut reopened = Duration::ZERO;
            for event in events.into_iter().chain([Event::Wait(0)]) {
                match event {
                    Event::Wait(ms) => now += ms * MS,
                    Event::Healthy(slot) if up[slot].is_some() => {
                        up[slot] = Some(true);
                        supervisor.healthy(slot);
                    }
                    Event::Dies(slot) => if let Some(was_healthy) = up[slot].take() {
                        let was_open = supervisor.is_open();
                        supervisor.died(slot, was_healthy, now);
                        if was_healthy {
                            (earliest[slot], latest[slot]) = (now, now);
                        } else {
                            failures.push(now);
                            (earliest[slot], latest[slot]) = (now + 5 * MS, now + 80 * MS);
                        }
                        if !was_open && supervisor.is_open() {
                            let since = now.saturating_sub(1000 * MS);
                            let n_recent = failures.iter().filter(|at| **at >= since).count();
                            prop_assert!(n_recent > budget as usize, "open after {} failures", n_recent);
                        }
                        if supervisor.is_open() && !was_open {
                            reopened = now + 500 * MS;
                        }
                    },
                    Event::Close => {
                        is_closed = true;
                        supervisor.close();
                    }
                    Event::Healthy(_) => {}
                }
                let mut n_tried = 0;
                loop {
                    let was_open = supervisor.is_open();
                    match supervisor.next(now) {
                        Next::Start(slot) => {
                            prop_assert!(!is_closed, "started after the close");
                            prop_assert!(up[slot].is_none(), "started while it is up");
                            prop_assert!(now >= earliest[slot], "started too early");
                            if was_open {
                                n_tried += 1;
                                prop_assert!(n_tried == 1, "two tried while the circuit is open");
                                prop_assert!(now >= reopened, "tried before it has cooled down");
                            }
                            up[slot] = Some(false);
                        }
                        Next::At(at) => {
                            prop_assert!(at > now && !is_closed);
                            break;
                        }
                        Next::Idle => break,
                    }
                }
                let down = (0..4).filter(|slot| up[*slot].is_none());
                if !is_closed && !supervisor.is_open() {
                    for slot in down {
                        prop_assert!(now < latest[slot], "slot {} is not started", slot);
                    }
                }
            }
        }
    }

    fn start(supervisor: &mut Supervisor, now: Duration) -> usize {
        match supervisor.next(now) {
            Next::Start(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    /// However long a start takes to fail, those who wait for a worker hear of it after a few.
    #[test]
    fn starts_that_take_long_to_fail_open_the_circuit() {
        for n_slots in [1, 2, 4] {
            for takes in [MS, 1000 * MS, 10_000 * MS, 60_000 * MS] {
                let mut supervisor = Supervisor::new(RestartPolicy::default(), n_slots, 7);
                let mut now = Duration::ZERO;
                let mut n_started = 0;
                while !supervisor.is_open() {
                    match supervisor.next(now) {
                        Next::Start(slot) => {
                            n_started += 1;
                            now += takes;
                            supervisor.died(slot, false, now);
                        }
                        Next::At(at) => now = at,
                        Next::Idle => panic!("nothing is ever started again"),
                    }
                }
                assert!(n_started <= 20 + 1, "{n_slots} slots, {takes:?}: {n_started} starts");
            }
        }
    }

    #[test]
    fn the_first_restart_after_a_healthy_run_is_immediate() {
        let mut supervisor = Supervisor::new(policy(9), 1, 0);
        start(&mut supervisor, MS);
        supervisor.healthy(0);
        supervisor.died(0, true, 7 * MS);
        assert_eq!(supervisor.next(7 * MS), Next::Start(0));
    }

    #[test]
    fn nothing_is_started_after_the_close() {
        let mut supervisor = Supervisor::new(policy(9), 2, 0);
        let slot = start(&mut supervisor, MS);
        supervisor.close();
        assert_eq!(supervisor.next(2 * MS), Next::Idle);
        supervisor.died(slot, true, 3 * MS);
        assert_eq!(supervisor.next(9000 * MS), Next::Idle);
    }

    #[test]
    fn delays_grow_to_their_bound_and_differ() {
        let mut supervisor = Supervisor::new(policy(1000), 1, 42);
        let mut now = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..10 {
            start(&mut supervisor, now);
            supervisor.died(0, false, now);
            let Next::At(at) = supervisor.next(now) else { panic!("it has to wait") };
            delays.push(at - now);
            now = at;
        }
        for (n, delay) in delays.iter().enumerate() {
            let whole = (10 * MS * (1 << n.min(3))).min(80 * MS);
            assert!(*delay >= whole / 2 && *delay <= whole, "delay {n}: {delay:?} of {whole:?}");
        }
        assert!(delays[5..].windows(2).any(|pair| pair[0] != pair[1]), "without jitter: {delays:?}");
    }

    #[test]
    fn a_healthy_probe_closes_the_circuit_and_a_dead_one_opens_it_again() {
        let mut supervisor = Supervisor::new(policy(0), 2, 0);
        let probe = start(&mut supervisor, MS);
        supervisor.died(probe, false, MS);
        assert!(supervisor.is_open());
        assert_eq!(supervisor.next(2 * MS), Next::At(501 * MS));
        let probe = start(&mut supervisor, 501 * MS);
        assert_eq!(supervisor.next(600 * MS), Next::Idle, "only one is tried");
        supervisor.died(probe, false, 600 * MS);
        assert_eq!(supervisor.next(601 * MS), Next::At(1100 * MS));
        let probe = start(&mut supervisor, 1100 * MS);
        supervisor.healthy(probe);
        assert!(!supervisor.is_open());
        assert_ne!(start(&mut supervisor, 1200 * MS), probe, "now the others follow");
    }

    #[test]
    fn a_probe_that_dies_after_a_healthy_run_is_no_failure() {
        let mut supervisor = Supervisor::new(policy(0), 1, 0);
        start(&mut supervisor, MS);
        supervisor.died(0, false, MS);
        start(&mut supervisor, 501 * MS);
        supervisor.died(0, true, 502 * MS);
        assert!(!supervisor.is_open());
        assert_eq!(supervisor.next(502 * MS), Next::Start(0));
    }
}
