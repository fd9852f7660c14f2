//! Models of the team, run by loom over every interleaving up to a bound of preemptions, each named after the bug that
//! it would catch:
//!
//! ```text
//! RUSTFLAGS="--cfg ferroyolo_loom" cargo test -p ferroyolo-kernels --lib --release loom
//! ```
//!
//! Panics are not modelled; the tests of [`super`] hold them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::team::Team;

/// A place in the caller's memory that one thread at a time may write. Loom panics where two accesses race.
struct Slot(UnsafeCell<usize>);

// SAFETY: loom watches every access and panics before two threads reach the value at the same time.
unsafe impl Sync for Slot {}
// SAFETY: as above.
unsafe impl Send for Slot {}

impl Slot {
    fn new() -> Slot {
        Slot(UnsafeCell::new(0))
    }

    fn add_one(&self) {
        // SAFETY: loom has checked that nobody else reads or writes.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> usize {
        // SAFETY: loom has checked that nobody else writes.
        self.0.with(|value| unsafe { *value })
    }
}

/// Runs `model` over all interleavings with at most `n_preemptions` and says how many those were.
fn check(name: &str, n_preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let n_runs = std::sync::Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(n_preemptions);
    let start = Instant::now();
    let counted = std::sync::Arc::clone(&n_runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let n = n_runs.load(Ordering::Relaxed);
    println!(
        "{name}: {n} interleavings, at most {n_preemptions} preemptions, {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

/// A region whose tasks write to the stack of its caller.
fn run_region(team: &Team, n_tasks: usize) {
    let slots: Vec<Slot> = (0..n_tasks).map(|_| Slot::new()).collect();
    let workers: Vec<Slot> = (0..team.n()).map(|_| Slot::new()).collect();
    team.for_each(n_tasks, &|task, worker| {
        // Two tasks with the same worker at the same time would race here.
        workers[worker].add_one();
        slots[task].add_one();
    });
    // A helper that is still inside would race with this write.
    slots.iter().chain(&workers).for_each(Slot::add_one);
    assert!(slots.iter().all(|slot| slot.get() == 2), "a task ran twice or not at all");
}

/// A region of two tasks in which the caller waits for the only helper, which must therefore come.
fn run_region_that_needs_the_helper(team: &Team) {
    let has_helper = Mutex::new(false);
    let came = Condvar::new();
    team.for_each(2, &|_, worker| {
        let mut guard = has_helper.lock().unwrap();
        if worker == 1 {
            *guard = true;
            came.notify_all();
        }
        while !*guard {
            guard = came.wait(guard).unwrap();
        }
    });
}

#[test]
fn task_lost_or_run_after_close() {
    check("task_lost_or_run_after_close", 3, || {
        let team = Team::new(2).unwrap();
        run_region(&team, 2);
    });
}

#[test]
fn job_of_the_next_region_written_while_read() {
    check("job_of_the_next_region_written_while_read", 2, || {
        let team = Team::new(2).unwrap();
        team.attentive(|| {
            run_region(&team, 1);
            run_region(&team, 2);
        });
    });
}

#[test]
fn wake_up_lost_between_last_look_and_sleep() {
    check("wake_up_lost_between_last_look_and_sleep", 3, || {
        let team = Team::new(2).unwrap();
        // No caller is attentive, so the helper sleeps as soon as it finds nothing.
        run_region_that_needs_the_helper(&team);
        run_region_that_needs_the_helper(&team);
    });
}

#[test]
fn end_missed_by_a_helper_that_goes_to_sleep() {
    check("end_missed_by_a_helper_that_goes_to_sleep", 3, || drop(Team::new(2).unwrap()));
}

#[test]
fn two_helpers_take_the_same_task() {
    check("two_helpers_take_the_same_task", 2, || {
        let team = Team::new(3).unwrap();
        run_region(&team, 2);
    });
}

#[test]
fn two_callers_get_the_same_helper() {
    check("two_callers_get_the_same_helper", 2, || {
        let team = Arc::new(Team::new(2).unwrap());
        let other = {
            let team = Arc::clone(&team);
            thread::spawn(move || run_region(&team, 2))
        };
        run_region(&team, 2);
        other.join().unwrap();
    });
}
