//! What everything here that blocks builds on: the standard library, or in model tests a library that chooses the
//! interleaving. loom tries out all of them up to a bound, shuttle draws some at random.
//!
//! Models are built with `--cfg ferroyolo_loom` or `--cfg ferroyolo_shuttle`; cfgs of our own, since `loom` would
//! change dependencies as well. Only mutexes and condition variables are used to wait: no atomics, no spinning.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(all(test, ferroyolo_loom))]
pub(crate) use loom::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(all(test, ferroyolo_shuttle))]
pub(crate) use shuttle::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(not(all(test, any(ferroyolo_loom, ferroyolo_shuttle))))]
pub(crate) use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

/// The mutex's guard, also after a panic while it was held.
///
/// Callers' code never runs under these mutexes, and state is consistent wherever a panic could leave them; poisoning
/// that callers can see is a state of its own.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// A place for a value that is put there once and then read without a lock.
///
/// A model has to see every access that decides what a thread does next, or it would not try out the others' steps
/// before it; so in models there is a mutex around each.
#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    value: OnceLock<T>,
    #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
    access: Mutex<()>,
}

impl<T> SetOnce<T> {
    pub(crate) fn new() -> SetOnce<T> {
        SetOnce {
            value: OnceLock::new(),
            #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
            access: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
        let _access = lock(&self.access);
        self.value.get()
    }

    /// Puts `value` there unless there is one, and returns the one that is there.
    pub(crate) fn get_or_set(&self, value: T) -> &T {
        #[cfg(all(test, any(ferroyolo_loom, ferroyolo_shuttle)))]
        let _access = lock(&self.access);
        self.value.get_or_init(|| value)
    }

    pub(crate) fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}

/// Until when to wait.
#[derive(Clone, Debug)]
pub(crate) enum Deadline {
    Never,
    At(Instant),
    /// Passes when a model says so: models have no clock, so a timeout is another thread that fires it.
    #[cfg(test)]
    Manual(Arc<Mutex<bool>>),
}

impl Deadline {
    /// `timeout` from now. One too long for the clock never passes. Of no use to models, which have no clock.
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At)
    }

    pub(crate) fn has_passed(&self) -> bool {
        match self {
            Deadline::Never => false,
            Deadline::At(at) => Instant::now() >= *at,
            #[cfg(test)]
            Deadline::Manual(fired) => *lock(fired),
        }
    }
}

/// Waits until `condvar` is notified or the deadline passes, or for no reason at all.
pub(crate) fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: &Deadline,
) -> MutexGuard<'a, T> {
    match deadline {
        #[cfg(not(all(test, any(ferroyolo_loom, ferroyolo_shuttle))))]
        Deadline::At(at) => {
            let left = at.saturating_duration_since(Instant::now());
            match condvar.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            }
        }
        _ => match condvar.wait(guard) {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        },
    }
}
