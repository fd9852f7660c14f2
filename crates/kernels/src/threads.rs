//! The threads that kernels run on.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of threads that kernels may use: the caller's own for one, a pool otherwise.
pub struct Threads {
    n: usize,
    pool: Option<rayon::ThreadPool>,
}

/// A thread pool could not be made.
#[derive(Debug)]
pub struct ThreadsError(Cause);

#[derive(Debug)]
enum Cause {
    Zero,
    Pool(rayon::ThreadPoolBuildError),
}

impl Threads {
    /// Makes `n` threads available.
    ///
    /// Errors if `n` is zero or the operating system refuses the threads.
    pub fn new(n: usize) -> Result<Threads, ThreadsError> {
        let pool = match n {
            0 => return Err(ThreadsError(Cause::Zero)),
            1 => None,
            _ => {
                let builder =
                    rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("ferroyolo-{i}"));
                Some(builder.build().map_err(|e| ThreadsError(Cause::Pool(e)))?)
            }
        };
        Ok(Threads { n, pool })
    }

    /// How many threads there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Runs `f` on one of the threads; kernels called within it start their parallel regions cheaply.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => f(),
            Some(pool) => pool.install(f),
        }
    }

    /// Calls `f(task, worker)` once for every task in `0..n_tasks`, on all threads.
    ///
    /// Two calls that run at the same time have different workers, all below `n()`. Which worker gets a task is left
    /// to chance, so `f` must not let its result depend on it.
    pub(crate) fn for_each(&self, n_tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let n_workers = self.n.min(n_tasks);
        match &self.pool {
            Some(pool) if n_workers > 1 => {
                let next = AtomicUsize::new(0);
                let work = |worker: usize| {
                    loop {
                        let task = next.fetch_add(1, Ordering::Relaxed);
                        if task >= n_tasks {
                            break;
                        }
                        f(task, worker);
                    }
                };
                pool.scope(|scope| {
                    for worker in 1..n_workers {
                        let work = &work;
                        scope.spawn(move |_| work(worker));
                    }
                    work(0);
                });
            }
            _ => (0..n_tasks).for_each(|task| f(task, 0)),
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("n", &self.n).finish_non_exhaustive()
    }
}

impl fmt::Display for ThreadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Zero => f.write_str("number of threads is 0, expected at least 1"),
            Cause::Pool(_) => f.write_str("thread pool could not be started"),
        }
    }
}

impl std::error::Error for ThreadsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Zero => None,
            Cause::Pool(e) => Some(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for n in [1, 2, 3] {
            let threads = Threads::new(n).unwrap();
            let counts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            threads.install(|| {
                threads.for_each(counts.len(), &|task, worker| {
                    assert!(worker < n);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn zero_threads_are_an_error() {
        assert_eq!(Threads::new(0).unwrap_err().to_string(), "number of threads is 0, expected at least 1");
    }
}
