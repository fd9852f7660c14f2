//! Waiting in the order of arrival for something that a mutex guards.

use std::collections::VecDeque;

use crate::sync::{Arc, Condvar, Deadline, MutexGuard, wait};

/// Those who wait for a grant of type `G`, first come first served. Part of the state that a mutex guards.
///
/// A grant is handed to one waiter by name, so that nobody who arrives later can take it: whoever has something to give
/// calls [`WaitList::grant`], and the waiter finds it even if it wakes up late, for another reason, or with its time
/// over. Each waiter has a condition variable of its own; one grant wakes one thread.
#[derive(Debug)]
pub(crate) struct WaitList<G> {
    next_ticket: u64,
    waiting: VecDeque<Waiter>,
    granted: Vec<(u64, G)>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    wake: Arc<Condvar>,
}

impl<G> WaitList<G> {
    pub(crate) fn new() -> WaitList<G> {
        WaitList { next_ticket: 0, waiting: VecDeque::new(), granted: Vec::new() }
    }

    /// How many wait without a grant.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives to whoever waits longest; hands the grant back if nobody waits.
    pub(crate) fn grant(&mut self, grant: G) -> Result<(), G> {
        let Some(first) = self.waiting.pop_front() else { return Err(grant) };
        self.granted.push((first.ticket, grant));
        first.wake.notify_one();
        Ok(())
    }

    /// Wakes all waiters without giving anything, as the operating system may at any time.
    #[cfg(test)]
    pub(crate) fn disturb(&self) {
        self.waiting.iter().for_each(|waiter| waiter.wake.notify_all());
    }

    fn join(&mut self) -> (u64, Arc<Condvar>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let wake = Arc::new(Condvar::new());
        self.waiting.push_back(Waiter { ticket, wake: Arc::clone(&wake) });
        (ticket, wake)
    }

    fn take(&mut self, ticket: u64) -> Option<G> {
        let idx = self.granted.iter().position(|(to, _)| *to == ticket)?;
        Some(self.granted.swap_remove(idx).1)
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiter| waiter.ticket != ticket);
    }
}

/// Joins the list that `list` finds in the state and waits for a grant; `None` if the deadline passed first.
///
/// A grant made at the moment the deadline passes is taken, not lost.
pub(crate) fn wait_for_grant<'a, S, G>(
    mut state: MutexGuard<'a, S>,
    list: impl Fn(&mut S) -> &mut WaitList<G>,
    deadline: &Deadline,
) -> (MutexGuard<'a, S>, Option<G>) {
    let (ticket, wake) = list(&mut state).join();
    loop {
        if let Some(grant) = list(&mut state).take(ticket) {
            return (state, Some(grant));
        }
        if deadline.has_passed() {
            list(&mut state).leave(ticket);
            return (state, None);
        }
        state = wait(&wake, state, deadline);
    }
}

#[cfg(all(test, not(any(ferroyolo_loom, ferroyolo_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::{Mutex, lock, thread};

    #[test]
    fn grants_go_to_waiters_in_order_and_come_back_without_one() {
        let mut list = WaitList::new();
        let (first, _) = list.join();
        let (second, _) = list.join();
        let (third, _) = list.join();
        list.leave(second);
        assert_eq!(
            (list.len(), list.grant('a'), list.grant('b'), list.grant('c')),
            (2, Ok(()), Ok(()), Err('c'))
        );
        assert_eq!((list.take(third), list.take(second), list.take(first)), (Some('b'), None, Some('a')));
        assert_eq!(list.take(first), None, "a grant is taken once");
    }

    #[test]
    fn a_wait_ends_by_a_grant_or_by_its_deadline_and_by_nothing_else() {
        for is_granted in [true, false] {
            let fired = Arc::new(Mutex::new(false));
            let state = Arc::new(Mutex::new(WaitList::new()));
            let (own, deadline) = (Arc::clone(&state), Deadline::Manual(Arc::clone(&fired)));
            let waiter = thread::spawn(move || wait_for_grant(lock(&own), |list| list, &deadline).1);
            while lock(&state).len() < 1 {
                thread::yield_now();
            }
            lock(&state).disturb();
            if is_granted {
                assert_eq!(lock(&state).grant(7), Ok(()));
            } else {
                *lock(&fired) = true;
                lock(&state).disturb();
            }
            assert_eq!(waiter.join().expect("no panic"), is_granted.then_some(7));
            assert_eq!(lock(&state).len(), 0);
        }
    }

    #[test]
    fn a_grant_is_found_also_when_the_time_is_over() {
        let mut list = WaitList::new();
        let (ticket, _) = list.join();
        assert_eq!(list.grant(7), Ok(()));
        // Who was granted is no longer on the list, so leaving it changes nothing.
        list.leave(ticket);
        assert_eq!(list.take(ticket), Some(7));
    }
}
