//! Values that are made once for each key, by whoever asks first.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Values by key. One that takes long to make is waited for only by those who ask for the same.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    state: Mutex<State<K, V>>,
    /// A value was made, or could not be made.
    changed: Condvar,
    /// Values that are kept; the one that was not used for the longest time goes first.
    max: usize,
}

#[derive(Debug)]
struct State<K, V> {
    /// Most recently used last.
    made: Vec<(K, V)>,
    /// What somebody is making.
    making: Vec<K>,
    /// Calls that wait for somebody.
    #[cfg(test)]
    n_waiting: usize,
}

impl<K: Clone + PartialEq, V: Clone> Memo<K, V> {
    /// Keeps at most `max` values, one at least.
    pub(crate) fn new(max: usize) -> Self {
        let state = State {
            made: Vec::new(),
            making: Vec::new(),
            #[cfg(test)]
            n_waiting: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), max }
    }

    /// The value of `key`; made by `make` if there is none and nobody else is making it.
    ///
    /// If that fails, the others who wait for it try for themselves, one after the other.
    pub(crate) fn get(&self, key: &K, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let mut state = self.state();
        loop {
            if let Some(idx) = state.made.iter().position(|(known, _)| known == key) {
                let entry = state.made.remove(idx);
                let value = entry.1.clone();
                state.made.push(entry);
                return Ok(value);
            }
            if !state.making.contains(key) {
                break;
            }
            #[cfg(test)]
            {
                state.n_waiting += 1;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            #[cfg(test)]
            {
                state.n_waiting -= 1;
            }
        }
        state.making.push(key.clone());
        drop(state);
        let making = Making { memo: self, key };
        let value = make()?;
        let mut state = self.state();
        let oldest = (state.made.len() >= self.max).then(|| state.made.remove(0));
        state.made.push((key.clone(), value.clone()));
        drop(state);
        drop(making);
        // Outside of the lock, since nobody knows what its end takes.
        drop(oldest);
        Ok(value)
    }
}

impl<K, V> Memo<K, V> {
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // Nothing that can panic happens between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says at its end that nobody makes the value any more, also after a failure or a panic.
struct Making<'a, K: PartialEq, V> {
    memo: &'a Memo<K, V>,
    key: &'a K,
}

impl<K: PartialEq, V> Drop for Making<'_, K, V> {
    fn drop(&mut self) {
        self.memo.state().making.retain(|key| key != self.key);
        self.memo.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::error::Error;

    fn wait_for_waiting(memo: &Memo<u32, u32>, n: usize) {
        while memo.state().n_waiting < n {
            thread::yield_now();
        }
    }

    #[test]
    fn what_was_used_last_stays() {
        let memo = Memo::new(2);
        let n_made = AtomicUsize::new(0);
        let get = |key: u32| {
            let value = memo.get(&key, || {
                n_made.fetch_add(1, Ordering::Relaxed);
                Ok(key * 10)
            });
            assert_eq!(value.expect("a value"), key * 10);
            n_made.load(Ordering::Relaxed)
        };
        assert_eq!([1, 2, 1, 3].map(get), [1, 2, 2, 3]);
        // 2 had to go for 3.
        assert_eq!([1, 3, 2].map(get), [3, 3, 4]);
    }

    #[test]
    fn others_do_not_wait_and_those_of_the_same_key_do_not_make_it_again() {
        let memo = Memo::new(8);
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let memo = &memo;
            let first = scope.spawn(move || {
                memo.get(&1, || {
                    started.send(()).expect("somebody listens");
                    may_go.recv().expect("a word");
                    Ok(10)
                })
            });
            has_started.recv().expect("it has begun");
            let same: Vec<_> = (0..3)
                .map(|_| scope.spawn(move || memo.get(&1, || panic!("somebody makes it already"))))
                .collect();
            wait_for_waiting(memo, 3);
            // Here, and while the first is held: one that is new, and one that is known.
            for _ in 0..2 {
                assert_eq!(memo.get(&2, || Ok(20)).expect("another one"), 20);
            }
            assert_eq!(memo.state().n_waiting, 3);
            go.send(()).expect("the first one waits");
            for thread in same.into_iter().chain([first]) {
                assert_eq!(thread.join().expect("no panic").expect("a value"), 10);
            }
        });
    }

    #[test]
    fn after_a_failure_or_a_panic_the_next_one_tries() {
        for panics in [false, true] {
            let memo = Memo::new(8);
            let (started, has_started) = mpsc::channel();
            let (go, may_go) = mpsc::channel::<()>();
            thread::scope(|scope| {
                let memo = &memo;
                let first = scope.spawn(move || {
                    let make = || {
                        started.send(()).expect("somebody listens");
                        may_go.recv().expect("a word");
                        assert!(!panics, "as it should");
                        Err(Error::argument("key", "can't be made"))
                    };
                    catch_unwind(AssertUnwindSafe(|| memo.get(&1, make)))
                });
                has_started.recv().expect("it has begun");
                let next = scope.spawn(move || memo.get(&1, || Ok(10)));
                wait_for_waiting(memo, 1);
                go.send(()).expect("the first one waits");
                match first.join().expect("it was caught") {
                    Ok(result) => assert_eq!(result.expect_err("it fails").at(), "key"),
                    Err(_) => assert!(panics),
                }
                assert_eq!(next.join().expect("no panic").expect("a value"), 10);
            });
            assert!(memo.state().making.is_empty());
        }
    }
}
