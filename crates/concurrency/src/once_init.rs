//! A value made at its first use, by one of those who need it: [`OnceInit`].
//!
//! **Choose it** for what is expensive, shared and never changes, such as a loaded model, when the first of several
//! threads to need it shall load it. It differs from [`std::sync::OnceLock`] in that making the value may fail.
//!
//! **It costs** one atomic load once the value is there. Until then callers sleep while one of them works.
//!
//! **It promises**
//! - never two constructors at the same time, and none after one has succeeded;
//! - an error or a panic of a constructor is its caller's alone: of those who wait, the one who came first tries next,
//!   with its own constructor; so nobody waits for ever and a failure does not stay;
//! - a constructor that asks for its own value gets [`OnceError::Reentrant`] rather than a deadlock;
//! - no lock is held while a constructor runs.
//!
//! ```
//! use ferroyolo_concurrency::{OnceError, OnceInit};
//!
//! let model = OnceInit::new();
//! assert_eq!(model.get_or_try_init(|| Err("no such file")), Err(OnceError::Make("no such file")));
//! assert_eq!(model.get_or_try_init(|| Ok::<_, &str>("weights")), Ok(&"weights"));
//! assert_eq!(model.get_or_try_init(|| Err("not called")), Ok(&"weights"));
//! ```

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Deadline, Mutex, SetOnce, lock};
use crate::wait_list::{WaitList, wait_for_grant};

/// Why [`OnceInit`] has no value for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The calling thread is making the value already.
    Reentrant,
    /// The caller's constructor failed.
    Make(E),
}

impl<E: fmt::Display> fmt::Display for OnceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnceError::Reentrant => f.write_str("the value is needed to make itself"),
            OnceError::Make(error) => write!(f, "cannot make the value: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for OnceError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OnceError::Reentrant => None,
            OnceError::Make(error) => Some(error),
        }
    }
}

/// A value that the first caller to need it makes. See the [module](self).
pub struct OnceInit<T> {
    value: SetOnce<T>,
    state: Mutex<State>,
}

struct State {
    maker: Maker,
    waiting: WaitList<Turn>,
}

enum Maker {
    Nobody,
    /// The waiter whose turn it is and that has not woken up yet.
    Next,
    Thread(ThreadId),
}

/// What a waiter is told.
enum Turn {
    Make,
    Made,
}

impl<T> OnceInit<T> {
    /// Without a value.
    pub fn new() -> OnceInit<T> {
        let state = State { maker: Maker::Nobody, waiting: WaitList::new() };
        OnceInit { value: SetOnce::new(), state: Mutex::new(state) }
    }

    /// The value, if it has been made.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value; if there is none, runs `make` or waits for whoever makes it.
    ///
    /// Errors with [`OnceError::Make`] if this caller's constructor ran and failed, and with [`OnceError::Reentrant`]. A
    /// panic of `make` goes on in this caller.
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, OnceError<E>> {
        loop {
            if let Some(value) = self.value.get() {
                return Ok(value);
            }
            if self.take_turn().map_err(|Reentrant| OnceError::Reentrant)? {
                break;
            }
        }
        match catch_unwind(AssertUnwindSafe(make)) {
            Ok(Ok(value)) => {
                let value = self.value.get_or_set(value);
                self.end_turn();
                Ok(value)
            }
            Ok(Err(error)) => {
                self.end_turn();
                Err(OnceError::Make(error))
            }
            Err(panic) => {
                self.end_turn();
                resume_unwind(panic);
            }
        }
    }

    /// The value, if it has been made.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Waits for the right to make the value; `false` once it has been made.
    fn take_turn(&self) -> Result<bool, Reentrant> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        if self.value.get().is_some() {
            return Ok(false);
        }
        match state.maker {
            Maker::Nobody => {}
            Maker::Thread(maker) if maker == me => return Err(Reentrant),
            Maker::Thread(_) | Maker::Next => {
                let (guard, turn) = wait_for_grant(state, |state| &mut state.waiting, &Deadline::Never);
                state = guard;
                if !matches!(turn, Some(Turn::Make)) {
                    return Ok(false);
                }
            }
        }
        state.maker = Maker::Thread(me);
        Ok(true)
    }

    /// Passes the turn on, or tells all who wait that there is a value.
    fn end_turn(&self) {
        let mut state = lock(&self.state);
        state.maker = Maker::Nobody;
        if self.value.get().is_some() {
            while state.waiting.grant(Turn::Made).is_ok() {}
        } else if state.waiting.grant(Turn::Make).is_ok() {
            state.maker = Maker::Next;
        }
    }

    /// Wakes all waiters for no reason.
    #[cfg(test)]
    pub(crate) fn disturb(&self) {
        lock(&self.state).waiting.disturb();
    }
}

/// The thread makes the value already.
struct Reentrant;

impl<T> Default for OnceInit<T> {
    fn default() -> OnceInit<T> {
        OnceInit::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceInit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceInit").field(&self.value.get()).finish()
    }
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_of_many_threads_makes_the_value() {
        let value = OnceInit::new();
        let (n_made, n_inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || {
                        assert_eq!(n_inside.fetch_add(1, Ordering::SeqCst), 0);
                        let n_before = n_made.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        assert_eq!(n_inside.fetch_sub(1, Ordering::SeqCst), 1);
                        if n_before < 3 { Err(n_before) } else { Ok(n_before) }
                    };
                    assert!(!matches!(value.get_or_try_init(make), Err(OnceError::Reentrant)));
                });
            }
        });
        assert_eq!((n_made.into_inner(), value.into_inner()), (4, Some(3)));
    }

    #[test]
    fn failures_and_panics_do_not_stay() {
        let value = OnceInit::new();
        assert_eq!(value.get_or_try_init(|| Err("no file")), Err(OnceError::Make("no file")));
        let panic = catch_unwind(AssertUnwindSafe(|| {
            value.get_or_try_init(|| -> Result<u8, ()> { resume_unwind(Box::new(7)) })
        }));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&7));
        assert_eq!((value.get(), format!("{value:?}")), (None, "OnceInit(None)".to_owned()));
        assert_eq!(value.get_or_try_init(|| Ok::<_, ()>(1)), Ok(&1));
        assert_eq!(value.get_or_try_init(|| Err("not called")), Ok(&1));
        value.disturb();
    }

    #[test]
    fn a_constructor_that_needs_its_value_is_an_error() {
        let value = OnceInit::new();
        let outer = value.get_or_try_init(|| match value.get_or_try_init(|| Ok::<_, ()>(1)) {
            Err(OnceError::Reentrant) => Err("needs itself"),
            _ => Ok(2),
        });
        assert_eq!(outer, Err(OnceError::Make("needs itself")));
        assert_eq!(OnceError::<&str>::Reentrant.to_string(), "the value is needed to make itself");
    }
}
