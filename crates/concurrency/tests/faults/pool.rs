//! Faults of workers, seen from the pool.

use std::path::PathBuf;
use std::time::Duration;

use ferroyolo_concurrency::process::faults::{Fault, Job, ONCE_ENV, REPAIRED_ENV, START_ENV, StartFault};
use ferroyolo_concurrency::process::{Limits, RestartPolicy, VERSION};
use ferroyolo_concurrency::{JobError, ProcessPool, Rejected, SubmitOptions};
use rustix::process::Signal;

use crate::support::{builder, command, faulty, has_proc, outcome, run, signal, state, submit, until};

fn n_restarts(pool: &ProcessPool, reason: &str) -> u64 {
    pool.metrics().worker_restarts.get(reason).copied().unwrap_or(0)
}

/// A folder for faults that happen once.
fn once() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn jobs_are_answered_each_with_its_own_result() {
    let pool = builder(command()).workers(2).capacity(64).start().unwrap();
    let jobs: Vec<Job> = (0..100).map(|n| Job { ballast: n as usize * 3000, ..Job::new(n) }).collect();
    let tickets: Vec<_> = jobs.iter().map(|job| submit(&pool, job)).collect();
    for (ticket, job) in tickets.into_iter().zip(&jobs) {
        outcome(ticket, job).unwrap();
    }
    let report = pool.drain(Duration::from_secs(60));
    assert!(report.in_time, "{report:?}");
    let metrics = pool.metrics();
    assert!(metrics.is_balanced() && metrics.jobs_completed == 100, "{metrics}");
    assert!(metrics.worker_restarts.is_empty(), "{metrics}");
    assert!(pool.pids().is_empty());
}

#[test]
fn f01_a_kill_amid_a_request_concerns_only_its_job() {
    let folder = once();
    let pool = builder(command().env(ONCE_ENV, folder.path())).workers(2).start().unwrap();
    let jobs: Vec<Job> = (0..8)
        .map(|n| Job {
            fault: if n == 3 { Fault::Sigkill } else { Fault::None },
            is_once: true,
            delay_ms: 20,
            ..Job::new(n)
        })
        .collect();
    let tickets: Vec<_> = jobs.iter().map(|job| submit(&pool, job)).collect();
    for (ticket, job) in tickets.into_iter().zip(&jobs) {
        outcome(ticket, job).unwrap();
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.jobs_completed, metrics.job_retries), (8, 1), "{metrics}");
    assert_eq!(n_restarts(&pool, "crashed"), 1, "{metrics}");
}

#[test]
fn f02_a_loop_ends_at_the_deadline() {
    let pool = builder(command()).deadline(Duration::from_secs(3)).start().unwrap();
    let error = run(&pool, &faulty(0, Fault::LoopForever)).unwrap_err();
    assert!(matches!(error, JobError::Timeout), "{error}");
    run(&pool, &Job::new(1)).unwrap();
    let metrics = pool.metrics();
    assert_eq!((metrics.deadline_kills, metrics.job_retries), (1, 0), "{metrics}");
}

#[test]
fn f02_a_jobs_own_deadline_counts_too() {
    let pool = builder(command()).start().unwrap();
    let job = faulty(0, Fault::LoopForever).encode();
    let options = SubmitOptions::new().deadline(Duration::from_millis(300));
    let error = pool.submit_with(job, options).unwrap().wait().unwrap_err();
    assert!(matches!(error, JobError::Timeout), "{error}");
    run(&pool, &Job::new(1)).unwrap();
    until("the kill is counted", || pool.metrics().deadline_kills == 1);
}

#[test]
fn f02_a_stopped_worker_is_noticed_and_its_job_tried_again() {
    let folder = once();
    let pool = builder(command().env(ONCE_ENV, folder.path()))
        .heartbeat(Duration::from_millis(50), Duration::from_secs(3))
        .start()
        .unwrap();
    run(&pool, &Job { is_once: true, ..faulty(0, Fault::StopItself) }).unwrap();
    assert_eq!(n_restarts(&pool, "silent"), 1, "{}", pool.metrics());
}

#[test]
fn f02_a_stopped_worker_does_not_stop_the_clock() {
    let pool = builder(command()).deadline(Duration::from_secs(3)).start().unwrap();
    let error = run(&pool, &faulty(0, Fault::StopItself)).unwrap_err();
    assert!(matches!(error, JobError::Timeout), "{error}");
    run(&pool, &Job::new(1)).unwrap();
}

#[test]
fn f03_ways_to_die_are_told_apart() {
    let pool = builder(command()).retries(0).start().unwrap();
    for (number, fault, expected) in [
        (0, Fault::Sigkill, (Some(9), None)),
        (1, Fault::Segfault, (Some(11), None)),
        (2, Fault::Abort, (Some(6), None)),
        (3, Fault::StackOverflow, (Some(6), None)),
        (4, Fault::Exit, (None, Some(3))),
    ] {
        match run(&pool, &faulty(number, fault)) {
            Err(JobError::Crashed { signal, code, attempt: 1, stderr }) => {
                assert_eq!((signal, code), expected, "{fault:?}");
                assert_eq!(
                    fault == Fault::StackOverflow,
                    stderr.contains("overflowed its stack"),
                    "{stderr}"
                );
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
    match run(&pool, &faulty(5, Fault::Panic)) {
        Err(JobError::Panicked(message)) => assert_eq!(message, "a handler that panics"),
        other => panic!("{other:?}"),
    }
    let pids = pool.pids();
    match run(&pool, &faulty(6, Fault::Error)) {
        Err(JobError::App(error)) => assert_eq!(error.to_string(), "a handler's error"),
        other => panic!("{other:?}"),
    }
    run(&pool, &Job::new(7)).unwrap();
    let metrics = pool.metrics();
    assert_eq!(n_restarts(&pool, "crashed"), 5, "{metrics}");
    assert_eq!(n_restarts(&pool, "panicked"), 1, "a worker whose handler panicked is not used again");
    assert!(pids.len() <= 1 && pool.pids().len() == 1);
}

#[test]
#[cfg(target_os = "linux")]
fn f04_a_limit_on_memory_is_out_of_memory() {
    let limits = Limits { address_space: Some(2 << 30), ..Limits::default() };
    let pool = builder(command().limits(limits)).start().unwrap();
    let error = run(&pool, &faulty(0, Fault::OutOfMemory)).unwrap_err();
    assert!(matches!(error, JobError::OutOfMemory), "{error}");
    run(&pool, &Job::new(1)).unwrap();
    assert_eq!(n_restarts(&pool, "out_of_memory"), 1);
}

#[test]
fn f05_poison_is_quarantined_and_the_pool_stays_up() {
    let pool = builder(command()).workers(2).start().unwrap();
    let poison = faulty(0, Fault::Segfault);
    let others: Vec<Job> = (1..20).map(Job::new).collect();
    let ticket = submit(&pool, &poison);
    let tickets: Vec<_> = others.iter().map(|job| submit(&pool, job)).collect();
    let error = outcome(ticket, &poison).unwrap_err();
    assert!(matches!(error, JobError::Quarantined { kills: 2 }), "{error}");
    for (ticket, job) in tickets.into_iter().zip(&others) {
        outcome(ticket, job).unwrap();
    }
    assert_eq!(n_restarts(&pool, "crashed"), 2);
    let error = run(&pool, &poison).unwrap_err();
    assert!(matches!(error, JobError::Quarantined { kills: 2 }), "{error}");
    assert_eq!(n_restarts(&pool, "crashed"), 2, "no worker has to die of what is known");
}

#[test]
fn f05_poison_that_comes_alone_is_known_when_it_comes_again() {
    let pool = builder(command()).retries(0).start().unwrap();
    let poison = faulty(0, Fault::Abort);
    for _ in 0..2 {
        let error = run(&pool, &poison).unwrap_err();
        assert!(matches!(error, JobError::Crashed { signal: Some(6), .. }), "{error}");
    }
    let error = run(&pool, &poison).unwrap_err();
    assert!(matches!(error, JobError::Quarantined { kills: 2 }), "{error}");
    assert_eq!(n_restarts(&pool, "crashed"), 2);
}

#[test]
fn f06_a_broken_protocol_costs_the_worker() {
    let pool = builder(command()).retries(0).max_frame(1 << 20).start().unwrap();
    for (number, fault, what) in [
        (0, Fault::Garbage, "where a message begins"),
        (1, Fault::Truncated, "ended inside a message"),
        (2, Fault::Oversized, "at most 1048576 are allowed"),
        (3, Fault::WrongChecksum, "checksum"),
        (4, Fault::WrongJob, "was not asked for"),
        (5, Fault::WrongGeneration, "was not asked for"),
        (6, Fault::UnknownKind, "unknown kind 77"),
        (7, Fault::UnexpectedKind, "unexpected message"),
    ] {
        match run(&pool, &faulty(number, fault)) {
            Err(JobError::Protocol(message)) => assert!(message.contains(what), "{fault:?}: {message}"),
            other => panic!("{fault:?}: {other:?}"),
        }
    }
    run(&pool, &Job::new(100)).unwrap();
    assert_eq!(n_restarts(&pool, "protocol"), 8);
}

#[test]
fn f06_an_answer_that_comes_twice_counts_once() {
    let pool = builder(command()).start().unwrap();
    let twice = faulty(0, Fault::AnswerTwice);
    let others: Vec<Job> = (1..10).map(Job::new).collect();
    let ticket = submit(&pool, &twice);
    let tickets: Vec<_> = others.iter().map(|job| submit(&pool, job)).collect();
    outcome(ticket, &twice).unwrap();
    for (ticket, job) in tickets.into_iter().zip(&others) {
        outcome(ticket, job).unwrap();
    }
    until("the worker is replaced", || n_restarts(&pool, "protocol") == 1);
    assert_eq!(pool.metrics().jobs_completed, 10);
}

#[test]
fn f06_a_worker_that_closes_its_channel_is_replaced() {
    let pool = builder(command()).retries(0).start().unwrap();
    let error = run(&pool, &faulty(0, Fault::CloseChannel)).unwrap_err();
    assert!(matches!(error, JobError::Crashed { .. }), "{error}");
    run(&pool, &Job::new(1)).unwrap();
}

#[test]
fn f06_jobs_and_results_above_the_cap_are_refused() {
    let pool = builder(command()).max_frame(1000).start().unwrap();
    let error = run(&pool, &Job { ballast: 1000, ..Job::new(0) }).unwrap_err();
    assert!(matches!(&error, JobError::Protocol(what) if what.contains("at most 1000")), "{error}");
    run(&pool, &Job { ballast: 900, ..Job::new(1) }).unwrap();
    assert!(pool.metrics().worker_restarts.is_empty());
}

fn circuit_policy() -> RestartPolicy {
    RestartPolicy {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        budget: 5,
        window: Duration::from_secs(600),
        cool_down: Duration::from_millis(50),
        ..RestartPolicy::default()
    }
}

#[test]
fn f10_a_crash_at_start_opens_the_circuit_and_a_repair_closes_it() {
    let folder = once();
    let repaired: PathBuf = folder.path().join("repaired");
    let command = command().env(START_ENV, format!("{:?}", StartFault::Crash)).env(REPAIRED_ENV, &repaired);
    let pool = ProcessPool::builder(command).workers(2).restarts(circuit_policy()).start().unwrap();
    let job = Job::new(0);
    let error = run(&pool, &job).unwrap_err();
    assert!(matches!(error, JobError::CircuitOpen), "{error}");
    assert!(pool.metrics().circuit_open);
    assert!(pool.last_failure().unwrap().contains("exited with code 7"), "{:?}", pool.last_failure());
    std::fs::write(&repaired, "").unwrap();
    // The worker that is tried next works, takes a job and so closes the circuit.
    until("the circuit is closed", || run(&pool, &job).is_ok());
    assert!(!pool.metrics().circuit_open);
}

#[test]
fn f10_while_the_circuit_is_open_nothing_is_started() {
    let command = command().env(START_ENV, format!("{:?}", StartFault::Crash));
    let policy = RestartPolicy { cool_down: Duration::from_secs(3600), ..circuit_policy() };
    let pool = ProcessPool::builder(command).workers(2).restarts(policy).start().unwrap();
    for number in 0..200 {
        let error = run(&pool, &Job::new(number)).unwrap_err();
        assert!(matches!(error, JobError::CircuitOpen), "{error}");
    }
    let n_started = pool.n_started();
    assert!((6..=7).contains(&n_started), "{n_started} starts for a budget of 5 and 2 slots");
}

#[test]
fn f10_a_worker_that_says_why_it_can_not_work_is_heard() {
    let command = command().env(START_ENV, format!("{:?}", StartFault::NotReady));
    let policy = RestartPolicy { cool_down: Duration::from_secs(3600), ..circuit_policy() };
    let pool = ProcessPool::builder(command).restarts(policy).start().unwrap();
    let error = run(&pool, &Job::new(0)).unwrap_err();
    assert!(matches!(error, JobError::CircuitOpen), "{error}");
    assert_eq!(pool.last_failure().unwrap(), "it could not take jobs: no model is here");
}

#[test]
fn f10_a_worker_that_is_never_ready_is_given_up() {
    for fault in [StartFault::Hang, StartFault::Silence] {
        let command = command().env(START_ENV, format!("{fault:?}"));
        let policy = RestartPolicy { budget: 0, cool_down: Duration::from_secs(3600), ..circuit_policy() };
        let pool = ProcessPool::builder(command)
            .restarts(policy)
            .start_timeout(Duration::from_millis(500))
            .start()
            .unwrap();
        let error = run(&pool, &Job::new(0)).unwrap_err();
        assert!(matches!(error, JobError::CircuitOpen), "{error}");
        assert!(pool.last_failure().unwrap().contains("not ready in time"), "{:?}", pool.last_failure());
    }
}

#[test]
fn f10_a_program_that_does_not_exist_is_no_hang() {
    let command = ferroyolo_concurrency::process::WorkerCommand::new("no such program");
    let policy = RestartPolicy { cool_down: Duration::from_secs(3600), ..circuit_policy() };
    let pool = ProcessPool::builder(command).restarts(policy).start().unwrap();
    let error = run(&pool, &Job::new(0)).unwrap_err();
    assert!(matches!(error, JobError::CircuitOpen), "{error}");
    assert!(pool.last_failure().unwrap().contains("could not be started"), "{:?}", pool.last_failure());
}

#[test]
fn f11_another_version_is_refused() {
    let command = command().env(START_ENV, format!("{:?}", StartFault::OtherVersion));
    let pool = builder(command).workers(2).start().unwrap();
    for number in 0..5 {
        match run(&pool, &Job::new(number)) {
            Err(JobError::Incompatible { want, got }) => assert_eq!((want, got), (VERSION, VERSION + 1)),
            other => panic!("{other:?}"),
        }
    }
    assert!(pool.n_started() <= 2, "a program does not change its version by being started again");
}

#[test]
fn f11_another_build_is_refused() {
    let command = command().env(START_ENV, format!("{:?}", StartFault::OtherBuild));
    let policy = RestartPolicy { budget: 1, cool_down: Duration::from_secs(3600), ..circuit_policy() };
    let pool = ProcessPool::builder(command).restarts(policy).start().unwrap();
    let error = run(&pool, &Job::new(0)).unwrap_err();
    assert!(matches!(error, JobError::CircuitOpen), "{error}");
    assert!(pool.last_failure().unwrap().contains("another build"), "{:?}", pool.last_failure());
}

/// A pool of one worker that is stopped, so that a job that runs goes on running until it is continued.
fn stopped(capacity: usize) -> (ProcessPool, u32) {
    let pool = builder(command())
        .capacity(capacity)
        .heartbeat(Duration::from_millis(100), Duration::from_secs(3600))
        .start()
        .expect("a pool");
    run(&pool, &Job::new(1000)).expect("a result");
    let pid = pool.pids()[0];
    signal(pid, Signal::STOP);
    until("it is stopped", || state(pid) == Some('T'));
    (pool, pid)
}

#[test]
fn f13_a_full_queue_refuses_or_waits() {
    if !has_proc() {
        return;
    }
    let (pool, pid) = stopped(3);
    let first = Job::new(0);
    let first_ticket = submit(&pool, &first);
    until("the first job runs", || pool.metrics().n_running == 1);
    let jobs: Vec<Job> = (1..4).map(Job::new).collect();
    let tickets: Vec<_> = jobs.iter().map(|job| pool.try_submit(job.encode()).unwrap()).collect();
    let extra = Job::new(4);
    match pool.try_submit(extra.encode()) {
        Err(Rejected::Full(bytes)) => assert_eq!(bytes, extra.encode(), "handed back as it was"),
        other => panic!("{other:?}"),
    }
    match pool.submit_timeout(extra.encode(), Duration::from_millis(1)) {
        Err(Rejected::Full(bytes)) => assert_eq!(bytes, extra.encode()),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.metrics().n_queued, 3);
    signal(pid, Signal::CONT);
    let extra_ticket = submit(&pool, &extra);
    let all = [(first_ticket, &first), (extra_ticket, &extra)];
    for (ticket, job) in all.into_iter().chain(tickets.into_iter().zip(&jobs)) {
        outcome(ticket, job).unwrap();
    }
}

#[test]
fn f16_an_answer_after_the_outcome_is_dropped() {
    if !has_proc() {
        return;
    }
    let (pool, pid) = stopped(8);
    let ticket = submit(&pool, &Job::new(0));
    until("it runs", || pool.metrics().n_running == 1);
    assert!(ticket.cancel());
    assert!(matches!(ticket.wait(), Err(JobError::Cancelled)));
    let next = Job::new(1);
    let next_ticket = submit(&pool, &next);
    signal(pid, Signal::CONT);
    outcome(next_ticket, &next).unwrap();
    let metrics = pool.metrics();
    assert_eq!(metrics.late_replies_dropped, 1, "{metrics}");
    assert!(metrics.is_balanced() && metrics.worker_restarts.is_empty(), "{metrics}");
}

#[test]
fn a_dropped_pool_answers_everything() {
    let pool = builder(command()).workers(1).start().unwrap();
    let running = submit(&pool, &faulty(0, Fault::LoopForever));
    until("it runs", || pool.metrics().n_running == 1);
    let queued = submit(&pool, &Job::new(1));
    drop(pool);
    for ticket in [running, queued] {
        assert!(matches!(ticket.wait(), Err(JobError::Closed)));
    }
}

#[test]
fn a_drain_in_time_finishes_and_one_out_of_time_says_so() {
    let folder = once();
    let pool = builder(command().env(ONCE_ENV, folder.path())).workers(2).start().unwrap();
    let jobs: Vec<Job> = (0..10)
        .map(|n| Job {
            is_once: true,
            delay_ms: 10,
            ..faulty(n, if n == 9 { Fault::Abort } else { Fault::None })
        })
        .collect();
    let tickets: Vec<_> = jobs.iter().map(|job| submit(&pool, job)).collect();
    let report = pool.drain(Duration::from_secs(60));
    assert!(report.in_time && report.n_failed == 0, "a job that is tried again is waited for: {report:?}");
    for (ticket, job) in tickets.into_iter().zip(&jobs) {
        outcome(ticket, job).unwrap();
    }
    assert!(matches!(pool.submit(Vec::new()), Err(Rejected::Closed(_))));
    assert!(pool.pids().is_empty());

    let pool = builder(command()).workers(1).start().unwrap();
    let hung = submit(&pool, &faulty(0, Fault::LoopForever));
    let queued = submit(&pool, &Job::new(1));
    until("it runs", || pool.metrics().n_running == 1);
    let report = pool.drain(Duration::from_millis(50));
    assert!(!report.in_time && report.n_closed == 2, "{report:?}");
    for ticket in [hung, queued] {
        assert!(matches!(ticket.wait(), Err(JobError::Closed)));
    }
    assert!(pool.pids().is_empty());
}

#[test]
fn a_worker_that_dies_idle_is_replaced_ahead_of_need() {
    let pool = builder(command()).start().unwrap();
    run(&pool, &Job::new(0)).unwrap();
    let pids = pool.pids();
    signal(pids[0], Signal::KILL);
    until("another is there", || pool.pids().first().is_some_and(|pid| *pid != pids[0]));
    run(&pool, &Job::new(1)).unwrap();
    assert_eq!(pool.metrics().job_retries, 0);
}
