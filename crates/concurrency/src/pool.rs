//! A fixed number of instances that callers borrow: [`Pool`].
//!
//! **Choose it** when more threads call than instances fit into memory, or than the machine can serve at a time: any
//! number of threads share `n` instances. It is the right one for a server that handles each request in a thread.
//!
//! **It costs** `n` instances at most, each made when it is first needed, and two uncontended mutex operations a call.
//! What the [`Factory`] shares, such as weights, is there once.
//!
//! **It promises**
//! - an instance has one borrower at a time, and there are never more than `n`;
//! - who comes first is served first; nobody who comes later takes an instance from somebody who waits;
//! - an instance whose borrower panicked past its guard, or inside [`Pool::with`], is dropped, never lent again; another
//!   is made in its place when needed. A borrower that catches the panic itself, with the guard still in hand, calls
//!   [`PoolGuard::discard`];
//! - a failure or a panic of the factory is its caller's alone: the right to make an instance passes on to the next;
//! - no lock is held while a caller's code runs: neither the factory, nor the closure, nor a destructor;
//! - a thread that holds all instances and asks for one more gets [`PoolError::Reentrant`] rather than a deadlock.
//!
//! Threads that each hold an instance and wait for another can still wait for each other; borrow one at a time, or use
//! [`Pool::get_timeout`].
//!
//! ```
//! use std::convert::Infallible;
//! use std::num::NonZeroUsize;
//! use ferroyolo_concurrency::Pool;
//!
//! let pool = Pool::new(|| Ok::<_, Infallible>(Vec::new()), NonZeroUsize::MIN);
//! std::thread::scope(|scope| {
//!     for idx in 0..4 {
//!         let pool = &pool;
//!         scope.spawn(move || pool.with(|shared| shared.push(idx)));
//!     }
//! });
//! assert_eq!(pool.get()?.len(), 4);
//! # Ok::<(), ferroyolo_concurrency::PoolError<Infallible>>(())
//! ```

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::panicking;
use std::time::{Duration, Instant};

use crate::Factory;
use crate::metrics::{Histogram, LockMetrics};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Deadline, Mutex, lock};
use crate::wait_list::{WaitList, wait_for_grant};

/// Why nothing could be borrowed from a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError<E> {
    /// No instance was free in time.
    Timeout,
    /// The calling thread holds all instances.
    Reentrant,
    /// An instance could not be made. The next borrower tries again.
    Make(E),
}

impl<E: fmt::Display> fmt::Display for PoolError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::Timeout => f.write_str("no instance was free in time"),
            PoolError::Reentrant => f.write_str("this thread holds all instances of the pool"),
            PoolError::Make(error) => write!(f, "cannot make an instance: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for PoolError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PoolError::Make(error) => Some(error),
            PoolError::Timeout | PoolError::Reentrant => None,
        }
    }
}

/// At most `n` instances, lent first come first served. See the [module](self).
pub struct Pool<F: Factory> {
    factory: F,
    n: usize,
    state: Mutex<State<F::Instance>>,
}

struct State<I> {
    /// Instances that nobody uses, the one used last at the end, since its memory is most likely still in the cache.
    idle: Vec<Box<I>>,
    /// Permits that nobody holds and nobody was granted. A permit is the right to one instance, made or not.
    n_free: usize,
    /// The holder of each permit; a thread with several stands here several times.
    holders: Vec<ThreadId>,
    /// Instances that exist, lent or idle.
    n_made: usize,
    waiting: WaitList<()>,
    waits: Histogram,
}

impl<F: Factory> Pool<F> {
    /// A pool of at most `n` instances. Makes none yet.
    pub fn new(factory: F, n: NonZeroUsize) -> Pool<F> {
        let n = n.get();
        let (waiting, waits) = (WaitList::new(), Histogram::default());
        let state = State { idle: Vec::new(), n_free: n, holders: Vec::new(), n_made: 0, waiting, waits };
        Pool { factory, n, state: Mutex::new(state) }
    }

    /// Waits for its turn and borrows an instance, which goes back when the guard is dropped.
    ///
    /// Errors with [`PoolError::Make`] and [`PoolError::Reentrant`].
    pub fn get(&self) -> Result<PoolGuard<'_, F>, PoolError<F::Error>> {
        self.get_until(&Deadline::Never)
    }

    /// As [`get`](Pool::get), but does not wait: [`PoolError::Timeout`] if all instances are lent.
    pub fn try_get(&self) -> Result<PoolGuard<'_, F>, PoolError<F::Error>> {
        self.get_until(&Deadline::At(Instant::now()))
    }

    /// As [`get`](Pool::get), but waits no longer than `timeout`, then errors with [`PoolError::Timeout`].
    ///
    /// The time limits the wait, not the making of an instance.
    pub fn get_timeout(&self, timeout: Duration) -> Result<PoolGuard<'_, F>, PoolError<F::Error>> {
        self.get_until(&Deadline::after(timeout))
    }

    /// Borrows an instance for the time of `f`.
    ///
    /// Errors as [`get`](Pool::get) does. A panic of `f` drops the instance and goes on.
    pub fn with<R>(&self, f: impl FnOnce(&mut F::Instance) -> R) -> Result<R, PoolError<F::Error>> {
        self.with_until(&Deadline::Never, f)
    }

    /// How many instances there may be.
    pub fn n_max(&self) -> usize {
        self.n
    }

    /// How many instances have been made and not dropped, lent or idle.
    pub fn n_made(&self) -> usize {
        lock(&self.state).n_made
    }

    /// How many more could be borrowed now without waiting.
    pub fn n_free(&self) -> usize {
        lock(&self.state).n_free
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

    /// What makes the instances.
    pub fn factory(&self) -> &F {
        &self.factory
    }

    pub(crate) fn with_until<R>(
        &self,
        deadline: &Deadline,
        f: impl FnOnce(&mut F::Instance) -> R,
    ) -> Result<R, PoolError<F::Error>> {
        let mut guard = self.get_until(deadline)?;
        match catch_unwind(AssertUnwindSafe(|| f(&mut guard))) {
            Ok(result) => Ok(result),
            Err(panic) => {
                guard.discard();
                resume_unwind(panic);
            }
        }
    }

    pub(crate) fn get_until(&self, deadline: &Deadline) -> Result<PoolGuard<'_, F>, PoolError<F::Error>> {
        let mut guard = self.check_out(deadline)?;
        if guard.instance.is_none() {
            // Whatever goes wrong here, the guard's end hands the permit on.
            match catch_unwind(AssertUnwindSafe(|| self.factory.make())) {
                Ok(Ok(instance)) => {
                    guard.instance = Some(Box::new(instance));
                    lock(&self.state).n_made += 1;
                }
                Ok(Err(error)) => return Err(PoolError::Make(error)),
                Err(panic) => {
                    drop(guard);
                    resume_unwind(panic);
                }
            }
        }
        Ok(guard)
    }

    /// Waits for a permit. The guard is empty if the instance has yet to be made.
    fn check_out(&self, deadline: &Deadline) -> Result<PoolGuard<'_, F>, PoolError<F::Error>> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        if state.holders.iter().filter(|holder| **holder == me).count() == self.n {
            return Err(PoolError::Reentrant);
        }
        if state.n_free > 0 {
            state.n_free -= 1;
            state.waits.observe(Duration::ZERO);
        } else {
            let start = Instant::now();
            let (guard, permit) = wait_for_grant(state, |state| &mut state.waiting, deadline);
            state = guard;
            state.waits.observe(start.elapsed());
            if permit.is_none() {
                return Err(PoolError::Timeout);
            }
        }
        state.holders.push(me);
        let instance = state.idle.pop();
        drop(state);
        Ok(PoolGuard { pool: self, instance, holder: me, was_panicking: panicking(), not_send: PhantomData })
    }

    fn check_in(&self, holder: ThreadId, instance: Option<Box<F::Instance>>) {
        let mut state = lock(&self.state);
        state.idle.extend(instance);
        if let Some(idx) = state.holders.iter().position(|other| *other == holder) {
            state.holders.swap_remove(idx);
        }
        if state.waiting.grant(()).is_err() {
            state.n_free += 1;
        }
    }

    /// Wakes all waiters for no reason.
    #[cfg(test)]
    pub(crate) fn disturb(&self) {
        lock(&self.state).waiting.disturb();
    }
}

impl<F: Factory> fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Pool")
            .field("n_max", &self.n)
            .field("n_made", &state.n_made)
            .field("n_free", &state.n_free)
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

/// An instance on loan from a [`Pool`]; dropping it gives it back.
///
/// It stays in the thread that borrowed it, which is how the pool knows who holds what. A guard that is forgotten
/// (`std::mem::forget`) takes its instance out of the pool for good.
pub struct PoolGuard<'a, F: Factory> {
    pool: &'a Pool<F>,
    /// Absent only before it is made and while the guard is being dropped.
    instance: Option<Box<F::Instance>>,
    holder: ThreadId,
    /// Borrowed while the thread was unwinding already, so that this says nothing about the instance.
    was_panicking: bool,
    not_send: PhantomData<std::sync::MutexGuard<'a, ()>>,
}

impl<F: Factory> PoolGuard<'_, F> {
    /// Drops the instance instead of giving it back; the pool makes another when one is needed.
    pub fn discard(mut self) {
        self.drop_instance();
    }

    fn drop_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            // Counted first, since the destructor is not ours and may panic; the permit follows when the guard goes, so
            // that there are never more than the pool's number of instances in memory.
            lock(&self.pool.state).n_made -= 1;
            drop(instance);
        }
    }
}

impl<F: Factory> Drop for PoolGuard<'_, F> {
    fn drop(&mut self) {
        if panicking() && !self.was_panicking {
            self.drop_instance();
        }
        self.pool.check_in(self.holder, self.instance.take());
    }
}

impl<F: Factory> Deref for PoolGuard<'_, F> {
    type Target = F::Instance;

    fn deref(&self) -> &F::Instance {
        self.instance.as_deref().expect("a guard that is lent has an instance")
    }
}

impl<F: Factory> DerefMut for PoolGuard<'_, F> {
    fn deref_mut(&mut self) -> &mut F::Instance {
        self.instance.as_deref_mut().expect("a guard that is lent has an instance")
    }
}

impl<F: Factory> fmt::Debug for PoolGuard<'_, F>
where
    F::Instance: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PoolGuard").field(&self.instance).finish()
    }
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, OnceLock, Weak};

    use super::*;

    fn n(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    /// A pool of numbers, counted up from 0 as they are made.
    fn numbers(n_max: usize) -> Pool<impl Factory<Instance = usize, Error = Infallible>> {
        let n_made = AtomicUsize::new(0);
        Pool::new(move || Ok(n_made.fetch_add(1, Ordering::SeqCst)), n(n_max))
    }

    #[test]
    fn instances_are_made_when_needed_and_the_last_used_comes_first() {
        let pool = numbers(3);
        assert_eq!((pool.n_made(), pool.n_free(), pool.n_max()), (0, 3, 3));
        let (a, b) = (pool.get().expect("a"), pool.get().expect("b"));
        assert_eq!((*a, *b, pool.n_made(), pool.n_free()), (0, 1, 2, 1));
        drop(b);
        drop(a);
        assert_eq!((pool.n_made(), pool.n_free()), (2, 3));
        assert_eq!(pool.with(|number| *number), Ok(0));
    }

    #[test]
    fn many_threads_share_few_instances() {
        let pool = numbers(3);
        let n_lent = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let guard = pool.get().expect("an instance");
                        assert!(n_lent.fetch_add(1, Ordering::SeqCst) < 3);
                        n_lent.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
        });
        assert!(pool.n_made() <= 3);
        assert_eq!((pool.n_free(), pool.waiting()), (3, 0));
    }

    #[test]
    fn borrowers_are_served_in_the_order_of_arrival() {
        let pool = Pool::new(|| Ok::<_, Infallible>(Vec::new()), n(1));
        thread::scope(|scope| {
            let held = pool.get().expect("an instance");
            for n_waiting in 0..6 {
                let pool = &pool;
                scope.spawn(move || pool.with(|order| order.push(n_waiting)));
                while pool.waiting() == n_waiting {
                    thread::yield_now();
                }
                pool.disturb();
            }
            drop(held);
        });
        assert_eq!(*pool.get().expect("an instance"), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_pool_that_is_lent_out_times_out() {
        let pool = numbers(1);
        let held = pool.get().expect("an instance");
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(pool.try_get().err(), Some(PoolError::Timeout));
                assert_eq!(pool.get_timeout(Duration::from_millis(1)).err(), Some(PoolError::Timeout));
                assert_eq!(pool.waiting(), 0, "who left waits no longer");
            });
        });
        drop(held);
        let metrics = pool.metrics("nets");
        assert_eq!((metrics.lock_wait.count(), metrics.n_waiting), (3, 0));
        assert!(metrics.lock_wait.sum() >= Duration::from_millis(1));
        assert!(pool.try_get().is_ok() && pool.get_timeout(Duration::MAX).is_ok());
    }

    #[test]
    fn a_thread_that_holds_all_is_refused_one_more() {
        let pool = numbers(2);
        let (a, b) = (pool.get().expect("a"), pool.get().expect("b"));
        assert_eq!(pool.get().err(), Some(PoolError::Reentrant));
        assert_eq!(pool.try_get().err(), Some(PoolError::Reentrant));
        drop(a);
        assert!(pool.get().is_ok());
        drop(b);
        assert_eq!(pool.n_free(), 2);
    }

    #[test]
    fn an_instance_is_dropped_when_its_borrower_unwinds() {
        let pool = numbers(1);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = pool.get().expect("an instance");
            resume_unwind(Box::new(()))
        }));
        assert!(unwound.is_err());
        assert_eq!((pool.n_made(), pool.n_free()), (0, 1));
        let panic = catch_unwind(AssertUnwindSafe(|| pool.with(|_| resume_unwind(Box::new("on purpose")))));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"on purpose"));
        assert_eq!(pool.with(|number| *number), Ok(2), "neither of the two that were broken");
    }

    #[test]
    fn an_instance_borrowed_and_returned_while_unwinding_is_kept() {
        struct Borrows<'a, F: Factory>(&'a Pool<F>);
        impl<F: Factory> Drop for Borrows<'_, F> {
            fn drop(&mut self) {
                assert!(self.0.get().is_ok());
            }
        }
        let pool = numbers(1);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _late = Borrows(&pool);
            resume_unwind(Box::new(()))
        }));
        assert!(unwound.is_err());
        assert_eq!(pool.with(|number| *number), Ok(0));
    }

    #[test]
    fn a_discarded_instance_is_replaced() {
        let pool = numbers(1);
        pool.get().expect("an instance").discard();
        assert_eq!((pool.n_made(), pool.n_free()), (0, 1));
        assert_eq!(pool.with(|number| *number), Ok(1));
    }

    #[test]
    fn a_failure_to_make_is_its_callers_alone() {
        let n_calls = AtomicUsize::new(0);
        let make = || match n_calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err("no memory"),
            1 => resume_unwind(Box::new(())),
            n_calls => Ok(n_calls),
        };
        let pool = Pool::new(make, n(1));
        assert_eq!(pool.get().err(), Some(PoolError::Make("no memory")));
        assert!(catch_unwind(AssertUnwindSafe(|| pool.get().is_ok())).is_err());
        assert_eq!((pool.n_made(), pool.n_free()), (0, 1));
        assert_eq!(pool.with(|number| *number), Ok(2));
        assert_eq!(PoolError::Make("no memory").to_string(), "cannot make an instance: no memory");
    }

    #[test]
    fn destructors_run_outside_of_the_mutex() {
        type Make = Box<dyn Fn() -> Result<Looks, Infallible> + Send + Sync>;
        struct Looks(Arc<OnceLock<Weak<Pool<Make>>>>, Arc<AtomicUsize>);
        impl Drop for Looks {
            fn drop(&mut self) {
                if let Some(pool) = self.0.get().and_then(Weak::upgrade) {
                    // Would wait for ever if the mutex were held.
                    self.1.fetch_add(1 + pool.n_free(), Ordering::SeqCst);
                }
            }
        }
        let (own_pool, n_seen) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
        let (instances_pool, own_n_seen) = (Arc::clone(&own_pool), Arc::clone(&n_seen));
        let make: Make = Box::new(move || Ok(Looks(Arc::clone(&instances_pool), Arc::clone(&own_n_seen))));
        let pool = Arc::new(Pool::new(make, n(1)));
        own_pool.set(Arc::downgrade(&pool)).expect("not set before");
        pool.get().expect("an instance").discard();
        assert_eq!(n_seen.load(Ordering::SeqCst), 1, "the instance goes before its permit is free");
    }
}
