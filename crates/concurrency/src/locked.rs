//! One instance behind a lock: [`Locked`], and [`locked`] for a closure.
//!
//! **Choose it** when there is memory for one instance only, when calls are rare, or when the instance's own threads
//! already fill the machine. What many callers do at a time they do one after the other, so a second caller makes
//! nothing faster; for that take [`Pool`](crate::Pool) or [`PerThread`](crate::PerThread).
//!
//! **It costs** two uncontended mutex operations a call, some tens of nanoseconds, and no memory besides the instance.
//! A caller who waits sleeps; the lock is handed to it directly, which costs one wake-up.
//!
//! **It promises**
//! - one caller at a time, in the order of arrival: nobody who comes later overtakes, also not on a busy machine;
//! - the lock belongs to the data, not to a function: there is no way to the instance around it;
//! - a panic in a caller's closure goes on in that caller, and *poisons*: those who wait and those who come get
//!   [`LockError::Poisoned`], until [`recover`](Locked::recover) or [`recover_with`](Locked::recover_with) says that
//!   the instance can be used again;
//! - a call from inside a call, by the same thread, is [`LockError::Reentrant`] rather than a deadlock;
//! - a caller whose time is over leaves without disturbing the order of the others;
//! - only the closure runs while the lock is taken. Results that come one by one should be handed out after the call.
//!
//! Two locks taken in opposite orders by two threads can still wait for each other; [`Locked::with_timeout`] gets out
//! of that.
//!
//! ```
//! use ferroyolo_concurrency::{LockError, Locked};
//!
//! let counter = Locked::new(0);
//! std::thread::scope(|scope| {
//!     for _ in 0..4 {
//!         scope.spawn(|| counter.with(|n| *n += 1));
//!     }
//! });
//! assert_eq!(counter.with(|n| *n), Ok(4));
//! assert_eq!(counter.with(|_| counter.with(|_| ())), Ok(Err(LockError::Reentrant)));
//! ```

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::metrics::{Histogram, LockMetrics};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Deadline, Mutex, lock};
use crate::wait_list::{WaitList, wait_for_grant};

/// Why a call of [`Locked`] did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// An earlier caller panicked, so the value may be half changed.
    Poisoned,
    /// The lock was not free in time.
    Timeout,
    /// The calling thread is inside a call already.
    Reentrant,
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockError::Poisoned => "an earlier caller panicked while it held the lock",
            LockError::Timeout => "the lock was not free in time",
            LockError::Reentrant => "this thread holds the lock already",
        })
    }
}

impl Error for LockError {}

/// A value that one caller at a time may use, first come first served. See the [module](self).
pub struct Locked<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Absent while a caller uses it. Boxed, because it moves out and in with every call.
    value: Option<Box<T>>,
    holder: Holder,
    is_poisoned: bool,
    waiting: WaitList<Turn>,
    waits: Histogram,
}

enum Holder {
    Nobody,
    /// The waiter that was granted the lock and has not woken up yet.
    Next,
    Thread(ThreadId),
}

/// What a waiter is told.
enum Turn {
    Yours,
    Poisoned,
}

impl<T> Locked<T> {
    /// Puts `value` behind a lock.
    pub fn new(value: T) -> Locked<T> {
        let value = Some(Box::new(value));
        let (waiting, waits) = (WaitList::new(), Histogram::default());
        Locked {
            state: Mutex::new(State { value, holder: Holder::Nobody, is_poisoned: false, waiting, waits }),
        }
    }

    /// Waits for its turn and runs `f` on the value.
    ///
    /// Errors with [`LockError::Poisoned`] and [`LockError::Reentrant`]. A panic of `f` poisons the lock and goes on.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, LockError> {
        self.with_until(&Deadline::Never, f)
    }

    /// As [`with`](Locked::with), but does not wait: [`LockError::Timeout`] if the lock is not free.
    pub fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, LockError> {
        self.with_until(&Deadline::At(Instant::now()), f)
    }

    /// As [`with`](Locked::with), but waits no longer than `timeout`, then errors with [`LockError::Timeout`].
    ///
    /// The time limits the wait, not `f`.
    pub fn with_timeout<R>(&self, timeout: Duration, f: impl FnOnce(&mut T) -> R) -> Result<R, LockError> {
        self.with_until(&Deadline::after(timeout), f)
    }

    pub(crate) fn with_until<R>(
        &self,
        deadline: &Deadline,
        f: impl FnOnce(&mut T) -> R,
    ) -> Result<R, LockError> {
        let mut value = self.take(deadline)?;
        // A closure that panics has no way back to the value: it comes back as poisoned.
        match catch_unwind(AssertUnwindSafe(|| f(&mut value))) {
            Ok(result) => {
                self.put_back(value);
                Ok(result)
            }
            Err(panic) => {
                self.poison(value);
                resume_unwind(panic);
            }
        }
    }

    /// Lets `repair` mend the value after a panic, and opens the lock again.
    ///
    /// Returns whether there was anything to do: of several callers that saw [`LockError::Poisoned`] one repairs. Others
    /// wait while `repair` runs; if it panics the lock is poisoned as before. Errors with [`LockError::Reentrant`].
    pub fn recover(&self, repair: impl FnOnce(&mut T)) -> Result<bool, LockError> {
        let Some(mut value) = self.take_poisoned()? else { return Ok(false) };
        match catch_unwind(AssertUnwindSafe(|| repair(&mut value))) {
            Ok(()) => {
                self.put_back(value);
                Ok(true)
            }
            Err(panic) => {
                self.poison(value);
                resume_unwind(panic);
            }
        }
    }

    /// Replaces the value after a panic, drops the old one, and opens the lock again.
    ///
    /// Hands `value` back if the lock is not poisoned.
    pub fn recover_with(&self, value: T) -> Result<(), T> {
        let Ok(Some(old)) = self.take_poisoned() else { return Err(value) };
        self.put_back(Box::new(value));
        drop(old);
        Ok(())
    }

    /// Whether a caller panicked and nobody has recovered the value yet.
    pub fn is_poisoned(&self) -> bool {
        lock(&self.state).is_poisoned
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// How callers have waited so far, under this name.
    pub fn metrics(&self, name: impl Into<String>) -> LockMetrics {
        let state = lock(&self.state);
        LockMetrics { name: name.into(), lock_wait: state.waits.clone(), n_waiting: state.waiting.len() }
    }

    /// The value, poisoned or not.
    pub fn into_inner(self) -> T {
        let value = lock(&self.state).value.take();
        *value.expect("nobody is inside a lock that is owned")
    }

    /// Takes the value out when it is this caller's turn.
    fn take(&self, deadline: &Deadline) -> Result<Box<T>, LockError> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        if state.is_poisoned {
            return Err(LockError::Poisoned);
        }
        match state.holder {
            Holder::Nobody => state.waits.observe(Duration::ZERO),
            Holder::Thread(holder) if holder == me => return Err(LockError::Reentrant),
            Holder::Thread(_) | Holder::Next => {
                let start = Instant::now();
                let (guard, turn) = wait_for_grant(state, |state| &mut state.waiting, deadline);
                state = guard;
                state.waits.observe(start.elapsed());
                match turn {
                    Some(Turn::Yours) => {}
                    Some(Turn::Poisoned) => return Err(LockError::Poisoned),
                    None => return Err(LockError::Timeout),
                }
            }
        }
        state.holder = Holder::Thread(me);
        Ok(state.value.take().expect("whoever holds the lock finds the value"))
    }

    /// Takes the value out if it is poisoned; until it is put back the lock counts as taken, no longer as poisoned.
    fn take_poisoned(&self) -> Result<Option<Box<T>>, LockError> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        match state.holder {
            Holder::Thread(holder) if holder == me => Err(LockError::Reentrant),
            _ if !state.is_poisoned => Ok(None),
            _ => {
                state.is_poisoned = false;
                state.holder = Holder::Thread(me);
                Ok(state.value.take())
            }
        }
    }

    fn put_back(&self, value: Box<T>) {
        let mut state = lock(&self.state);
        state.value = Some(value);
        state.holder = match state.waiting.grant(Turn::Yours) {
            Ok(()) => Holder::Next,
            Err(_) => Holder::Nobody,
        };
    }

    fn poison(&self, value: Box<T>) {
        let mut state = lock(&self.state);
        state.value = Some(value);
        state.holder = Holder::Nobody;
        state.is_poisoned = true;
        while state.waiting.grant(Turn::Poisoned).is_ok() {}
    }

    /// Wakes all waiters for no reason.
    #[cfg(test)]
    pub(crate) fn disturb(&self) {
        lock(&self.state).waiting.disturb();
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_poisoned, waiting) = (self.is_poisoned(), self.waiting());
        f.debug_struct("Locked")
            .field("is_poisoned", &is_poisoned)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

impl<T: Default> Default for Locked<T> {
    fn default() -> Locked<T> {
        Locked::new(T::default())
    }
}

/// Makes a closure callable from many threads, one at a time, as a locking decorator does.
///
/// What the closure owns can be reached in no other way, so two wrapped closures never share it by accident. To use one
/// value in several closures put the value into a [`Locked`]. Errors as [`Locked::with`] does.
///
/// ```
/// let mut n_calls = 0;
/// let count = ferroyolo_concurrency::locked(move |name: &str| {
///     n_calls += 1;
///     format!("{name} {n_calls}")
/// });
/// assert_eq!(count("call"), Ok("call 1".to_owned()));
/// assert_eq!(count("call"), Ok("call 2".to_owned()));
/// ```
pub fn locked<A, R>(f: impl FnMut(A) -> R + Send) -> impl Fn(A) -> Result<R, LockError> + Send + Sync {
    let f = Locked::new(f);
    move |argument| f.with(|f| f(argument))
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn poison<T>(lock: &Locked<T>) {
        let panic = catch_unwind(AssertUnwindSafe(|| lock.with(|_| resume_unwind(Box::new("on purpose")))));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"on purpose"));
    }

    /// Runs `then` while another thread is inside the lock.
    fn while_held<T: Send, R>(lock: &Locked<T>, then: impl FnOnce() -> R) -> R {
        thread::scope(|scope| {
            let (is_inside, inside) = channel();
            let (let_go, until) = channel::<()>();
            scope.spawn(move || {
                lock.with(|_| {
                    is_inside.send(()).expect("the test waits");
                    // Ends when the test lets go, also by a panic.
                    let _ = until.recv();
                })
            });
            inside.recv().expect("the holder comes in");
            let result = then();
            drop(let_go);
            result
        })
    }

    #[test]
    fn threads_take_turns() {
        let lock = Locked::new(0_u64);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| assert_eq!(lock.with(|n| *n += 1), Ok(()))));
            }
        });
        assert_eq!(lock.into_inner(), 8000);
    }

    #[test]
    fn waiters_are_served_in_the_order_of_arrival() {
        let lock = Locked::new(Vec::new());
        thread::scope(|scope| {
            let enter = |name| {
                let lock = &lock;
                scope.spawn(move || lock.with(|order| order.push(name)));
            };
            let arrived = lock.with(|_| {
                for n_waiting in 0..6 {
                    enter(n_waiting);
                    while lock.waiting() == n_waiting {
                        thread::yield_now();
                    }
                    lock.disturb();
                }
            });
            assert_eq!(arrived, Ok(()));
        });
        assert_eq!(lock.into_inner(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_panic_poisons_until_the_value_is_recovered() {
        let lock = Locked::new(1);
        poison(&lock);
        assert!(lock.is_poisoned());
        assert_eq!(lock.with(|n| *n), Err(LockError::Poisoned));
        assert_eq!(lock.try_with(|n| *n), Err(LockError::Poisoned));
        assert_eq!(lock.recover(|n| *n = 2), Ok(true));
        assert_eq!(lock.recover(|_| panic!("nothing to do")), Ok(false));
        assert_eq!(lock.with(|n| *n), Ok(2));
        assert!(!lock.is_poisoned());
    }

    #[test]
    fn a_panic_of_the_repair_poisons_again() {
        let lock = Locked::new(1);
        poison(&lock);
        let repair = catch_unwind(AssertUnwindSafe(|| lock.recover(|_| resume_unwind(Box::new(())))));
        assert!(repair.is_err() && lock.is_poisoned());
        assert_eq!(lock.recover_with(3), Ok(()));
        assert_eq!(lock.recover_with(4), Err(4), "there is nothing to recover");
        assert_eq!(lock.with(|n| *n), Ok(3));
    }

    #[test]
    fn a_replaced_value_is_dropped_outside_of_the_lock() {
        struct Asks(Arc<Locked<Option<Asks>>>, Arc<AtomicUsize>);
        impl Drop for Asks {
            fn drop(&mut self) {
                assert_eq!(self.0.try_with(|_| ()), Ok(()), "the lock is taken");
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        let n_dropped = Arc::new(AtomicUsize::new(0));
        let lock = Arc::new(Locked::new(None));
        assert_eq!(lock.with(|asks| *asks = Some(Asks(Arc::clone(&lock), Arc::clone(&n_dropped)))), Ok(()));
        poison(&lock);
        assert!(lock.recover_with(None).is_ok());
        assert_eq!(n_dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_held_lock_times_out() {
        let lock = Locked::new(0);
        while_held(&lock, || {
            assert_eq!(lock.try_with(|n| *n), Err(LockError::Timeout));
            assert_eq!(lock.with_timeout(Duration::from_millis(1), |n| *n), Err(LockError::Timeout));
            assert_eq!(lock.waiting(), 0, "who left waits no longer");
        });
        assert_eq!(lock.with_timeout(Duration::MAX, |n| *n), Ok(0));
        assert_eq!(lock.with_timeout(Duration::ZERO, |n| *n), Ok(0), "a free lock needs no time");
    }

    #[test]
    fn waits_are_counted() {
        let lock = Locked::new(0);
        assert_eq!(lock.with(|_| ()), Ok(()));
        while_held(&lock, || {
            assert_eq!(lock.with_timeout(Duration::from_millis(2), |_| ()), Err(LockError::Timeout));
        });
        let metrics = lock.metrics("net");
        // Two got in at once; one left after two milliseconds.
        assert_eq!((metrics.lock_wait.count(), metrics.n_waiting), (3, 0));
        assert!(metrics.lock_wait.sum() >= Duration::from_millis(2));
        let text = metrics.to_string();
        assert!(
            text.contains("ferroyolo_lock_wait_seconds_bucket{lock=\"net\",le=\"0.0001\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("ferroyolo_lock_waiting{lock=\"net\"} 0\n"), "{text}");
    }

    #[test]
    fn a_call_from_inside_a_call_is_an_error() {
        let lock = Locked::new(0);
        let inner = lock.with(|_| {
            assert_eq!(lock.recover(|_| ()), Err(LockError::Reentrant));
            assert_eq!(lock.recover_with(1), Err(1));
            [lock.with(|_| ()), lock.try_with(|_| ()), lock.with_timeout(Duration::MAX, |_| ())]
        });
        assert_eq!(inner, Ok([Err(LockError::Reentrant); 3]));
        assert_eq!(lock.with(|n| *n), Ok(0));
    }

    #[test]
    fn results_may_not_be_send_and_arguments_may_borrow() {
        let text = "four".to_owned();
        let lengths = locked(|text: &str| std::rc::Rc::new(text.len()));
        assert_eq!(*lengths(&text).expect("a free lock"), 4);
    }

    #[test]
    fn errors_and_locks_say_what_they_are() {
        let lock = Locked::<u8>::default();
        poison(&lock);
        assert_eq!(format!("{lock:?}"), "Locked { is_poisoned: true, waiting: 0, .. }");
        assert_eq!(LockError::Timeout.to_string(), "the lock was not free in time");
    }
}
