//! Models of what the threads of a pool of processes share, each named after the bug that it would catch. Workers are
//! numbers here: their incarnations. Processes themselves can't be modelled; faults are injected into real ones.

use std::collections::VecDeque;
use std::time::Duration;

use crate::process::models::{
    Action, Answer, Clock, Death, Gate, Patience, Reason, RestartPolicy, Roster, Tag, Verdict,
};
use crate::sync::{Arc, Condvar, Deadline, Mutex, lock, thread, wait};

/// What a system of processes would know.
#[derive(Default)]
struct World {
    state: Mutex<Processes>,
    changed: Condvar,
}

#[derive(Default)]
struct Processes {
    n_started: u64,
    /// Started and not yet reaped.
    alive: Vec<u64>,
    /// Killed or crashed, and not yet reaped.
    dying: VecDeque<u64>,
    is_closed: bool,
    is_over: bool,
}

impl World {
    fn start(&self, incarnation: u64) {
        let mut state = lock(&self.state);
        assert!(!state.is_closed, "worker {incarnation} was started after the pool was closed");
        state.n_started += 1;
        state.alive.push(incarnation);
    }

    fn kill(&self, incarnation: u64) {
        lock(&self.state).dying.push_back(incarnation);
        self.changed.notify_all();
    }

    /// Reaps what dies until all is over, as the keepers do.
    fn keep(&self, roster: &Roster<u64>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(incarnation) = state.dying.pop_front() {
                // Who is killed twice dies once.
                let was_alive = state.alive.contains(&incarnation);
                state.alive.retain(|other| *other != incarnation);
                drop(state);
                if was_alive {
                    roster.died(0, incarnation, Death::of(Reason::Crashed));
                }
                state = lock(&self.state);
            } else if state.is_over {
                return;
            } else {
                state = wait(&self.changed, state, &Deadline::Never);
            }
        }
    }

    fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_all();
    }
}

const POLICY: RestartPolicy = RestartPolicy {
    backoff: Duration::ZERO,
    max_backoff: Duration::ZERO,
    budget: 100,
    window: Duration::MAX,
    in_a_row: u32::MAX,
    cool_down: Duration::MAX,
    healthy_after: Duration::MAX,
};

/// Nobody is ever late: time stands still.
const PATIENCE: Patience = Patience { start: Duration::MAX, silence: Duration::MAX, grace: Duration::MAX };

fn roster() -> Arc<Roster<u64>> {
    Arc::new(Roster::new(1, POLICY, 0, PATIENCE, Clock::Still))
}

/// Does what the supervisor's thread does. Of the workers, the first `n_crashes` crash by themselves.
fn supervise(roster: &Roster<u64>, world: &World, n_crashes: u64) {
    loop {
        match roster.next() {
            Action::Spawn { slot, incarnation } => {
                world.start(incarnation);
                match roster.spawned(slot, incarnation) {
                    Err(unwanted) => world.kill(unwanted),
                    Ok(()) if incarnation <= n_crashes => world.kill(incarnation),
                    Ok(()) => {}
                }
            }
            Action::Kill(incarnation) => world.kill(incarnation),
            Action::Stop => return world.end(),
        }
    }
}

/// Starts the slot's worker and makes it ready, before threads are there.
fn with_worker() -> (Arc<Roster<u64>>, u64) {
    let roster = roster();
    let Action::Spawn { slot: 0, incarnation } = roster.next() else { panic!("the worker is to be started") };
    roster.spawned(0, incarnation).expect("an open pool");
    assert!(roster.ready(0, incarnation));
    (roster, incarnation)
}

/// A pool is closed while its worker dies `n_crashes` times and is replaced; nobody outlives it.
fn close_against_restarts(n_crashes: u64) {
    let (roster, world) = (roster(), Arc::new(World::default()));
    let supervisor = {
        let (roster, world) = (Arc::clone(&roster), Arc::clone(&world));
        thread::spawn(move || supervise(&roster, &world, n_crashes))
    };
    let keeper = {
        let (roster, world) = (Arc::clone(&roster), Arc::clone(&world));
        thread::spawn(move || world.keep(&roster))
    };
    let (idle, busy) = roster.close();
    lock(&world.state).is_closed = true;
    idle.into_iter().chain(busy).for_each(|incarnation| world.kill(incarnation));
    supervisor.join().expect("the supervisor stops");
    keeper.join().expect("the keeper ends");
    let state = lock(&world.state);
    assert!(state.alive.is_empty(), "workers outlive the pool: {:?}", state.alive);
    assert_eq!(roster.tally().n_started, state.n_started);
}

#[cfg(ferroyolo_loom)]
mod loom {
    use super::*;
    use crate::models::check;

    /// A worker dies and is replaced while the pool is closed: what is started after the close is never waited for.
    #[test]
    fn loom_l13_worker_started_after_the_close() {
        check("L13 restart against shutdown", 3, 3, || close_against_restarts(1));
    }

    /// A driver waits for a worker that becomes ready, dies, or is closed away.
    #[test]
    fn loom_l13_driver_left_asleep() {
        check("L13 driver against death and shutdown", 3, 3, || {
            let roster = roster();
            let Action::Spawn { incarnation, .. } = roster.next() else { panic!("it is to be started") };
            roster.spawned(0, incarnation).expect("an open pool");
            let keeper = {
                let roster = Arc::clone(&roster);
                thread::spawn(move || {
                    roster.ready(0, incarnation);
                    roster.died(0, incarnation, Death::of(Reason::Crashed));
                })
            };
            let driver = {
                let roster = Arc::clone(&roster);
                thread::spawn(move || {
                    let tag = Tag { job: 7, generation: 1 };
                    if roster.wait_ready(0) == Gate::Ready && roster.assign(0, tag, None).is_some() {
                        let Answer::Died(death) = roster.await_answer(0) else { panic!("nobody answers") };
                        assert!(matches!(death.reason, Reason::Crashed | Reason::Closed), "{death:?}");
                    }
                })
            };
            roster.close();
            keeper.join().expect("the keeper ends");
            driver.join().expect("the driver ends");
        });
    }

    /// A worker answers at the job's deadline: the driver gets one answer, and a late one is counted.
    #[test]
    fn loom_l13_answer_and_deadline_both_counted() {
        check("L13 answer against deadline", 3, None, || {
            let (roster, incarnation) = with_worker();
            let tag = Tag { job: 7, generation: 1 };
            roster.assign(0, tag, Some(Duration::ZERO)).expect("a ready worker");
            let keeper = {
                let roster = Arc::clone(&roster);
                thread::spawn(move || roster.answer(0, incarnation, tag, Answer::Done(vec![7])))
            };
            let supervisor = {
                let roster = Arc::clone(&roster);
                // It is killed, or proves to work first; then the supervisor has nothing to do until the close.
                thread::spawn(move || matches!(roster.next(), Action::Kill(_)))
            };
            let answer = roster.await_answer(0);
            let verdict = keeper.join().expect("the keeper ends");
            if answer == Answer::Done(vec![7]) {
                roster.close();
                roster.died(0, incarnation, Death::of(Reason::Crashed));
            }
            let was_killed = supervisor.join().expect("the supervisor ends");
            let tally = roster.tally();
            if was_killed {
                assert_eq!((answer, verdict), (Answer::TimedOut, Verdict::Dropped));
                assert_eq!((tally.n_deadline_kills, tally.n_late_replies), (1, 1));
            } else {
                assert_eq!((answer, verdict), (Answer::Done(vec![7]), Verdict::Accepted));
                assert_eq!((tally.n_deadline_kills, tally.n_late_replies), (0, 0));
            }
        });
    }

    /// A worker dies while it answers and is replaced: what is said of the dead one is not held against the next.
    #[test]
    fn loom_l13_answer_of_a_dead_worker_taken() {
        check("L13 answer of an earlier incarnation", 3, None, || {
            let (roster, first) = with_worker();
            let tag = |generation| Tag { job: 7, generation };
            roster.assign(0, tag(1), None).expect("a ready worker");
            roster.died(0, first, Death::of(Reason::Crashed));
            assert!(matches!(roster.await_answer(0), Answer::Died(_)));
            let Action::Spawn { incarnation: second, .. } = roster.next() else { panic!("it is replaced") };
            roster.spawned(0, second).expect("an open pool");
            roster.ready(0, second);
            let late = {
                let roster = Arc::clone(&roster);
                thread::spawn(move || roster.answer(0, first, tag(1), Answer::Done(vec![1])))
            };
            let keeper = {
                let roster = Arc::clone(&roster);
                thread::spawn(move || {
                    // It answers what it was asked, once it was asked.
                    while roster.answer(0, second, tag(2), Answer::Done(vec![2])) != Verdict::Accepted {
                        thread::yield_now();
                    }
                })
            };
            roster.assign(0, tag(2), None).expect("a ready worker");
            assert_eq!(roster.await_answer(0), Answer::Done(vec![2]));
            assert_eq!(late.join().expect("it ends"), Verdict::Dropped);
            keeper.join().expect("it ends");
        });
    }
}

#[cfg(ferroyolo_shuttle)]
mod shuttle {
    use super::*;
    use crate::models::explore;

    /// Many deaths while the pool is closed.
    #[test]
    fn shuttle_l13_worker_started_after_the_close() {
        explore("L13 five restarts against shutdown", 3, || close_against_restarts(5));
    }
}
