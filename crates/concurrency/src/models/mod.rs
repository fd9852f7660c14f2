//! Models: small programs on the wrappers whose interleavings are chosen by loom or shuttle instead of by chance.
//!
//! ```text
//! RUSTFLAGS="--cfg ferroyolo_loom" cargo test -p ferroyolo-concurrency --lib --release loom -- --nocapture
//! RUSTFLAGS="--cfg ferroyolo_shuttle" cargo test -p ferroyolo-concurrency --lib --release shuttle -- --nocapture
//! ```
//!
//! loom runs every interleaving of a few threads up to a number of preemptions and fails on deadlocks. It knows no
//! clock, so a timeout is another thread that fires it ([`Timer`]), and no spurious wake-ups, so `disturb` makes them.
//! It does not model panics: where a model panics, nothing of loom's may be reached while the stack unwinds. It leaves out
//! orders of steps that cannot matter, and judges that by what it sees: whatever decides what a thread does next has to
//! be behind a mutex of loom's; atomics of the standard library serve for counting and asserting only. shuttle
//! runs many threads in schedules drawn at random; [`N_SCHEDULES_VAR`] sets how many.

mod locks;
mod process;
mod queue;

#[cfg(ferroyolo_loom)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::sync::{Arc, Deadline, Mutex, lock};

/// Runs `model` over all interleavings with at most `bound` preemptions, or over all there are, and prints a line of a
/// table: name, threads, bound, interleavings, seconds.
#[cfg(ferroyolo_loom)]
pub(crate) fn check(
    name: &str,
    n_threads: usize,
    bound: impl Into<Option<usize>>,
    model: impl Fn() + Send + Sync + 'static,
) {
    let bound = bound.into();
    let n_runs = std::sync::Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.max_branches = 10_000;
    // Reaching one of these would pass silently, so the environment does not set them either.
    builder.max_duration = None;
    builder.max_permutations = None;
    let start = Instant::now();
    let counted = std::sync::Arc::clone(&n_runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let n_runs = n_runs.load(Ordering::Relaxed);
    let bound = bound.map_or("none".to_owned(), |bound| bound.to_string());
    println!("| {name} | {n_threads} | {bound} | {n_runs} | {:.1} |", start.elapsed().as_secs_f64());
    assert!(n_runs > 1, "{name}: nothing was interleaved");
}

/// How many schedules shuttle draws of each kind; [`N_SCHEDULES`] without it.
#[cfg(ferroyolo_shuttle)]
pub(crate) const N_SCHEDULES_VAR: &str = "FERROYOLO_SCHEDULES";

/// Enough to see that a model still runs; records are made with 100,000.
#[cfg(ferroyolo_shuttle)]
const N_SCHEDULES: usize = 500;

/// A seed to repeat a run with; shuttle's own name for it.
#[cfg(ferroyolo_shuttle)]
const SEED_VAR: &str = "SHUTTLE_RANDOM_SEED";

/// Runs `model` in schedules drawn at random, then in as many drawn by probabilistic concurrency testing (PCT), and
/// prints a line of a table for each: name, threads, kind, seed, schedules, seconds.
#[cfg(ferroyolo_shuttle)]
pub(crate) fn explore(name: &str, n_threads: usize, model: impl Fn() + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use std::hash::{BuildHasher, RandomState};

    /// Preemptions that PCT places. A bug that needs no more of them is found with known probability.
    const PCT_DEPTH: usize = 3;

    let n_schedules = match std::env::var(N_SCHEDULES_VAR) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{N_SCHEDULES_VAR}: not a number: {text}")),
        Err(_) => N_SCHEDULES,
    };
    let seed = match std::env::var(SEED_VAR) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED_VAR}: not a number: {text}")),
        Err(_) => RandomState::new().hash_one(name),
    };
    let model = Arc::new(model);
    let mut config = shuttle::Config::new();
    config.stack_size = 128 * 1024;
    for kind in ["random", "pct"] {
        let start = Instant::now();
        let own = Arc::clone(&model);
        let n_runs = if kind == "random" {
            let scheduler = RandomScheduler::new_from_seed(seed, n_schedules);
            shuttle::Runner::new(scheduler, config.clone()).run(move || own())
        } else {
            let scheduler = PctScheduler::new_from_seed(seed, PCT_DEPTH, n_schedules);
            shuttle::Runner::new(scheduler, config.clone()).run(move || own())
        };
        println!(
            "| {name} | {n_threads} | {kind} | {seed} | {n_runs} | {:.1} |",
            start.elapsed().as_secs_f64()
        );
        assert_eq!(n_runs, n_schedules, "{name}: stopped early");
    }
}

/// A deadline that passes when a model says so.
#[derive(Clone)]
pub(crate) struct Timer(Arc<Mutex<bool>>);

impl Timer {
    pub(crate) fn new() -> Timer {
        Timer(Arc::new(Mutex::new(false)))
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::Manual(Arc::clone(&self.0))
    }

    /// Lets the deadline pass. Whoever waits finds out when it is disturbed next.
    pub(crate) fn fire(&self) {
        *lock(&self.0) = true;
    }
}
