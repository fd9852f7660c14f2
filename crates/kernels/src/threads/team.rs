//! Helper threads that join a caller's loop within a fraction of a microsecond.
//!
//! A network is a hundred parallel loops of a few dozen microseconds each, so waking threads through the operating
//! system for every one would cost more than it gains. While a caller is *attentive*, helpers spin for a moment
//! before they sleep. A loop never waits for a helper to wake up: whoever is there joins, the caller does the rest, and
//! only those who joined are waited for.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use super::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Builder, Condvar, JoinHandle, Mutex, Ordering, PoisonError,
    UnsafeCell, fence, n_cpus, spin_loop, yield_now,
};

/// A model tries out every way that a wait can go, so there it has to be short.
const MODEL: bool = cfg!(all(test, ferroyolo_loom));

/// Pauses before an idle helper gives its time slice away: some 50 microseconds.
const SPINS: usize = if MODEL { 1 } else { 2000 };

/// Time slices given away before it sleeps.
const YIELDS: usize = if MODEL { 1 } else { 200 };

/// Pauses for which a caller waits for helpers before it gives its time slice away.
const CLOSE_SPINS: usize = if MODEL { 0 } else { 10_000 };

/// The bit of [`Shared::gate`] that lets helpers join, above the count of those who have.
const OPEN: u64 = 1 << 31;
const COUNT: u64 = OPEN - 1;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A caller's thread and `n - 1` helpers.
pub(super) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by the caller whose loop the helpers work on.
    busy: AtomicBool,
}

struct Shared {
    /// The number of the loop in the upper half, then [`OPEN`], then how many helpers are in it.
    gate: AtomicU64,
    /// The loop. Written by the caller that holds `busy` while the gate is closed and empty, read by helpers between
    /// joining and leaving.
    job: UnsafeCell<Job>,
    /// The next task of the loop.
    next: AtomicUsize,
    /// Callers that will start further loops at once.
    n_attentive: AtomicUsize,
    /// Helpers that sleep or are about to.
    n_sleeping: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    /// What the first task that panicked in a helper said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    n_tasks: usize,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only by the caller that holds `busy`,
// when no helper is in the gate, and read only by helpers in the gate; `gate` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is followed only while the loop's caller keeps the task alive.
unsafe impl Send for Shared {}

impl Team {
    /// Starts `n - 1` helpers.
    pub(super) fn new(n: usize) -> io::Result<Team> {
        let nothing: &'static Task<'static> = &|_, _| ();
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job { task: nothing, n_tasks: 0 }),
            next: AtomicUsize::new(0),
            n_attentive: AtomicUsize::new(0),
            n_sleeping: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        // With more threads than CPUs, a helper that spins takes the CPU from one that works.
        let spins = if n <= n_cpus() { SPINS } else { 0 };
        let mut team = Team { shared, helpers: Vec::new(), busy: AtomicBool::new(false) };
        for worker in 1..n {
            let shared = Arc::clone(&team.shared);
            let builder = Builder::new().name(format!("ferroyolo-{worker}"));
            // If the system refuses one, dropping the team ends those that were started.
            team.helpers.push(builder.spawn(move || shared.help(worker, spins))?);
        }
        Ok(team)
    }

    pub(super) fn n(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `f` while helpers that wait stay awake for a moment.
    pub(super) fn attentive<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.shared.n_attentive.fetch_add(1, Ordering::Relaxed);
        let _leave = Leave(&self.shared.n_attentive);
        f()
    }

    /// Runs all tasks. If the helpers work for another caller, this one works alone.
    pub(super) fn for_each(&self, n_tasks: usize, task: &Task<'_>) {
        if self.busy.swap(true, Ordering::Acquire) {
            (0..n_tasks).for_each(|idx| task(idx, 0));
            return;
        }
        // Also when a task panics here, no helper may be left in the loop when this function returns.
        let region = Region { team: self };
        self.shared.open(n_tasks, task);
        self.shared.work(task, n_tasks, 0);
        self.shared.close();
        let payload = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(region);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its tasks and has none of its own.
            let _ = helper.join();
        }
    }
}

/// A loop in progress. Dropping it waits for the helpers that have joined and lets the next caller in.
struct Region<'a> {
    team: &'a Team,
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        self.team.shared.close();
        if thread::panicking() {
            // The caller's own panic is the one that is told.
            self.team.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.team.busy.store(false, Ordering::Release);
    }
}

impl Shared {
    /// Lets helpers into a new loop. Only for the caller that holds `busy`; [`Shared::close`] has to follow while
    /// `task` is alive.
    fn open(&self, n_tasks: usize, task: &Task<'_>) {
        // SAFETY: only the lifetime is changed. Helpers use the pointer between joining and leaving, and `close`, which
        // the caller's `Region` runs before `task` ends, waits until all have left.
        let task = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: the gate is closed and empty, so no helper reads; `busy` keeps other callers out.
        self.job.with_mut(|job| unsafe { *job = Job { task, n_tasks } });
        self.next.store(0, Ordering::Relaxed);
        let number = (self.gate.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.gate.store((number << 32) | OPEN, Ordering::Release);
        // A helper counts itself as sleeping before it looks at the gate for the last time, so either it is seen here
        // or it sees the gate. The fence pairs with the one in `wait_for_loop`.
        fence(Ordering::SeqCst);
        if self.n_sleeping.load(Ordering::Relaxed) > 0 {
            self.wake_all();
        }
    }

    /// Lets no more helpers in and waits for those inside.
    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.gate.load(Ordering::Acquire) & COUNT != 0 {
            spins += 1;
            if spins < CLOSE_SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }

    fn work(&self, task: &Task<'_>, n_tasks: usize, worker: usize) {
        loop {
            let idx = self.next.fetch_add(1, Ordering::Relaxed);
            if idx >= n_tasks {
                break;
            }
            task(idx, worker);
        }
    }

    /// A helper's life.
    fn help(&self, worker: usize, spins: usize) {
        let mut seen = 0;
        while let Some(number) = self.wait_for_loop(seen, spins) {
            seen = number;
            if !self.join(number) {
                continue;
            }
            // SAFETY: this helper is in the gate: the caller wrote the job before it opened it, and neither changes it
            // nor ends the task before this helper leaves.
            let Job { task, n_tasks } = self.job.with(|job| unsafe { *job });
            // SAFETY: as above.
            let task = unsafe { &*task };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work(task, n_tasks, worker))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(payload);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Enters the loop of this number, unless it is closed.
    fn join(&self, number: u64) -> bool {
        let mut gate = self.gate.load(Ordering::Relaxed);
        while gate >> 32 == number && gate & OPEN != 0 {
            match self.gate.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => gate = now,
            }
        }
        false
    }

    /// The number of the first loop after `seen`, or `None` when the team ends.
    fn wait_for_loop(&self, seen: u64, spins: usize) -> Option<u64> {
        let news = || {
            let number = self.gate.load(Ordering::Acquire) >> 32;
            if self.stop.load(Ordering::Acquire) {
                Some(None)
            } else {
                (number != seen).then_some(Some(number))
            }
        };
        for round in 0..spins + YIELDS {
            if let Some(news) = news() {
                return news;
            }
            if spins == 0 || self.n_attentive.load(Ordering::Relaxed) == 0 {
                break;
            }
            if round < spins {
                spin_loop();
            } else {
                yield_now();
            }
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.n_sleeping.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let news = loop {
            if let Some(news) = news() {
                break news;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.n_sleeping.fetch_sub(1, Ordering::Relaxed);
        news
    }

    fn wake_all(&self) {
        // A helper that has counted itself holds the lock until it waits, so it can't miss this.
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }
}
