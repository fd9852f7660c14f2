//! Models of [`Locked`], [`Pool`] and [`OnceInit`], each named after the bug that it would catch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Timer;
use crate::sync::{Arc, Mutex, lock, thread};
use crate::{Factory, LockError, Locked, OnceError, OnceInit, Pool, PoolError};

/// Counts who is inside, and gives other threads a chance to come in as well.
#[derive(Default)]
struct Inside {
    n: AtomicUsize,
    gate: Mutex<()>,
}

impl Inside {
    fn visit(&self) {
        assert_eq!(self.n.fetch_add(1, Ordering::SeqCst), 0, "two inside at the same time");
        drop(lock(&self.gate));
        assert_eq!(self.n.fetch_sub(1, Ordering::SeqCst), 1, "two inside at the same time");
    }
}

/// The payload of the panics that models mean to have.
struct Planned;

/// Ends the closure it is called in like a panic, without a message on standard error.
fn fail() -> ! {
    resume_unwind(Box::new(Planned))
}

/// What `call` returned; `None` if it ended by [`fail`]. Other panics are assertions and go on.
fn unless_failed<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Some(result),
        Err(panic) if panic.is::<Planned>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Whether `call` ended by [`fail`].
fn panics<R>(call: impl FnOnce() -> R) -> bool {
    unless_failed(call).is_none()
}

fn spawn<S: Send + Sync + 'static>(
    shared: &Arc<S>,
    run: impl FnOnce(&S) + Send + 'static,
) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("the model's thread"));
}

/// Waits until `is_so`, without a wait of the kind that is being tested.
fn spin_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

/// Instances are numbers, and each has its own.
#[derive(Default)]
struct Numbered {
    n_made: AtomicUsize,
    n_failures_left: AtomicUsize,
}

impl Numbered {
    fn failing(n_failures: usize) -> Numbered {
        Numbered { n_failures_left: AtomicUsize::new(n_failures), ..Numbered::default() }
    }
}

impl Factory for Numbered {
    type Instance = usize;
    type Error = ();

    fn make(&self) -> Result<usize, ()> {
        let n_left = self.n_failures_left.load(Ordering::SeqCst);
        if n_left > 0 {
            self.n_failures_left.store(n_left - 1, Ordering::SeqCst);
            return Err(());
        }
        Ok(self.n_made.fetch_add(1, Ordering::SeqCst))
    }
}

fn pool_of_one(factory: Numbered) -> Pool<Numbered> {
    Pool::new(factory, std::num::NonZeroUsize::MIN)
}

/// L1: three threads in `Locked::with`.
fn two_inside_the_lock() {
    struct Shared(Locked<usize>, Inside);
    let shared = Arc::new(Shared(Locked::new(0), Inside::default()));
    let call = |shared: &Shared| {
        let visit = |n_calls: &mut usize| {
            shared.1.visit();
            *n_calls += 1;
        };
        assert_eq!(shared.0.with(visit), Ok(()));
    };
    let threads = [spawn(&shared, call), spawn(&shared, call)];
    call(&shared);
    join(threads);
    assert_eq!(shared.0.with(|n_calls| *n_calls), Ok(3));
}

/// L2: two wait in a known order, are woken for no reason, and a third comes when the lock is handed on.
fn overtaking_in_the_queue() {
    let lock = Arc::new(Locked::new(Vec::new()));
    let enter =
        |name: char| move |lock: &Locked<Vec<char>>| assert_eq!(lock.with(|order| order.push(name)), Ok(()));
    let threads = lock.with(|_| {
        let first = spawn(&lock, enter('a'));
        spin_until(|| lock.waiting() == 1);
        let second = spawn(&lock, enter('b'));
        spin_until(|| lock.waiting() == 2);
        lock.disturb();
        [first, second]
    });
    lock.disturb();
    enter('c')(&lock);
    join(threads.expect("nobody panics"));
    assert_eq!(lock.with(|order| order.clone()), Ok(vec!['a', 'b', 'c']));
}

/// L3: a closure panics while others wait; one of them recovers.
fn waiters_of_a_panicked_holder_left_asleep() {
    let shared = Arc::new(Locked::new(false));
    let call = |lock: &Locked<bool>| match lock
        .with(|is_broken| assert!(!*is_broken, "a broken value was handed out"))
    {
        Ok(()) => {}
        Err(LockError::Poisoned) => {
            lock.recover(|is_broken| *is_broken = false).expect("no re-entrance");
            assert_eq!(lock.with(|is_broken| *is_broken), Ok(false), "not open after recovery");
        }
        Err(other) => panic!("{other}"),
    };
    let threads = [spawn(&shared, call), spawn(&shared, call)];
    assert!(panics(|| shared.with(|is_broken| {
        *is_broken = true;
        fail()
    })));
    join(threads);
    // Without a waiter that saw it the lock is poisoned still.
    shared.recover(|is_broken| *is_broken = false).expect("no re-entrance");
    assert_eq!(shared.with(|is_broken| *is_broken), Ok(false));
    assert_eq!(shared.waiting(), 0);
}

/// L3: a closure panics while others wait; nobody recovers.
fn one_waiter_of_two_told_of_a_panic() {
    let shared = Arc::new(Locked::new(()));
    let call = |lock: &Locked<()>| {
        let result = lock.with(|()| ());
        assert!(matches!(result, Ok(()) | Err(LockError::Poisoned)), "{result:?}");
    };
    let threads = [spawn(&shared, call), spawn(&shared, call)];
    assert!(panics(|| shared.with(|()| fail())));
    join(threads);
    assert_eq!(shared.with(|()| ()), Err(LockError::Poisoned));
}

/// L4: a waiter's time passes while the lock is handed to it.
fn lock_handed_to_a_waiter_that_left() {
    struct Shared(Locked<()>, Inside);
    let shared = Arc::new(Shared(Locked::new(()), Inside::default()));
    let timer = Timer::new();
    let deadline = timer.deadline();
    let holder = spawn(&shared, |shared| assert_eq!(shared.0.with(|()| shared.1.visit()), Ok(())));
    let impatient = spawn(&shared, move |shared| {
        let result = shared.0.with_until(&deadline, |()| shared.1.visit());
        assert!(matches!(result, Ok(()) | Err(LockError::Timeout)), "{result:?}");
    });
    timer.fire();
    shared.0.disturb();
    assert_eq!(shared.0.with(|()| shared.1.visit()), Ok(()));
    join([holder, impatient]);
    assert_eq!(shared.0.try_with(|()| ()), Ok(()), "the lock stayed taken");
}

/// L5: three need the value; the first constructor fails, by an error or by a panic.
fn two_constructors_at_once(fails: impl Fn() -> Result<usize, ()> + Clone + Send + Sync + 'static) {
    #[derive(Default)]
    struct Shared {
        value: OnceInit<usize>,
        inside: Inside,
        n_runs: AtomicUsize,
        n_failed: AtomicUsize,
    }
    let shared = Arc::new(Shared::default());
    let need = move |shared: &Shared| {
        let make = || {
            shared.inside.visit();
            if shared.n_runs.fetch_add(1, Ordering::SeqCst) == 0 { fails() } else { Ok(7) }
        };
        match catch_unwind(AssertUnwindSafe(|| shared.value.get_or_try_init(make))) {
            Ok(Ok(value)) => assert_eq!(*value, 7),
            Ok(Err(OnceError::Reentrant)) => panic!("nobody is inside already"),
            Ok(Err(OnceError::Make(()))) | Err(_) => {
                shared.n_failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let threads = [spawn(&shared, need.clone()), spawn(&shared, need.clone())];
    need(&shared);
    join(threads);
    assert_eq!(shared.n_runs.load(Ordering::SeqCst), 2, "one fails, one succeeds, the third finds the value");
    assert_eq!(shared.n_failed.load(Ordering::SeqCst), 1);
    assert_eq!(shared.value.get(), Some(&7));
}

/// L5: three need the value, and whoever waits is woken for no reason.
fn waiter_for_a_value_left_asleep() {
    let value = Arc::new(OnceInit::new());
    let need = |value: &OnceInit<usize>| {
        assert_eq!(value.get_or_try_init(|| Ok::<_, ()>(7)), Ok(&7));
    };
    let threads = [spawn(&value, need), spawn(&value, need)];
    value.disturb();
    need(&value);
    join(threads);
}

/// L6: two borrowers of one instance; one panics.
fn panicked_instance_lent_again() {
    let pool = Arc::new(pool_of_one(Numbered::default()));
    let broken = Arc::new(AtomicUsize::new(usize::MAX));
    let own = Arc::clone(&broken);
    let other = spawn(&pool, move |pool| {
        let number = pool.with(|number| *number).expect("an instance");
        assert_ne!(number, own.load(Ordering::SeqCst), "a broken instance was lent");
    });
    assert!(panics(|| pool.with(|number| {
        broken.store(*number, Ordering::SeqCst);
        fail()
    })));
    join([other]);
    assert_eq!(pool.n_free(), 1, "a permit was lost or made");
    assert!(pool.n_made() <= 1);
    assert_ne!(pool.with(|number| *number), Ok(broken.load(Ordering::SeqCst)));
    assert_eq!(pool.n_made(), 1);
}

/// L6: three borrowers of one instance; the first that makes it fails.
fn permit_lost_when_an_instance_cannot_be_made() {
    let pool = Arc::new(pool_of_one(Numbered::failing(1)));
    let n_failed = Arc::new(AtomicUsize::new(0));
    let call = |n_failed: Arc<AtomicUsize>| {
        move |pool: &Pool<Numbered>| match pool.with(|number| *number) {
            Ok(number) => assert_eq!(number, 0),
            Err(PoolError::Make(())) => {
                n_failed.fetch_add(1, Ordering::SeqCst);
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    let threads = [spawn(&pool, call(Arc::clone(&n_failed))), spawn(&pool, call(Arc::clone(&n_failed)))];
    call(Arc::clone(&n_failed))(&pool);
    join(threads);
    assert_eq!((n_failed.load(Ordering::SeqCst), pool.n_made(), pool.n_free()), (1, 1, 1));
}

/// L6: a borrower's time passes while an instance is handed to it.
fn instance_handed_to_a_borrower_that_left() {
    struct Shared(Pool<Numbered>, Inside);
    let shared = Arc::new(Shared(pool_of_one(Numbered::default()), Inside::default()));
    let timer = Timer::new();
    let deadline = timer.deadline();
    let holder = spawn(&shared, |shared| assert_eq!(shared.0.with(|_| shared.1.visit()), Ok(())));
    let impatient = spawn(&shared, move |shared| {
        let result = shared.0.with_until(&deadline, |_| shared.1.visit());
        assert!(matches!(result, Ok(()) | Err(PoolError::Timeout)), "{result:?}");
    });
    timer.fire();
    shared.0.disturb();
    assert_eq!(shared.0.with(|_| shared.1.visit()), Ok(()));
    join([holder, impatient]);
    assert_eq!((shared.0.n_made(), shared.0.n_free()), (1, 1));
}

/// L14: calls from inside a call, while another thread waits.
fn caller_waits_for_itself() {
    struct Shared {
        lock: Locked<()>,
        pool: Pool<Numbered>,
        value: OnceInit<()>,
    }
    let shared = Arc::new(Shared {
        lock: Locked::new(()),
        pool: pool_of_one(Numbered::default()),
        value: OnceInit::new(),
    });
    let other = spawn(&shared, |shared| {
        assert_eq!(shared.lock.with(|()| ()), Ok(()));
        assert_eq!(shared.pool.with(|_| ()), Ok(()));
        assert_eq!(shared.value.get_or_try_init(|| Ok::<_, ()>(())), Ok(&()));
    });
    assert_eq!(shared.lock.with(|()| shared.lock.with(|()| ())), Ok(Err(LockError::Reentrant)));
    assert_eq!(shared.pool.with(|_| shared.pool.with(|_| ())), Ok(Err(PoolError::Reentrant)));
    let value = shared.value.get_or_try_init(|| {
        let inner = shared.value.get_or_try_init(|| Ok::<_, ()>(()));
        assert_eq!(inner, Err(OnceError::Reentrant));
        Ok::<_, ()>(())
    });
    assert_eq!(value, Ok(&()));
    join([other]);
}

#[cfg(ferroyolo_loom)]
mod loom {
    use super::super::check;
    use super::*;

    #[test]
    fn loom_l01_two_inside_the_lock() {
        check("L1 two inside the lock", 3, None, two_inside_the_lock);
    }

    #[test]
    fn loom_l02_overtaking_in_the_queue() {
        check("L2 overtaking in the queue", 3, 4, overtaking_in_the_queue);
    }

    #[test]
    fn loom_l03_waiters_of_a_panicked_holder_left_asleep() {
        check("L3 waiters of a panicked holder left asleep", 3, 4, waiters_of_a_panicked_holder_left_asleep);
    }

    #[test]
    fn loom_l03_one_waiter_of_two_told_of_a_panic() {
        check("L3 one waiter of two told of a panic", 3, None, one_waiter_of_two_told_of_a_panic);
    }

    #[test]
    fn loom_l04_lock_handed_to_a_waiter_that_left() {
        check("L4 lock handed to a waiter that left", 3, 5, lock_handed_to_a_waiter_that_left);
    }

    #[test]
    fn loom_l05_two_constructors_at_once() {
        check("L5 two constructors at once", 3, 4, || two_constructors_at_once(|| Err(())));
    }

    #[test]
    fn loom_l05_turn_lost_when_a_constructor_panics() {
        check("L5 turn lost when a constructor panics", 3, 4, || two_constructors_at_once(|| fail()));
    }

    #[test]
    fn loom_l05_waiter_for_a_value_left_asleep() {
        check("L5 waiter for a value left asleep", 3, 4, waiter_for_a_value_left_asleep);
    }

    #[test]
    fn loom_l06_panicked_instance_lent_again() {
        check("L6 panicked instance lent again", 2, None, panicked_instance_lent_again);
    }

    #[test]
    fn loom_l06_permit_lost_when_an_instance_cannot_be_made() {
        check("L6 permit lost when making fails", 3, 5, permit_lost_when_an_instance_cannot_be_made);
    }

    #[test]
    fn loom_l06_instance_handed_to_a_borrower_that_left() {
        check("L6 instance handed to a borrower that left", 3, 5, instance_handed_to_a_borrower_that_left);
    }

    #[test]
    fn loom_l14_caller_waits_for_itself() {
        check("L14 caller waits for itself", 2, 5, caller_waits_for_itself);
    }
}

#[cfg(ferroyolo_shuttle)]
mod shuttle {
    use super::super::explore;
    use super::*;

    /// Threads of a model, its main thread not counted.
    const N_THREADS: usize = 8;

    /// Calls that each thread makes.
    const N_CALLS: usize = 4;

    fn run_threads<S: Send + Sync + 'static>(
        shared: &Arc<S>,
        run: impl Fn(&S, usize) + Copy + Send + 'static,
    ) {
        let threads: Vec<_> =
            (0..N_THREADS).map(|thread| spawn(shared, move |shared| run(shared, thread))).collect();
        join(threads);
    }

    /// Every fourth call panics, and whoever finds the lock poisoned recovers it.
    fn lock_with_panics() {
        #[derive(Default)]
        struct Shared {
            value: Locked<bool>,
            inside: Inside,
            n_done: AtomicUsize,
        }
        let shared = Arc::new(Shared::default());
        run_threads(&shared, |shared, thread| {
            for call in 0..N_CALLS {
                let fails = (thread + call) % 4 == 0;
                let outcome = unless_failed(|| {
                    shared.value.with(|is_broken| {
                        assert!(!*is_broken, "a broken value was handed out");
                        shared.inside.visit();
                        if fails {
                            *is_broken = true;
                            fail();
                        }
                    })
                });
                match outcome {
                    None => assert!(fails, "nobody failed"),
                    Some(Ok(())) => assert!(!fails, "the failure was lost"),
                    Some(Err(error)) => {
                        assert_eq!(error, LockError::Poisoned);
                        shared.value.recover(|is_broken| *is_broken = false).expect("no re-entrance");
                    }
                }
                shared.n_done.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(shared.n_done.load(Ordering::SeqCst), N_THREADS * N_CALLS);
        assert_eq!(shared.value.waiting(), 0);
    }

    /// Half of the threads wait with a time limit that passes while they wait.
    fn lock_with_timeouts() {
        struct Shared(Locked<usize>, Inside, Timer);
        let shared = Arc::new(Shared(Locked::new(0), Inside::default(), Timer::new()));
        let own = Arc::clone(&shared);
        let clock = thread::spawn(move || {
            own.2.fire();
            own.0.disturb();
        });
        run_threads(&shared, |Shared(lock, inside, timer), thread| {
            let visit = |n_calls: &mut usize| {
                inside.visit();
                *n_calls += 1;
            };
            for _ in 0..N_CALLS {
                if thread % 2 == 0 {
                    assert_eq!(lock.with(visit), Ok(()));
                } else {
                    let result = lock.with_until(&timer.deadline(), visit);
                    assert!(matches!(result, Ok(()) | Err(LockError::Timeout)), "{result:?}");
                }
            }
        });
        join([clock]);
        let n_calls = shared.0.try_with(|n_calls| *n_calls).expect("the lock is free");
        assert!((N_THREADS / 2 * N_CALLS..=N_THREADS * N_CALLS).contains(&n_calls), "{n_calls} calls");
    }

    /// Two instances for all threads; every fourth borrower panics, and the first three instances cannot be made.
    fn pool_with_panics_and_failures() {
        struct Shared(Pool<Numbered>, AtomicUsize);
        let n = std::num::NonZeroUsize::new(2).expect("two");
        let shared = Arc::new(Shared(Pool::new(Numbered::failing(3), n), AtomicUsize::new(0)));
        run_threads(&shared, |Shared(pool, n_lent), thread| {
            for call in 0..N_CALLS {
                let fails = (thread + call) % 4 == 0;
                let outcome = unless_failed(|| {
                    pool.with(|_| {
                        assert!(n_lent.fetch_add(1, Ordering::SeqCst) < 2, "more lent than there are");
                        thread::yield_now();
                        n_lent.fetch_sub(1, Ordering::SeqCst);
                        if fails {
                            fail();
                        }
                    })
                });
                match outcome {
                    None => assert!(fails, "nobody failed"),
                    Some(Ok(())) => assert!(!fails, "the failure was lost"),
                    Some(Err(error)) => assert!(matches!(error, PoolError::Make(())), "{error:?}"),
                }
            }
        });
        let Shared(pool, _) = &*shared;
        assert_eq!((pool.n_free(), pool.waiting()), (2, 0));
        assert!(pool.n_made() <= 2);
    }

    /// All threads need the value; the first three constructors fail.
    fn value_that_fails_thrice() {
        #[derive(Default)]
        struct Shared {
            value: OnceInit<usize>,
            inside: Inside,
            n_runs: AtomicUsize,
            n_failed: AtomicUsize,
        }
        let shared = Arc::new(Shared::default());
        run_threads(&shared, |shared, _| {
            let make = || {
                shared.inside.visit();
                let n_runs = shared.n_runs.fetch_add(1, Ordering::SeqCst);
                if n_runs < 3 { Err(()) } else { Ok(n_runs) }
            };
            match shared.value.get_or_try_init(make) {
                Ok(value) => assert_eq!(*value, 3),
                Err(OnceError::Make(())) => {
                    shared.n_failed.fetch_add(1, Ordering::SeqCst);
                }
                Err(OnceError::Reentrant) => panic!("nobody is inside already"),
            }
        });
        assert_eq!((shared.n_runs.load(Ordering::SeqCst), shared.n_failed.load(Ordering::SeqCst)), (4, 3));
    }

    /// What loom runs exhaustively, since shuttle's condition variables wake whom they please.
    #[test]
    fn shuttle_small_models() {
        let models: [(&str, usize, fn()); 11] = [
            ("L1", 3, two_inside_the_lock),
            ("L2", 3, overtaking_in_the_queue),
            ("L3", 3, waiters_of_a_panicked_holder_left_asleep),
            ("L3 no recovery", 3, one_waiter_of_two_told_of_a_panic),
            ("L4", 3, lock_handed_to_a_waiter_that_left),
            ("L5", 3, || two_constructors_at_once(|| Err(()))),
            ("L5 no failure", 3, waiter_for_a_value_left_asleep),
            ("L6 panic", 2, panicked_instance_lent_again),
            ("L6 failure", 3, permit_lost_when_an_instance_cannot_be_made),
            ("L6 timeout", 3, instance_handed_to_a_borrower_that_left),
            ("L14", 2, caller_waits_for_itself),
        ];
        for (name, n_threads, model) in models {
            explore(name, n_threads, model);
        }
    }

    #[test]
    fn shuttle_lock_with_panics() {
        explore("lock with panics", N_THREADS + 1, lock_with_panics);
    }

    #[test]
    fn shuttle_lock_with_timeouts() {
        explore("lock with timeouts", N_THREADS + 2, lock_with_timeouts);
    }

    #[test]
    fn shuttle_pool_with_panics_and_failures() {
        explore("pool with panics and failures", N_THREADS + 1, pool_with_panics_and_failures);
    }

    #[test]
    fn shuttle_value_that_fails_thrice() {
        explore("value that fails thrice", N_THREADS + 1, value_that_fails_thrice);
    }
}
