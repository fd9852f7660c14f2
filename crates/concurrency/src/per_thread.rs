//! One instance for each thread that asks: [`PerThread`].
//!
//! **Choose it** when a fixed set of threads of yours, such as a thread pool's, makes the calls, each all the time.
//! Nobody ever waits. With many threads that call now and then take [`Pool`](crate::Pool), which needs as many instances
//! as calls at a time rather than as threads.
//!
//! **It costs** an instance for each thread, made at its first call, and two uncontended mutex operations a call. What
//! the [`Factory`] shares, such as weights, is there once.
//!
//! **It promises**
//! - an instance is used by the thread it was made for, and by no other;
//! - no lock is held while a caller's code runs: neither the factory, nor the closure, nor a destructor;
//! - an instance whose user panicked is dropped, and the thread gets a new one at its next call;
//! - when a thread ends, its instances are dropped; no later thread inherits them, for identities are never reused;
//! - a call from inside a call on the same `PerThread` is [`PerThreadError::Reentrant`].
//!
//! ```
//! use std::convert::Infallible;
//! use ferroyolo_concurrency::PerThread;
//!
//! let buffers = PerThread::new(|| Ok::<_, Infallible>(Vec::new()));
//! std::thread::scope(|scope| {
//!     for idx in 0..4 {
//!         let buffers = &buffers;
//!         scope.spawn(move || {
//!             let len = buffers.with(|own| {
//!                 own.push(idx);
//!                 own.len()
//!             });
//!             assert_eq!(len, Ok(1), "a thread sees what it put there, nothing else");
//!         });
//!     }
//! });
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Weak};

use crate::Factory;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Mutex, lock};

/// Why a call of [`PerThread`] did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PerThreadError<E> {
    /// The calling thread is inside a call already.
    Reentrant,
    /// The thread's instance could not be made. Its next call tries again.
    Make(E),
}

impl<E: fmt::Display> fmt::Display for PerThreadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PerThreadError::Reentrant => f.write_str("this thread uses its instance already"),
            PerThreadError::Make(error) => write!(f, "cannot make the thread's instance: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for PerThreadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PerThreadError::Reentrant => None,
            PerThreadError::Make(error) => Some(error),
        }
    }
}

/// An instance for each thread, made at its first call. See the [module](self).
pub struct PerThread<F: Factory> {
    factory: F,
    slots: Arc<Slots<F::Instance>>,
}

struct Slots<I> {
    by_thread: Mutex<HashMap<ThreadId, Slot<I>>>,
}

enum Slot<I> {
    InUse,
    Ready(Box<I>),
}

impl<F: Factory> PerThread<F>
where
    F::Instance: 'static,
{
    /// Makes nothing yet.
    pub fn new(factory: F) -> PerThread<F> {
        PerThread { factory, slots: Arc::new(Slots { by_thread: Mutex::new(HashMap::new()) }) }
    }

    /// Runs `f` on this thread's instance, and makes that first if there is none.
    ///
    /// Errors with [`PerThreadError::Make`] and [`PerThreadError::Reentrant`]. A panic of `f` drops the instance and
    /// goes on.
    pub fn with<R>(&self, f: impl FnOnce(&mut F::Instance) -> R) -> Result<R, PerThreadError<F::Error>> {
        let me = thread::current().id();
        let ready = match lock(&self.slots.by_thread).insert(me, Slot::InUse) {
            Some(Slot::InUse) => return Err(PerThreadError::Reentrant),
            Some(Slot::Ready(instance)) => Some(instance),
            None => None,
        };
        // From here on the slot is freed also by an error and by a panic, after the instance is dropped.
        let mut claim = Claim { slots: &self.slots, thread: me, is_kept: false };
        let (mut instance, is_watched) = match ready {
            Some(instance) => (instance, true),
            None => {
                let instance = Box::new(self.factory.make().map_err(PerThreadError::Make)?);
                (instance, watch_exit(&self.slots))
            }
        };
        let result = f(&mut instance);
        if is_watched {
            claim.is_kept = true;
            lock(&self.slots.by_thread).insert(me, Slot::Ready(instance));
        }
        Ok(result)
    }

    /// How many threads have an instance, or are making one.
    pub fn len(&self) -> usize {
        lock(&self.slots.by_thread).len()
    }

    /// Whether no thread has an instance.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What makes the instances.
    pub fn factory(&self) -> &F {
        &self.factory
    }
}

impl<F: Factory> Drop for PerThread<F> {
    fn drop(&mut self) {
        // Here, and not in a thread that happens to end now and holds the list for a moment.
        let instances = mem::take(&mut *lock(&self.slots.by_thread));
        drop(instances);
    }
}

impl<F: Factory> fmt::Debug for PerThread<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_instances = lock(&self.slots.by_thread).len();
        f.debug_struct("PerThread").field("n_instances", &n_instances).finish_non_exhaustive()
    }
}

/// Frees a thread's slot unless an instance was put there.
struct Claim<'a, I> {
    slots: &'a Slots<I>,
    thread: ThreadId,
    is_kept: bool,
}

impl<I> Drop for Claim<'_, I> {
    fn drop(&mut self) {
        if !self.is_kept {
            let in_use = lock(&self.slots.by_thread).remove(&self.thread);
            drop(in_use);
        }
    }
}

/// What is told that a thread ends.
trait Evict {
    fn evict(&self, thread: ThreadId);
}

impl<I: Send> Evict for Slots<I> {
    fn evict(&self, thread: ThreadId) {
        let slot = lock(&self.by_thread).remove(&thread);
        // A panic here would end the process: the thread's locals are being destroyed.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(slot)));
    }
}

/// Lives as long as its thread; whoever has an instance for the thread is on the list.
#[derive(Default)]
struct ExitList(RefCell<Vec<Weak<dyn Evict>>>);

impl Drop for ExitList {
    fn drop(&mut self) {
        let me = thread::current().id();
        for slots in mem::take(&mut *self.0.borrow_mut()).iter().filter_map(Weak::upgrade) {
            slots.evict(me);
            // This may be the last one: its owner was dropped meanwhile, and has emptied it.
            drop(slots);
        }
    }
}

std::thread_local! {
    static EXIT_LIST: ExitList = ExitList::default();
}

/// Sees to it that `slots` are told when this thread ends. `false` if it is ending already.
fn watch_exit<I: Send + 'static>(slots: &Arc<Slots<I>>) -> bool {
    let weak: Weak<Slots<I>> = Arc::downgrade(slots);
    let add = |list: &ExitList| {
        let mut list = list.0.borrow_mut();
        list.retain(|slots| slots.strong_count() > 0);
        // A thread whose instance was dropped after a panic is on the list already.
        if !list.iter().any(|slots| ptr::addr_eq(slots.as_ptr(), weak.as_ptr())) {
            list.push(weak);
        }
    };
    EXIT_LIST.try_with(add).is_ok()
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use std::convert::Infallible;
    use std::panic::resume_unwind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts those of its kind that are alive.
    struct Counted(Arc<AtomicUsize>);

    impl Counted {
        fn new(n_alive: &Arc<AtomicUsize>) -> Counted {
            n_alive.fetch_add(1, Ordering::SeqCst);
            Counted(Arc::clone(n_alive))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_thread_stands_once_on_its_list_however_often_it_panics() {
        let numbers = PerThread::new(|| Ok::<_, Infallible>(0));
        let others = EXIT_LIST.with(|list| list.0.borrow().len());
        for _ in 0..100 {
            let call = || numbers.with(|_| resume_unwind(Box::new("on purpose")));
            let ended: Result<Result<(), _>, _> = catch_unwind(AssertUnwindSafe(call));
            assert!(ended.is_err());
        }
        assert_eq!(EXIT_LIST.with(|list| list.0.borrow().len()), others + 1);
    }

    #[test]
    fn instances_end_with_their_owner_while_threads_live_on() {
        let n_alive = Arc::new(AtomicUsize::new(0));
        let owned = PerThread::new(|| Ok::<_, Infallible>(Counted::new(&n_alive)));
        owned.with(|_| ()).expect("it is made");
        // A thread that ends holds the list of instances for a moment.
        let held = Arc::clone(&owned.slots);
        drop(owned);
        assert_eq!(n_alive.load(Ordering::SeqCst), 0);
        drop(held);
    }

    #[test]
    fn each_thread_has_its_own_and_keeps_it() {
        let n_made = AtomicUsize::new(0);
        let numbers = PerThread::new(|| Ok::<_, Infallible>(n_made.fetch_add(1, Ordering::SeqCst)));
        assert!(numbers.is_empty());
        let get = || numbers.with(|number| *number).expect("it is made");
        let own = get();
        assert_eq!(get(), own);
        thread::scope(|scope| {
            let others: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let number = get();
                        assert_eq!(get(), number);
                        number
                    })
                })
                .collect();
            let mut all: Vec<usize> =
                others.into_iter().map(|other| other.join().expect("a number")).collect();
            all.push(own);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
        });
    }

    #[test]
    fn an_instance_is_dropped_when_its_thread_ends() {
        let n_alive = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&n_alive);
        let instances = Arc::new(PerThread::new(move || Ok::<_, Infallible>(Counted::new(&own))));
        for _ in 0..3 {
            let shared = Arc::clone(&instances);
            let n_seen = Arc::clone(&n_alive);
            let seen = thread::spawn(move || {
                shared.with(|_| ()).expect("an instance");
                (n_seen.load(Ordering::SeqCst), shared.len())
            });
            assert_eq!(seen.join().expect("no panic"), (1, 1));
            assert_eq!((n_alive.load(Ordering::SeqCst), instances.len()), (0, 0));
        }
    }

    #[test]
    fn instances_go_with_their_owner_also_if_their_thread_lives() {
        let n_alive = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let instances = PerThread::new(|| Ok::<_, Infallible>(Counted::new(&n_alive)));
            instances.with(|_| ()).expect("an instance");
            assert_eq!(n_alive.load(Ordering::SeqCst), 1);
            drop(instances);
            assert_eq!(n_alive.load(Ordering::SeqCst), 0);
        }
        let n_listed = EXIT_LIST.with(|list| list.0.borrow().len());
        assert!(n_listed <= 1, "owners that are gone stay listed: {n_listed}");
    }

    #[test]
    fn a_panic_drops_the_instance() {
        let n_made = AtomicUsize::new(0);
        let numbers = PerThread::new(|| Ok::<_, Infallible>(n_made.fetch_add(1, Ordering::SeqCst)));
        let panic =
            catch_unwind(AssertUnwindSafe(|| numbers.with(|_| resume_unwind(Box::new("on purpose")))));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"on purpose"));
        assert_eq!(numbers.len(), 0);
        assert_eq!(numbers.with(|number| *number), Ok(1), "another instance");
    }

    #[test]
    fn a_failure_to_make_is_tried_again() {
        let n_calls = AtomicUsize::new(0);
        let instances = PerThread::new(|| match n_calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err("no memory"),
            1 => resume_unwind(Box::new(())),
            n_calls => Ok(n_calls),
        });
        assert_eq!(instances.with(|n| *n), Err(PerThreadError::Make("no memory")));
        assert!(catch_unwind(AssertUnwindSafe(|| instances.with(|n| *n))).is_err());
        assert_eq!(instances.with(|n| *n), Ok(2));
        let error = PerThreadError::Make("no memory");
        assert_eq!(error.to_string(), "cannot make the thread's instance: no memory");
    }

    #[test]
    fn a_call_from_inside_a_call_is_an_error() {
        let instances = PerThread::new(|| Ok::<_, Infallible>(0));
        let inner = instances.with(|_| instances.with(|_| ()));
        assert_eq!(inner, Ok(Err(PerThreadError::Reentrant)));
        assert_eq!(instances.with(|_| ()), Ok(()));
    }

    #[test]
    fn a_thread_that_is_ending_gets_an_instance_for_one_call() {
        type Make = Box<dyn Fn() -> Result<Counted, Infallible> + Send + Sync>;
        struct CallsLate(Arc<PerThread<Make>>);
        impl Drop for CallsLate {
            fn drop(&mut self) {
                assert!(self.0.with(|_| ()).is_ok());
            }
        }
        std::thread_local! {
            static LATE: RefCell<Option<CallsLate>> = const { RefCell::new(None) };
        }
        let n_alive = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&n_alive);
        let make: Make = Box::new(move || Ok(Counted::new(&own)));
        let instances = Arc::new(PerThread::new(make));
        // The order in which a thread's locals are destroyed follows from that of their first use; in one of the two
        // the late call comes when the list of exits is gone.
        for is_listed_first in [false, true] {
            let shared = Arc::clone(&instances);
            let thread = thread::spawn(move || {
                if is_listed_first {
                    shared.with(|_| ()).expect("an instance");
                }
                LATE.set(Some(CallsLate(Arc::clone(&shared))));
                shared.with(|_| ()).expect("an instance");
            });
            thread.join().expect("no panic");
            assert_eq!((n_alive.load(Ordering::SeqCst), instances.len()), (0, 0));
        }
    }
}
