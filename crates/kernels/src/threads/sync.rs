//! What [`super::team`] builds on: the standard library, or loom, which tries out all interleavings, in model tests.
//!
//! Only the model tests are built with `--cfg ferroyolo_loom`; a cfg of our own, since `loom` would change dependencies
//! as well.

#[cfg(all(test, ferroyolo_loom))]
pub(super) use loom::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
    sync::{Arc, Condvar, Mutex},
    thread::{Builder, JoinHandle, yield_now},
};
#[cfg(not(all(test, ferroyolo_loom)))]
pub(super) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
    sync::{Arc, Condvar, Mutex},
    thread::{Builder, JoinHandle, yield_now},
};

pub(super) use std::sync::PoisonError;
pub(super) use std::sync::atomic::Ordering;

#[cfg(not(all(test, ferroyolo_loom)))]
pub(super) use cell::UnsafeCell;

#[cfg(not(all(test, ferroyolo_loom)))]
mod cell {
    /// The standard library's cell with loom's functions, which see where an access begins and ends.
    pub(in super::super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[inline(always)]
        pub(in super::super) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer that may be read while `f` runs, if nobody writes.
        #[inline(always)]
        pub(in super::super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer that may be written while `f` runs, if nobody else reads or writes.
        #[inline(always)]
        pub(in super::super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// How many threads can run at the same time.
pub(super) fn n_cpus() -> usize {
    // A model must not depend on the machine.
    if cfg!(all(test, ferroyolo_loom)) {
        return usize::MAX;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}
