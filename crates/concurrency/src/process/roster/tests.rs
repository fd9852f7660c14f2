//! Patience with workers, by a clock that the tests set. Workers are numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const S: Duration = Duration::from_secs(1);

/// A roster of one slot with the default patience, and its clock.
struct Scene {
    roster: Roster<u32>,
    ms: &'static AtomicU64,
}

impl Scene {
    fn new() -> Scene {
        let ms: &'static AtomicU64 = Box::leak(Box::default());
        let patience = Patience { start: 60 * S, silence: 15 * S, grace: 5 * S };
        Scene { roster: Roster::new(1, RestartPolicy::default(), 7, patience, Clock::Set(ms)), ms }
    }

    /// With a worker that is being started.
    fn starting() -> Scene {
        let scene = Scene::new();
        let action = scene.look();
        assert!(matches!(action, Some(Action::Spawn { slot: 0, incarnation: 1 })), "{action:?}");
        scene.roster.spawned(0, 1).expect("an open pool");
        scene
    }

    /// With a worker that takes jobs.
    fn ready() -> Scene {
        let scene = Scene::starting();
        assert!(scene.roster.ready(0, 1));
        scene
    }

    fn pass(&self, time: Duration) {
        self.ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// What the supervisor does when it looks now.
    fn look(&self) -> Option<Action<u32>> {
        self.roster.look(&mut lock(&self.roster.state), self.roster.clock.now())
    }

    /// The supervisor looks whenever it planned to, until it kills the worker; after how long by the clock it does.
    fn killed_after(&self) -> Duration {
        let begin = self.roster.clock.now();
        loop {
            match self.look() {
                Some(Action::Kill(1)) => return self.roster.clock.now() - begin,
                Some(other) => panic!("{other:?}"),
                None => {
                    let at = lock(&self.roster.state).wake_at.expect("it looks again while a worker lives");
                    self.pass(at - self.roster.clock.now());
                }
            }
        }
    }
}

#[test]
fn silence_is_noticed_on_time() {
    assert_eq!(Scene::ready().killed_after(), 15 * S);
    assert_eq!(Scene::starting().killed_after(), 60 * S);
    // A sign of life begins it anew.
    let scene = Scene::ready();
    for _ in 0..40 {
        assert!(scene.look().is_none());
        scene.pass(S);
        scene.roster.heard(0, 1);
    }
    assert_eq!(scene.killed_after(), 15 * S);
}

#[test]
fn workers_outlive_a_stop_of_their_parent() {
    for stop in [16 * S, 70 * S, 3600 * S] {
        for scene in [Scene::starting(), Scene::ready()] {
            assert!(scene.look().is_none());
            scene.pass(stop);
            // The supervisor wakes before any keeper has read what its worker sent.
            let action = scene.look();
            assert!(action.is_none(), "after {stop:?}: {action:?}");
            scene.roster.heard(0, 1);
            assert!(scene.look().is_none());
        }
    }
}

#[test]
fn a_stop_does_not_save_a_worker_that_stands_still() {
    let scene = Scene::ready();
    assert!(scene.look().is_none());
    scene.pass(3600 * S);
    let left = scene.killed_after();
    assert!(left >= 10 * S && left <= 15 * S, "{left:?}");
    assert!(scene.roster.tally().deaths.is_empty(), "it is not buried yet");
    scene.roster.died(0, 1, Death::of(Reason::Crashed));
    assert_eq!(scene.roster.tally().deaths, [("silent", 1)]);
}

#[test]
fn a_worker_that_was_told_to_leave_has_its_time_after_a_stop() {
    let scene = Scene::ready();
    assert_eq!(scene.roster.close(), (vec![1], vec![]));
    assert!(scene.look().is_none());
    scene.pass(100 * S);
    assert!(scene.look().is_none());
    let left = scene.killed_after();
    assert!(left >= 3 * S && left <= 5 * S, "{left:?}");
}

#[test]
fn deadlines_of_jobs_are_by_the_clock() {
    let scene = Scene::ready();
    assert_eq!(scene.roster.assign(0, Tag { job: 1, generation: 1 }, Some(20 * S)), Some(1));
    assert!(scene.look().is_none());
    scene.pass(30 * S);
    assert!(matches!(scene.look(), Some(Action::Kill(1))));
    assert_eq!(scene.roster.await_answer(0), Answer::TimedOut);
}
