//! Defects of the queue: its accounting, its workers and its tickets.

use super::{Mutant, Suite};

const CORE: &str = "src/queue/core.rs";
const WORKER: &str = "src/queue/worker.rs";

const L7: &str = "models::queue::loom::loom_l07_job_left_in_the_queue_while_workers_sleep";
const L8: &str = "models::queue::loom::loom_l08_job_neither_run_nor_handed_back";
const L8_CLOSE: &str = "models::queue::loom::loom_l08_submitter_left_asleep_by_closing";
const L9: &str = "models::queue::loom::loom_l09_ticket_left_open_by_a_dropped_queue";
const L9_RETRY: &str = "models::queue::loom::loom_l09_job_that_comes_back_finds_no_worker";
const L9_DRAIN: &str = "models::queue::loom::loom_l09_drain_that_sleeps_on_or_leaves_a_ticket_open";
const L9_END: &str = "models::queue::loom::loom_l09_end_that_nobody_hears_of";
const L10: &str = "models::queue::loom::loom_l10_job_answered_twice";
const L10_DEATH: &str = "models::queue::loom::loom_l10_death_of_a_worker_that_nobody_hears_of";
const L11: &str = "models::queue::loom::loom_l11_place_freed_twice_or_never";
const L11_TICKET: &str = "models::queue::loom::loom_l11_outcome_kept_for_nobody";
const L12: &str = "models::queue::loom::loom_l12_producer_left_asleep_at_a_free_place";
const L12_DEADLINE: &str = "models::queue::loom::loom_l12_job_begun_and_timed_out";
const REFERENCE: &str = "queue::reference::a_queue_does_what_its_model_does";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "queue-push-wakes-nobody",
        breaks: "a job comes, and the workers sleep on",
        file: CORE,
        find: "        self.counters.accepted += 1;\n        self.wake_worker();\n",
        replace: "        self.counters.accepted += 1;\n",
        suite: Suite::Loom,
        killed_by: L7,
    },
    Mutant {
        name: "queue-outcome-wakes-nobody",
        breaks: "a job is done, and whoever waits for it sleeps on",
        file: CORE,
        find: "            wake.notify_all();\n        }\n    }\n\n    fn unqueue",
        replace: "            drop(wake);\n        }\n    }\n\n    fn unqueue",
        suite: Suite::Loom,
        killed_by: L7,
    },
    Mutant {
        name: "queue-worker-if-for-while",
        breaks: "a worker that is woken and finds no job leaves for good",
        file: CORE,
        find: "                    return Claimed::Nothing;\n                }\n                continue;\n",
        replace: "                    return Claimed::Nothing;\n                }\n                \
                  if state.queue.is_empty() {\n                    return Claimed::Over;\n                }\n                \
                  continue;\n",
        suite: Suite::Loom,
        killed_by: L7,
    },
    Mutant {
        name: "queue-closed-not-looked-at-again",
        breaks: "who waited for a place gets one in a closed queue",
        file: CORE,
        find: "                None => return Err(Rejected::Full(job)),\n            }\n        }\n        \
               if state.phase != Phase::Open {",
        replace: "                None => return Err(Rejected::Full(job)),\n            }\n        } else \
                  if state.phase != Phase::Open {",
        suite: Suite::Loom,
        killed_by: L8,
    },
    Mutant {
        name: "queue-closing-frees-nobody",
        breaks: "who waits for a place waits on when the queue is closed",
        file: CORE,
        find: "while self.has_place() || self.phase != Phase::Open {",
        replace: "while self.has_place() {",
        suite: Suite::Loom,
        killed_by: L8_CLOSE,
    },
    Mutant {
        name: "queue-closing-frees-one",
        breaks: "only the first who waits for a place hears that the queue is closed",
        file: CORE,
        find: "            self.n_reserved += 1;\n        }\n    }\n\n    fn accept",
        replace: "            self.n_reserved += 1;\n            if self.phase != Phase::Open {\n                \
                  return;\n            }\n        }\n    }\n\n    fn accept",
        suite: Suite::Loom,
        killed_by: L8_CLOSE,
    },
    Mutant {
        name: "queue-flag-set-without-settling",
        breaks: "the queue is closed, and nobody is told",
        file: CORE,
        find: "        state.close();\n        self.settle(state, Trash::new());\n",
        replace: "        state.close();\n",
        suite: Suite::Loom,
        killed_by: L8_CLOSE,
    },
    Mutant {
        name: "queue-end-wakes-no-worker",
        breaks: "nothing is left to do, and idle workers sleep on",
        file: CORE,
        find: "            while state.idle.grant(()).is_ok() {}\n",
        replace: "",
        suite: Suite::Loom,
        killed_by: L9,
    },
    Mutant {
        name: "queue-dropped-leaves-tickets-open",
        breaks: "queued jobs of a dropped queue have no outcome",
        file: CORE,
        find: "        let queued = std::mem::take(&mut self.queue);\n",
        replace: "        let queued = std::mem::take(&mut self.queue);\n        \
                  let queued = queued.into_iter().take(1).collect::<VecDeque<_>>();\n",
        suite: Suite::Loom,
        killed_by: L9,
    },
    Mutant {
        name: "queue-over-while-a-job-runs",
        breaks: "workers leave although a job may come back",
        file: CORE,
        find: "self.phase != Phase::Open && self.queue.is_empty() && self.n_running == 0",
        replace: "self.phase != Phase::Open && self.queue.is_empty()",
        suite: Suite::Loom,
        killed_by: L9_RETRY,
    },
    Mutant {
        name: "queue-retry-wakes-nobody",
        breaks: "a job comes back, and the workers sleep on",
        file: CORE,
        find: "        self.queue.push_front(key.id);\n        self.wake_worker();\n",
        replace: "        self.queue.push_front(key.id);\n",
        suite: Suite::Loom,
        killed_by: L9_RETRY,
    },
    Mutant {
        name: "queue-abort-spares-running-jobs",
        breaks: "a drain at its limit leaves tickets open",
        file: CORE,
        find: "let running: Vec<u64> = state.live.keys().copied().collect();",
        replace: "let running: Vec<u64> = Vec::new();",
        suite: Suite::Loom,
        killed_by: L9_DRAIN,
    },
    Mutant {
        name: "queue-drain-if-for-while",
        breaks: "a drain that is woken for no reason takes it for the end",
        file: CORE,
        find: "while !(state.is_over() && state.n_busy == 0) {",
        replace: "if !(state.is_over() && state.n_busy == 0) {",
        suite: Suite::Loom,
        killed_by: L9_END,
    },
    Mutant {
        name: "queue-end-wakes-no-drain",
        breaks: "nothing is left to do, and who waits for that sleeps on",
        file: CORE,
        find: "            self.over.notify_all();\n            self.timer.notify_all();\n",
        replace: "            self.timer.notify_all();\n",
        suite: Suite::Loom,
        killed_by: L9_END,
    },
    Mutant {
        name: "queue-reply-before-check-in",
        breaks: "a worker counts as busy after the end, and nobody is told when it no longer is",
        file: CORE,
        find: "        self.core.settle(state, trash);\n        counts\n    }\n}\n\nimpl<J, O> Drop",
        replace: "        state.n_busy += 1;\n        self.core.settle(state, trash);\n        \
                  lock(&self.core.state).n_busy -= 1;\n        counts\n    }\n}\n\nimpl<J, O> Drop",
        suite: Suite::Loom,
        killed_by: L9_END,
    },
    Mutant {
        name: "queue-generation-check-removed",
        breaks: "the late answer to an attempt that was given up counts",
        file: CORE,
        find: "Some(Stage::Running { generation }) if *generation == key.generation)",
        replace: "Some(Stage::Running { .. }))",
        suite: Suite::Loom,
        killed_by: L10,
    },
    Mutant {
        name: "queue-death-in-silence",
        breaks: "a worker dies, and its job has no outcome",
        file: CORE,
        find: "        if !self.checked_in {\n",
        replace: "        if !self.checked_in && self.attempt == 0 {\n",
        suite: Suite::Loom,
        killed_by: L10_DEATH,
    },
    Mutant {
        name: "queue-cancelled-job-stays-queued",
        breaks: "a cancelled job is given to a worker",
        file: CORE,
        find: "            state.unqueue(id);\n            state.resolve(id, Err(JobError::Cancelled), &mut trash);\n",
        replace: "            state.resolve(id, Err(JobError::Cancelled), &mut trash);\n",
        suite: Suite::Loom,
        killed_by: L11,
    },
    Mutant {
        name: "queue-outcome-without-ticket-kept",
        breaks: "outcomes of dropped tickets fill the memory",
        file: CORE,
        find: "Some(live) => live.is_wanted = false,",
        replace: "Some(live) => live.is_wanted &= true,",
        suite: Suite::Loom,
        killed_by: L11_TICKET,
    },
    Mutant {
        name: "queue-free-place-handed-to-nobody",
        breaks: "a place is free, and who waits for one sleeps on",
        file: CORE,
        find: "        state.hand_places_on();\n",
        replace: "",
        suite: Suite::Loom,
        killed_by: L12,
    },
    Mutant {
        name: "queue-reserved-place-not-counted",
        breaks: "a place that was granted is given away again",
        file: CORE,
        find: "self.queue.len() + self.n_reserved < self.capacity",
        replace: "self.queue.len() < self.capacity",
        suite: Suite::Loom,
        killed_by: L12,
    },
    Mutant {
        name: "queue-reserved-place-never-used",
        breaks: "a place that was granted and taken stays reserved",
        file: CORE,
        find: "Some(()) => state.n_reserved -= 1,",
        replace: "Some(()) => {}",
        suite: Suite::Loom,
        killed_by: L12,
    },
    Mutant {
        name: "queue-timed-out-job-stays-queued",
        breaks: "a job that timed out is given to a worker",
        file: CORE,
        find: "            self.unqueue(id);\n            self.resolve(id, Err(JobError::Timeout), trash);\n",
        replace: "            self.resolve(id, Err(JobError::Timeout), trash);\n",
        suite: Suite::Loom,
        killed_by: L12_DEADLINE,
    },
    Mutant {
        name: "queue-answer-after-the-deadline",
        breaks: "a result that comes too late counts",
        file: CORE,
        find: "        if self.live[&key.id].deadline.has_passed() {\n",
        replace: "        if self.live[&key.id].attempt == 0 {\n",
        suite: Suite::Unit,
        killed_by: REFERENCE,
    },
    Mutant {
        name: "queue-late-job-begun",
        breaks: "a job is begun whose deadline has passed",
        file: CORE,
        find: "            if live.deadline.has_passed() {\n",
        replace: "            if live.deadline.has_passed() && live.attempt > 0 {\n",
        suite: Suite::Unit,
        killed_by: REFERENCE,
    },
    Mutant {
        name: "queue-retry-goes-last",
        breaks: "a job that comes back is overtaken",
        file: CORE,
        find: "self.queue.push_front(key.id);",
        replace: "self.queue.push_back(key.id);",
        suite: Suite::Unit,
        killed_by: REFERENCE,
    },
    Mutant {
        name: "queue-late-replies-not-counted",
        breaks: "results are dropped in silence",
        file: CORE,
        find: "            self.counters.late_replies_dropped += 1;\n",
        replace: "",
        suite: Suite::Unit,
        killed_by: REFERENCE,
    },
    Mutant {
        name: "worker-uses-a-broken-handler",
        breaks: "a handler that panicked runs the next job",
        file: WORKER,
        find: "                discard(instance);\n",
        replace: "                handler = Some(instance);\n",
        suite: Suite::Unit,
        killed_by: "queue::tests::a_panic_is_answered_and_the_handler_replaced",
    },
];
