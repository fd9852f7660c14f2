//! Defects of the lists of waiters, the lock, the pool, the value made once and the instance per thread.

use super::{Mutant, Suite};

/// A defect that loom finds.
const fn loom(name: &'static str, breaks: &'static str, change: Change, killed_by: &'static str) -> Mutant {
    let Change { file, find, replace } = change;
    Mutant { name, breaks, file, find, replace, suite: Suite::Loom, killed_by }
}

/// A defect outside of what models see, that an ordinary test finds.
const fn unit(name: &'static str, breaks: &'static str, change: Change, killed_by: &'static str) -> Mutant {
    let Change { file, find, replace } = change;
    Mutant { name, breaks, file, find, replace, suite: Suite::Unit, killed_by }
}

struct Change {
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

const WAIT_LIST: &str = "src/wait_list.rs";
const LOCKED: &str = "src/locked.rs";
const POOL: &str = "src/pool.rs";
const ONCE_INIT: &str = "src/once_init.rs";
const PER_THREAD: &str = "src/per_thread.rs";

const L1: &str = "models::locks::loom::loom_l01_two_inside_the_lock";
const L2: &str = "models::locks::loom::loom_l02_overtaking_in_the_queue";
const L3: &str = "models::locks::loom::loom_l03_waiters_of_a_panicked_holder_left_asleep";
const L3_ALL: &str = "models::locks::loom::loom_l03_one_waiter_of_two_told_of_a_panic";
const L4: &str = "models::locks::loom::loom_l04_lock_handed_to_a_waiter_that_left";
const L5: &str = "models::locks::loom::loom_l05_two_constructors_at_once";
const L5_ALL: &str = "models::locks::loom::loom_l05_waiter_for_a_value_left_asleep";
const L5_PANIC: &str = "models::locks::loom::loom_l05_turn_lost_when_a_constructor_panics";
const L6_PANIC: &str = "models::locks::loom::loom_l06_panicked_instance_lent_again";
const L6_FAILURE: &str = "models::locks::loom::loom_l06_permit_lost_when_an_instance_cannot_be_made";
const L6_TIMEOUT: &str = "models::locks::loom::loom_l06_instance_handed_to_a_borrower_that_left";
const L14: &str = "models::locks::loom::loom_l14_caller_waits_for_itself";

pub(super) const MUTANTS: &[Mutant] = &[
    loom(
        "wait-list-lifo",
        "who came last is served first",
        Change { file: WAIT_LIST, find: "self.waiting.pop_front()", replace: "self.waiting.pop_back()" },
        L2,
    ),
    loom(
        "wait-list-if-for-while",
        "a spurious wake-up counts as the end of the wait",
        Change {
            file: WAIT_LIST,
            find: "        state = wait(&wake, state, deadline);\n",
            replace: "        state = wait(&wake, state, deadline);\n        \
                      let grant = list(&mut state).take(ticket);\n        return (state, grant);\n",
        },
        L2,
    ),
    loom(
        "wait-list-missing-notify",
        "a grant wakes nobody",
        Change { file: WAIT_LIST, find: "        first.wake.notify_one();\n", replace: "" },
        L1,
    ),
    loom(
        "wait-list-timed-out-ticket-kept",
        "a waiter whose time is over is granted the lock",
        Change { file: WAIT_LIST, find: "            list(&mut state).leave(ticket);\n", replace: "" },
        L4,
    ),
    loom(
        "wait-list-clock-before-grant",
        "a grant made as the time passes is lost",
        Change {
            file: WAIT_LIST,
            find: "if let Some(grant) = list(&mut state).take(ticket) {",
            replace: "if !deadline.has_passed() && let Some(grant) = list(&mut state).take(ticket) {",
        },
        L4,
    ),
    loom(
        "wait-list-anonymous-grant",
        "whoever wakes up takes a grant, made to it or not",
        Change {
            file: WAIT_LIST,
            find: "position(|(to, _)| *to == ticket)?",
            replace: "position(|_| true)?",
        },
        L2,
    ),
    loom(
        "locked-barging",
        "a lock that was handed on looks free",
        Change { file: LOCKED, find: "Ok(()) => Holder::Next,", replace: "Ok(()) => Holder::Nobody," },
        L1,
    ),
    loom(
        "locked-poison-wakes-one",
        "a panic wakes one of those who wait",
        Change {
            file: LOCKED,
            find: "while state.waiting.grant(Turn::Poisoned).is_ok() {}",
            replace: "let _ = state.waiting.grant(Turn::Poisoned);",
        },
        L3_ALL,
    ),
    loom(
        "locked-poison-flag-outside",
        "the flag is set after the mutex was let go",
        Change {
            file: LOCKED,
            find: "        state.is_poisoned = true;\n        while state.waiting.grant(Turn::Poisoned).is_ok() {}\n",
            replace: "        while state.waiting.grant(Turn::Poisoned).is_ok() {}\n        drop(state);\n        \
                      lock(&self.state).is_poisoned = true;\n",
        },
        L3,
    ),
    loom(
        "locked-no-poison",
        "a half-changed value is handed out",
        Change { file: LOCKED, find: "state.is_poisoned = true;", replace: "state.is_poisoned = false;" },
        L3,
    ),
    loom(
        "locked-recovery-not-exclusive",
        "the lock is open while the value is being repaired",
        Change {
            file: LOCKED,
            find: "                state.holder = Holder::Thread(me);\n                Ok(state.value.take())",
            replace: "                Ok(state.value.take())",
        },
        L3,
    ),
    loom(
        "locked-recovery-stays-poisoned",
        "a repaired value stays locked up",
        Change { file: LOCKED, find: "                state.is_poisoned = false;\n", replace: "" },
        L3,
    ),
    loom(
        "locked-no-reentrancy-check",
        "a caller waits for itself",
        Change {
            file: LOCKED,
            find: "            Holder::Thread(holder) if holder == me => return Err(LockError::Reentrant),\n",
            replace: "",
        },
        L14,
    ),
    loom(
        "pool-panicked-instance-kept",
        "a broken instance goes back to the pool",
        Change {
            file: POOL,
            find: "                guard.discard();\n",
            replace: "                drop(guard);\n",
        },
        L6_PANIC,
    ),
    loom(
        "pool-permit-lost",
        "a failure to make an instance costs a permit",
        Change {
            file: POOL,
            find: "Ok(Err(error)) => return Err(PoolError::Make(error)),",
            replace: "Ok(Err(error)) => {\n                    std::mem::forget(guard);\n                    \
                      return Err(PoolError::Make(error));\n                }",
        },
        L6_FAILURE,
    ),
    loom(
        "pool-permit-made",
        "a permit that was handed on counts as free as well",
        Change {
            file: POOL,
            find: "        if state.waiting.grant(()).is_err() {\n            state.n_free += 1;\n        }\n",
            replace: "        let _ = state.waiting.grant(());\n        state.n_free += 1;\n",
        },
        L6_TIMEOUT,
    ),
    loom(
        "pool-check-outside",
        "the mutex is let go between the look for a permit and the taking of it",
        Change {
            file: POOL,
            find: "            state.n_free -= 1;\n",
            replace: "            drop(state);\n            state = lock(&self.state);\n            \
                      state.n_free = state.n_free.wrapping_sub(1);\n",
        },
        L6_TIMEOUT,
    ),
    loom(
        "pool-no-reentrancy-check",
        "a borrower waits for itself",
        Change { file: POOL, find: "            return Err(PoolError::Reentrant);\n", replace: "" },
        L14,
    ),
    loom(
        "once-failure-wakes-nobody",
        "those who wait for a constructor that failed wait for ever",
        Change {
            file: ONCE_INIT,
            find: " else if state.waiting.grant(Turn::Make).is_ok() {\n            state.maker = Maker::Next;\n        }",
            replace: "",
        },
        L5,
    ),
    loom(
        "once-turn-not-reserved",
        "whoever comes while the turn is passed on makes the value too",
        Change { file: ONCE_INIT, find: "            state.maker = Maker::Next;\n", replace: "" },
        L5,
    ),
    loom(
        "once-no-second-look",
        "a value made between the look and the lock is made again",
        Change {
            file: ONCE_INIT,
            find: "        if self.value.get().is_some() {\n            return Ok(false);\n        }\n",
            replace: "",
        },
        L5,
    ),
    loom(
        "once-value-wakes-one",
        "one of those who wait learns that there is a value",
        Change {
            file: ONCE_INIT,
            find: "while state.waiting.grant(Turn::Made).is_ok() {}",
            replace: "let _ = state.waiting.grant(Turn::Made);",
        },
        L5_ALL,
    ),
    loom(
        "once-panic-keeps-turn",
        "a constructor that panics keeps its turn",
        Change {
            file: ONCE_INIT,
            find: "            Err(panic) => {\n                self.end_turn();\n",
            replace: "            Err(panic) => {\n",
        },
        L5_PANIC,
    ),
    loom(
        "once-told-and-makes-again",
        "who is told that there is a value makes it again",
        Change {
            file: ONCE_INIT,
            find: "if !matches!(turn, Some(Turn::Make)) {",
            replace: "if turn.is_none() {",
        },
        L5,
    ),
    loom(
        "once-no-reentrancy-check",
        "a constructor waits for itself",
        Change {
            file: ONCE_INIT,
            find: "            Maker::Thread(maker) if maker == me => return Err(Reentrant),\n",
            replace: "",
        },
        L14,
    ),
    Mutant {
        name: "pool-idle-instance-forgotten",
        breaks: "an idle instance is lost when another comes back, so that more are made than allowed",
        file: POOL,
        find: "state.idle.extend(instance);",
        replace: "state.idle = instance.into_iter().collect();",
        suite: Suite::Shuttle,
        killed_by: "models::locks::shuttle::shuttle_pool_with_panics_and_failures",
    },
    unit(
        "pool-unwound-instance-kept",
        "an instance whose borrower unwinds goes back to the pool",
        Change { file: POOL, find: "if panicking() && !self.was_panicking {", replace: "if false {" },
        "pool::tests::an_instance_is_dropped_when_its_borrower_unwinds",
    ),
    unit(
        "per-thread-slot-kept",
        "a panic leaves the thread's slot taken",
        Change { file: PER_THREAD, find: "is_kept: false", replace: "is_kept: true" },
        "per_thread::tests::a_panic_drops_the_instance",
    ),
    unit(
        "per-thread-exit-not-watched",
        "a thread's instance outlives it",
        Change {
            file: PER_THREAD,
            find: "EXIT_LIST.try_with(add).is_ok()",
            replace: "{\n        drop(add);\n        true\n    }",
        },
        "per_thread::tests::an_instance_is_dropped_when_its_thread_ends",
    ),
];
