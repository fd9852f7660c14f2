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

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
