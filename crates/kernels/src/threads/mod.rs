//! The threads that kernels run on.

mod sync;
mod team;

#[cfg(all(test, ferroyolo_loom))]
mod loom_models;

use std::fmt;
use std::io;

use team::Team;

/// A number of threads that kernels may use: the caller's own for one, with helpers otherwise.
pub struct Threads {
    team: Option<Team>,
}

/// The threads could not be made.
#[derive(Debug)]
pub struct ThreadsError(Cause);

#[derive(Debug)]
enum Cause {
    Zero,
    Spawn(io::Error),
}

impl Threads {
    /// Makes `n` threads available.
    ///
    /// Errors if `n` is zero or the operating system refuses the threads.
    pub fn new(n: usize) -> Result<Threads, ThreadsError> {
        let team = match n {
            0 => return Err(ThreadsError(Cause::Zero)),
            1 => None,
            _ => Some(Team::new(n).map_err(|e| ThreadsError(Cause::Spawn(e)))?),
        };
        Ok(Threads { team })
    }

    /// How many threads there are.
    pub fn n(&self) -> usize {
        self.team.as_ref().map_or(1, Team::n)
    }

    /// Runs `f`, which calls many kernels one after the other: meanwhile the helpers stay awake between them.
    pub fn install<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.team {
            None => f(),
            Some(team) => team.attentive(f),
        }
    }

    /// Calls `f(task, worker)` once for every task in `0..n_tasks`, on all threads.
    ///
    /// Two calls that run at the same time have different workers, all below `n()`. Which worker gets a task is left
    /// to chance, so `f` must not let its result depend on it. Panics if a task panics.
    pub(crate) fn for_each(&self, n_tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        match &self.team {
            Some(team) if n_tasks > 1 => team.for_each(n_tasks, f),
            _ => (0..n_tasks).for_each(|task| f(task, 0)),
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("n", &self.n()).finish_non_exhaustive()
    }
}

impl fmt::Display for ThreadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Zero => f.write_str("number of threads is 0, expected at least 1"),
            Cause::Spawn(_) => f.write_str("threads could not be started"),
        }
    }
}

impl std::error::Error for ThreadsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Zero => None,
            Cause::Spawn(e) => Some(e),
        }
    }
}

#[cfg(all(test, not(ferroyolo_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn check_counts(threads: &Threads, n_tasks: usize) {
        let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
        threads.for_each(n_tasks, &|task, worker| {
            assert!(worker < threads.n());
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{n_tasks} tasks on {}", threads.n());
    }

    #[test]
    fn every_task_runs_once() {
        for n in [1, 2, 3, 8] {
            let threads = Threads::new(n).unwrap();
            for n_tasks in [0, 1, 2, 7, 50] {
                check_counts(&threads, n_tasks);
                threads.install(|| check_counts(&threads, n_tasks));
            }
        }
    }

    #[test]
    fn many_short_regions_lose_no_task() {
        for n in [2, 3, 5] {
            let threads = Threads::new(n).unwrap();
            let total = AtomicUsize::new(0);
            threads.install(|| {
                for region in 0..5000 {
                    threads.for_each(1 + region % 7, &|_, _| {
                        total.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
            let want: usize = (0..5000).map(|region| 1 + region % 7).sum();
            assert_eq!(total.load(Ordering::Relaxed), want);
        }
    }

    #[test]
    fn callers_share_the_helpers() {
        let threads = Threads::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|region| check_counts(&threads, region % 9)));
            }
        });
    }

    #[test]
    fn a_task_may_start_a_region() {
        let threads = Threads::new(2).unwrap();
        let total = AtomicUsize::new(0);
        threads.for_each(4, &|_, _| {
            threads.for_each(3, &|_, _| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 12);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_go_on() {
        let threads = Threads::new(3).unwrap();
        for round in 0..20 {
            let run = || threads.for_each(8, &|task, _| assert!(task != round % 8, "task {task}"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
            check_counts(&threads, 8);
        }
    }

    #[test]
    fn zero_threads_are_an_error() {
        assert_eq!(Threads::new(0).unwrap_err().to_string(), "number of threads is 0, expected at least 1");
    }
}
