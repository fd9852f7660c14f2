//! The bug museum: what has gone wrong where models were shared between threads, each a test named after it.
//!
//! The network is a stand-in that keeps what its last picture left behind, as caches and working memory do. What holds of
//! the engine's own sessions is tested with them.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ferroyolo_concurrency::{
    JobError, LockError, Locked, OnceInit, PerThread, Pool, PoolError, SubmitOptions, TaskQueue, locked,
};

/// Weights the pixels by their place, with a table that is kept for the size of the last picture.
#[derive(Default)]
struct Net {
    grid: Vec<u64>,
    n_sizes: usize,
}

impl Net {
    fn run(&mut self, picture: &[u64]) -> u64 {
        if self.grid.len() != picture.len() {
            self.n_sizes += 1;
            self.grid.clear();
            for place in 0..picture.len() as u64 {
                self.grid.push(place * place + 1);
                // Whoever else could come in here would find half a table.
                if place % 32 == 0 {
                    thread::yield_now();
                }
            }
        }
        self.grid.iter().zip(picture).map(|(weight, pixel)| weight * pixel).sum()
    }
}

/// Pictures that all differ, in four sizes that take turns.
fn pictures() -> Vec<Vec<u64>> {
    (0..40).map(|idx| (0..30 + 20 * (idx % 4)).map(|place| (idx + 1) * 1000 + place).collect()).collect()
}

fn serially(pictures: &[Vec<u64>]) -> Vec<u64> {
    let mut net = Net::default();
    pictures.iter().map(|picture| net.run(picture)).collect()
}

/// Runs all pictures from each of six threads, each beginning at another, and compares with one after the other.
fn check(predict: impl Fn(&[u64]) -> u64 + Sync) {
    let pictures = pictures();
    let expected = serially(&pictures);
    thread::scope(|scope| {
        for first in 0..6 {
            let (predict, pictures, expected) = (&predict, &pictures, &expected);
            scope.spawn(move || {
                for idx in (0..pictures.len()).map(|step| (first * 7 + step) % pictures.len()) {
                    assert_eq!(predict(&pictures[idx]), expected[idx], "picture {idx}");
                }
            });
        }
    });
}

fn new_net() -> Result<Net, Infallible> {
    Ok(Net::default())
}

const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// ultralytics #6174: two threads shared an instance, and each got the other's boxes.
#[test]
fn picture_a_is_answered_with_the_result_of_b() {
    let pictures = pictures();
    let expected = serially(&pictures);
    assert!(
        expected.iter().enumerate().all(|(idx, result)| !expected[..idx].contains(result)),
        "results differ"
    );
    let queue = TaskQueue::builder()
        .workers(3)
        .capacity(4)
        .start(|_| {
            let mut net = Net::default();
            Ok::<_, Infallible>(move |picture: Vec<u64>| Ok::<_, Infallible>(net.run(&picture)))
        })
        .expect("a queue");
    let tickets: Vec<_> =
        pictures.iter().map(|picture| queue.submit(picture.clone()).expect("open")).collect();
    // The last comes first: a ticket knows whose it is.
    for (idx, ticket) in tickets.into_iter().enumerate().rev() {
        assert_eq!(ticket.wait().expect("a result"), expected[idx], "picture {idx}");
    }
}

/// ultralytics #5302, yolov5 #11338: a table kept for one size of picture was used, half built, for another.
#[test]
fn mixed_sizes_clobber_a_cached_grid() {
    let lock = Locked::new(Net::default());
    check(|picture| lock.with(|net| net.run(picture)).expect("not poisoned"));
    let pool = Pool::new(new_net, TWO);
    check(|picture| pool.with(|net| net.run(picture)).expect("an instance"));
    let own = PerThread::new(new_net);
    check(|picture| own.with(|net| net.run(picture)).expect("an instance"));
    assert!(lock.with(|net| net.n_sizes).expect("not poisoned") > 1, "the sizes took turns");
}

/// ultralytics #6067 and #3919: two threads made the first call, and both set the model up.
#[test]
fn two_threads_race_the_first_call() {
    const N_THREADS: usize = 8;
    let (n_inside, n_made) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let model = OnceInit::new();
    let own = PerThread::new(|| {
        let weights = model.get_or_try_init(|| {
            assert_eq!(n_inside.fetch_add(1, Ordering::SeqCst), 0, "two set it up at the same time");
            n_made.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            n_inside.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(7)
        });
        weights.map(|weights| (*weights, Net::default()))
    });
    let barrier = Barrier::new(N_THREADS);
    thread::scope(|scope| {
        for _ in 0..N_THREADS {
            scope.spawn(|| {
                barrier.wait();
                let result = own.with(|(weights, net)| *weights * net.run(&[3, 5]));
                assert_eq!(result.expect("an instance"), 7 * (3 + 10));
            });
        }
    });
    assert_eq!(n_made.load(Ordering::SeqCst), 1);
}

/// ultralytics #2273: models that were made apart got in each other's way, because something beneath was shared.
#[test]
fn separate_models_interfere() {
    let (first, second) = (Locked::new(Net::default()), Locked::new(Net::default()));
    let pictures = pictures();
    let expected = serially(&pictures);
    // One is in the middle of a call, and then broken, while the other works as if alone.
    let inside = first.with(|_| {
        thread::scope(|scope| {
            let run = || pictures.iter().map(|picture| second.with(|net| net.run(picture))).collect();
            let results: Result<Vec<u64>, LockError> = scope.spawn(run).join().expect("no panic");
            results
        })
    });
    assert_eq!(inside, Ok(Ok(expected.clone())));
    assert!(catch_unwind(AssertUnwindSafe(|| first.with(|_| resume_unwind(Box::new(()))))).is_err());
    assert_eq!(first.with(|_| ()), Err(LockError::Poisoned));
    assert_eq!(second.with(|net| net.run(&pictures[0])), Ok(expected[0]));
}

/// Reproduced on ultralytics 8.4.190: a lock was held while a stream handed out its results one by one, so that whoever
/// predicted with what came waited for itself.
#[test]
fn a_lock_is_held_across_a_streams_yields() {
    let lock = Locked::new(Net::default());
    let pictures = pictures();
    let expected = serially(&pictures);
    let nested = expected[1];
    // A stream takes the lock for each result, and lets go before it hands the result out.
    let stream = pictures.iter().map(|picture| lock.with(|net| net.run(picture)));
    for (result, expected) in stream.zip(&expected) {
        assert_eq!(result, Ok(*expected));
        assert_eq!(lock.try_with(|net| net.run(&pictures[1])), Ok(nested));
    }
    // Where it is held all the same, the nested call says so instead of waiting for ever.
    let nested = lock.with(|_| lock.with(|net| net.run(&pictures[0])));
    assert_eq!(nested, Ok(Err(LockError::Reentrant)));
}

/// Python's `BrokenProcessPool`: when one worker died, all jobs of the pool were lost, and it took no more.
#[test]
fn one_dead_worker_breaks_the_whole_pool() {
    let queue = TaskQueue::builder()
        .workers(2)
        .capacity(64)
        .start(|_| {
            let mut net = Net::default();
            Ok::<_, Infallible>(move |picture: Vec<u64>| {
                if picture.is_empty() {
                    resume_unwind(Box::new("an empty picture"));
                }
                Ok::<_, Infallible>(net.run(&picture))
            })
        })
        .expect("a queue");
    let pictures = pictures();
    let expected = serially(&pictures);
    let with_poison =
        pictures.iter().zip(0..).map(|(picture, idx)| if idx % 5 == 0 { vec![] } else { picture.clone() });
    let tickets: Vec<_> = with_poison.map(|picture| queue.submit(picture).expect("open")).collect();
    for (idx, ticket) in tickets.into_iter().enumerate() {
        match ticket.wait() {
            Err(JobError::Panicked(_)) => assert_eq!(idx % 5, 0, "picture {idx} was lost"),
            Ok(result) => assert_eq!((result, idx % 5 == 0), (expected[idx], false), "picture {idx}"),
            Err(other) => panic!("picture {idx}: {other}"),
        }
    }
    assert!(queue.metrics().is_balanced());

    let pool = Pool::new(new_net, TWO);
    for _ in 0..5 {
        assert!(catch_unwind(AssertUnwindSafe(|| pool.with(|_| resume_unwind(Box::new(()))))).is_err());
    }
    assert_eq!((pool.n_made(), pool.n_free()), (0, 2));
    assert_eq!(pool.with(|net| net.run(&pictures[0])), Ok(expected[0]));
}

/// A time limit within non-maximum suppression: results that were late came out empty, like a picture with nothing on it.
#[test]
fn a_time_limit_silently_empties_results() {
    let (go_on, until) = channel::<()>();
    let until = std::sync::Mutex::new(Some(until));
    let queue = TaskQueue::builder()
        .workers(1)
        .start(move |_| {
            let until = until.lock().expect("not poisoned").take();
            Ok::<_, Infallible>(move |picture: Vec<u64>| {
                // Ends when the test lets go.
                until.as_ref().map(std::sync::mpsc::Receiver::recv);
                Ok::<_, Infallible>(picture)
            })
        })
        .expect("a queue");
    let late =
        queue.submit_with(vec![1], SubmitOptions::new().deadline(Duration::from_millis(1))).expect("open");
    assert!(matches!(late.wait(), Err(JobError::Timeout)), "late is an error, not an empty result");
    let next = queue.submit(vec![2]).expect("open");
    drop(go_on);
    assert_eq!(next.wait().expect("a result"), [2], "the late result went to nobody");

    let (lock, pool) = (Locked::new(vec![1]), Pool::new(|| Ok::<_, Infallible>(vec![1]), NonZeroUsize::MIN));
    let guard = pool.get().expect("an instance");
    let in_time = lock.with(|_| {
        thread::scope(|scope| {
            let late = || (lock.try_with(|boxes| boxes.clone()), pool.try_get().err());
            scope.spawn(late).join().expect("no panic")
        })
    });
    drop(guard);
    assert_eq!(in_time, Ok((Err(LockError::Timeout), Some(PoolError::Timeout))));
}

/// `ThreadingLocked`'s own trap: each decorated function has a lock of its own, so two of them on one model run together.
#[test]
fn two_decorated_functions_have_two_locks() {
    let net = Locked::new((Net::default(), 0));
    let n_inside = AtomicUsize::new(0);
    let visit = |calls: &mut usize| {
        assert_eq!(n_inside.fetch_add(1, Ordering::SeqCst), 0, "two functions at one model");
        thread::yield_now();
        *calls += 1;
        n_inside.fetch_sub(1, Ordering::SeqCst);
    };
    let detect = |picture: &[u64]| net.with(|(net, calls)| (visit(calls), net.run(picture)).1);
    let track = |picture: &[u64]| net.with(|(net, calls)| (visit(calls), net.run(picture) + 1).1);
    let pictures = pictures();
    thread::scope(|scope| {
        scope.spawn(|| pictures.iter().for_each(|picture| assert!(detect(picture).is_ok())));
        scope.spawn(|| pictures.iter().for_each(|picture| assert!(track(picture).is_ok())));
    });
    assert_eq!(net.with(|(_, calls)| *calls), Ok(2 * pictures.len()));
    // A closure that is wrapped owns its model, so a second one cannot have it as well.
    let mut own = Net::default();
    let run = locked(move |picture: Vec<u64>| own.run(&picture));
    check(|picture| run(picture.to_vec()).expect("not poisoned"));
}
