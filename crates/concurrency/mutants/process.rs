//! Defects of what the threads of a pool of processes share.

use super::{Mutant, Suite};

const fn defect(
    name: &'static str,
    breaks: &'static str,
    [file, find, replace]: [&'static str; 3],
    suite: Suite,
    killed_by: &'static str,
) -> Mutant {
    Mutant { name, breaks, file, find, replace, suite, killed_by }
}

const ROSTER: &str = "src/process/roster.rs";
const SUPERVISOR: &str = "src/process/supervisor.rs";
const FRAME: &str = "src/process/frame.rs";

const L13_CLOSE: &str = "models::process::loom::loom_l13_worker_started_after_the_close";
const L13_DRIVER: &str = "models::process::loom::loom_l13_driver_left_asleep";
const L13_DEAD: &str = "models::process::loom::loom_l13_answer_of_a_dead_worker_taken";
const PROBE: &str =
    "process::supervisor::tests::a_healthy_probe_closes_the_circuit_and_a_dead_one_opens_it_again";
const CLOSED: &str = "process::supervisor::tests::nothing_is_started_after_the_close";
const CAP: &str = "process::frame::tests::a_length_above_the_cap_allocates_nothing";

pub(super) const MUTANTS: &[Mutant] = &[
    defect(
        "roster-close-does-not-wait",
        "the pool is closed while a worker is being started",
        [ROSTER, "while state.is_spawning {", "while false {"],
        Suite::Loom,
        L13_CLOSE,
    ),
    defect(
        "roster-death-not-told",
        "a driver waits for the answer of a dead worker for ever",
        [
            ROSTER,
            "state.supervisor.died(idx, was_healthy, now);\n        self.work.notify_all();\n        \
             self.wake_drivers();",
            "state.supervisor.died(idx, was_healthy, now);\n        self.work.notify_all();",
        ],
        Suite::Loom,
        L13_DRIVER,
    ),
    defect(
        "roster-death-without-answer",
        "the job of a dead worker has no outcome",
        [ROSTER, "if slot.job.take().is_some() {", "if slot.job.take().is_some() && death.is_blameless {"],
        Suite::Loom,
        L13_DRIVER,
    ),
    defect(
        "roster-incarnation-not-checked",
        "what a dead worker said is taken for its successor's word",
        [ROSTER, ".filter(|slot| slot.incarnation == incarnation)", ".filter(|_| incarnation > 0)"],
        Suite::Loom,
        L13_DEAD,
    ),
    defect(
        "supervisor-circuit-never-opens",
        "workers that die at once are started for ever",
        [
            SUPERVISOR,
            "let too_many = self.failures.len() > budget || all_fail;",
            "let too_many = self.failures.len() > 2 * budget + 9;",
        ],
        Suite::Unit,
        "process::tests::f10_starts_that_always_fail_open_the_circuit",
    ),
    defect(
        "supervisor-two-probes",
        "all slots are tried while the circuit is half open",
        [SUPERVISOR, "*probe = Some(idx);", "*probe = None;"],
        Suite::Unit,
        PROBE,
    ),
    defect(
        "supervisor-starts-after-close",
        "a closed pool starts workers",
        [SUPERVISOR, "        self.closed = true;\n", ""],
        Suite::Unit,
        CLOSED,
    ),
    defect(
        "frame-cap-not-checked",
        "a lying length is believed",
        [FRAME, ".filter(|len| *len <= max_len)", ".filter(|len| *len <= usize::MAX)"],
        Suite::Unit,
        CAP,
    ),
    defect(
        "frame-checksum-not-checked",
        "a message that was changed on its way is believed",
        [
            FRAME,
            "if checksum(&bytes, &payload[..len]) != u32_at(&bytes, 12) {",
            "if checksum(&bytes, &payload[..len]) == 0 {",
        ],
        Suite::Unit,
        "process::frame::tests::a_changed_payload_is_noticed",
    ),
];
