//! Models of the queue and its accounting, each named after the bug that it would catch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Timer;
use crate::JobError;
use crate::metrics::{FailureKind, Metrics};
use crate::queue::core::{Claim, Claimed, Core, Key};
use crate::queue::{Rejected, TaskQueue, Ticket};
use crate::sync::{Deadline, thread};

const NEVER: &Deadline = &Deadline::Never;

/// Jobs are numbers; the result of `n` is `10 * n`, so that no job's result is another's.
type Numbers = Core<u64, u64>;

fn queue_of(capacity: usize, n_workers: usize) -> Arc<Numbers> {
    Arc::new(Core::new("model".to_owned(), capacity, n_workers))
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

/// A submission that waits for a place as long as it takes.
fn submit(core: &Arc<Numbers>, job: u64) -> Result<Ticket<u64>, Rejected<u64>> {
    let id = core.submit(job, Deadline::Never, NEVER)?;
    Ok(Ticket::new(Arc::clone(core), id))
}

/// Runs jobs until the queue is over, and counts them.
fn work(core: &Numbers, n_run: &AtomicUsize) {
    while let Claimed::Job(claim, job) = core.claim(NEVER) {
        n_run.fetch_add(1, Ordering::SeqCst);
        assert!(claim.finish(Ok(10 * job)), "nobody else answers");
    }
    assert!(core.is_closed(), "a worker left an open queue");
}

fn claim_one(core: &Numbers) -> (Claim<'_, u64, u64>, u64) {
    match core.claim(NEVER) {
        Claimed::Job(claim, job) => (claim, job),
        other => panic!("a job was to be had: {other:?}"),
    }
}

/// The state in which every model ends.
fn assert_all_answered(core: &Numbers, n_accepted: u64) -> Metrics {
    let metrics = core.metrics();
    assert_eq!((metrics.n_queued, metrics.n_running, metrics.workers.busy), (0, 0, 0), "{metrics}");
    assert_eq!(metrics.jobs_accepted, n_accepted, "{metrics}");
    assert!(metrics.is_balanced(), "{metrics}");
    metrics
}

/// L7: jobs come while workers go to sleep.
fn job_left_in_the_queue_while_workers_sleep() {
    let core = queue_of(2, 2);
    let n_run = Arc::new(AtomicUsize::new(0));
    let workers = [0, 1].map(|_| {
        let n_run = Arc::clone(&n_run);
        spawn(&core, move |core| work(core, &n_run))
    });
    let tickets = [1, 2].map(|job| submit(&core, job).expect("open"));
    core.disturb();
    assert_eq!(tickets.map(|ticket| ticket.wait().expect("a result")), [10, 20]);
    core.close();
    join(workers);
    assert_eq!(n_run.load(Ordering::SeqCst), 2);
    assert_all_answered(&core, 2);
}

/// L7: the workers' patience ends as a job comes.
fn job_given_to_a_worker_that_left() {
    let core = queue_of(1, 2);
    let timer = Timer::new();
    let patience = timer.deadline();
    let impatient = spawn(&core, move |core| match core.claim(&patience) {
        Claimed::Job(claim, job) => assert!(claim.finish(Ok(10 * job))),
        Claimed::Nothing | Claimed::Over => {}
    });
    let submitter = spawn(&core, |core| {
        core.submit(1, Deadline::Never, NEVER).expect("open");
        core.close();
    });
    timer.fire();
    core.disturb();
    work(&core, &AtomicUsize::new(0));
    join([impatient, submitter]);
    assert_all_answered(&core, 1);
}

/// L8: a queue is closed while a submitter waits for a place in it.
fn job_neither_run_nor_handed_back() {
    let core = queue_of(1, 1);
    let first = submit(&core, 1).expect("open");
    let n_run = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&core);
    let was_accepted = thread::spawn(move || match submit(&own, 2) {
        Ok(ticket) => {
            assert_eq!(ticket.wait().expect("accepted before it was closed"), 20);
            true
        }
        Err(Rejected::Closed(job)) => {
            assert_eq!(job, 2);
            false
        }
        Err(other) => panic!("{other}"),
    });
    let worker = {
        let n_run = Arc::clone(&n_run);
        spawn(&core, move |core| work(core, &n_run))
    };
    core.close();
    assert_eq!(first.wait().expect("accepted before it was closed"), 10);
    join([worker]);
    let n_accepted = 1 + u64::from(was_accepted.join().expect("the submitter"));
    assert_eq!(n_run.load(Ordering::SeqCst) as u64, n_accepted, "both run and handed back, or neither");
    assert_all_answered(&core, n_accepted);
}

/// L8: a queue is closed while a submitter waits for a place that no worker will free.
fn submitter_left_asleep_by_closing() {
    let core = queue_of(1, 1);
    core.submit(1, Deadline::Never, NEVER).expect("open");
    let submitters = [2, 3].map(|job| {
        spawn(&core, move |core| match core.submit(job, Deadline::Never, NEVER) {
            Err(Rejected::Closed(back)) => assert_eq!(back, job),
            other => panic!("{other:?}"),
        })
    });
    core.disturb();
    core.close();
    join(submitters);
    core.stop(|| JobError::Closed);
    assert_all_answered(&core, 1);
}

/// L9: a queue is dropped while jobs wait and another thread waits for them.
fn ticket_left_open_by_a_dropped_queue() {
    let queue = TaskQueue::builder().capacity(2).start(|_| Ok::<_, String>(|n: u64| Ok::<_, String>(10 * n)));
    let queue = queue.expect("a model's threads start");
    let tickets = [1, 2].map(|job| queue.submit(job).expect("open"));
    let waiter = thread::spawn(move || {
        for (ticket, result) in tickets.into_iter().zip([10, 20]) {
            match ticket.wait() {
                Ok(n) => assert_eq!(n, result),
                Err(JobError::Closed) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    drop(queue);
    join([waiter]);
}

/// L9: an attempt is given up after the queue was closed, when the other worker has nothing to do.
fn job_that_comes_back_finds_no_worker() {
    let core = queue_of(1, 2);
    let ticket = submit(&core, 1).expect("open");
    let dying = spawn(&core, |core| {
        if let Claimed::Job(claim, job) = core.claim(NEVER) {
            match claim.attempt() {
                1 => assert!(claim.retry(job), "nobody else answers"),
                _ => assert!(claim.finish(Ok(10 * job))),
            }
        }
    });
    let worker = spawn(&core, |core| work(core, &AtomicUsize::new(0)));
    core.close();
    join([dying, worker]);
    assert_eq!(ticket.try_wait().expect("both workers are gone").expect("a result"), 10);
    assert_all_answered(&core, 1);
}

/// L9: a queue is drained, and its time limit passes while a worker answers.
fn drain_that_sleeps_on_or_leaves_a_ticket_open() {
    let core = queue_of(2, 1);
    let tickets = [1, 2].map(|job| submit(&core, job).expect("open"));
    let timer = Timer::new();
    let limit = timer.deadline();
    let worker = spawn(&core, |core| {
        while let Claimed::Job(claim, job) = core.claim(NEVER) {
            claim.finish(Ok(10 * job));
        }
    });
    let drainer = spawn(&core, move |core| {
        core.close();
        if !core.wait_over(&limit) {
            core.abort(|| JobError::Closed);
        }
        let metrics = core.metrics();
        assert_eq!((metrics.n_queued, metrics.n_running), (0, 0), "drained");
    });
    timer.fire();
    core.disturb();
    join([drainer, worker]);
    for (ticket, result) in tickets.into_iter().zip([10, 20]) {
        match ticket.try_wait().expect("a drained queue has no open tickets") {
            Ok(n) => assert_eq!(n, result),
            Err(JobError::Closed) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_all_answered(&core, 2);
}

/// L9: nothing is left to do but to wait for the end.
fn end_that_nobody_hears_of() {
    let core = queue_of(1, 1);
    core.submit(1, Deadline::Never, NEVER).expect("open");
    let worker = spawn(&core, |core| work(core, &AtomicUsize::new(0)));
    let disturber = spawn(&core, |core| core.disturb());
    core.close();
    assert!(core.wait_over(NEVER));
    let metrics = core.metrics();
    assert_eq!((metrics.jobs_completed, metrics.workers.busy), (1, 0), "over before the end");
    join([worker, disturber]);
}

/// L10: a worker is given up and its job tried again; the first answers all the same, and the deadline passes.
fn job_answered_twice() {
    let core = queue_of(1, 2);
    let timer = Timer::new();
    let id = core.submit(1, timer.deadline(), NEVER).expect("open");
    let n_counted = Arc::new(AtomicUsize::new(0));
    let (claim, job) = claim_one(&core);
    let lost: Key = claim.key();
    let own = Arc::clone(&n_counted);
    let rescuer = spawn(&core, move |core| {
        if core.retry(lost, job) {
            if let Claimed::Job(claim, job) = core.claim(NEVER) {
                assert_eq!(claim.attempt(), 2);
                own.fetch_add(usize::from(claim.finish(Ok(10 * job + 2))), Ordering::SeqCst);
            }
        }
    });
    let own = Arc::clone(&core);
    let clock = thread::spawn(move || {
        timer.fire();
        own.expire();
        // Whoever waits for the job to come back need not: the deadline passed, and it never will.
        own.close();
    });
    n_counted.fetch_add(usize::from(claim.finish(Ok(11))), Ordering::SeqCst);
    let outcome = core.wait_outcome(id, NEVER).expect("no time limit");
    join([rescuer, clock]);
    let metrics = assert_all_answered(&core, 1);
    let (n_counted, n_dropped) = (n_counted.load(Ordering::SeqCst), metrics.late_replies_dropped);
    match outcome {
        Ok(11) => assert_eq!((n_counted, n_dropped, metrics.job_retries), (1, 0, 0)),
        Ok(12) => assert_eq!((n_counted, n_dropped, metrics.job_retries), (1, 1, 1)),
        Err(JobError::Timeout) => {
            assert_eq!(n_counted, 0, "answered, and timed out");
            assert_eq!(metrics.jobs_failed.of(FailureKind::Timeout), 1);
            assert!((1..=1 + metrics.job_retries).contains(&n_dropped), "{metrics}");
        }
        other => panic!("{other:?}"),
    }
}

/// L10: a worker dies without a word while another cancels its job.
fn death_of_a_worker_that_nobody_hears_of() {
    let core = queue_of(1, 1);
    let ticket = submit(&core, 1).expect("open");
    let canceller = ticket.canceller();
    let worker = spawn(&core, |core| drop(claim_one(core)));
    let waiter = thread::spawn(move || ticket.wait());
    let was_cancelled = canceller.cancel();
    if was_cancelled {
        // The worker may still be waiting for a job.
        core.submit(2, Deadline::Never, NEVER).expect("the place is free");
    }
    match waiter.join().expect("the waiter") {
        Err(JobError::Cancelled) => assert!(was_cancelled),
        Err(JobError::Crashed { attempt: 1, .. }) => assert!(!was_cancelled),
        other => panic!("{other:?}"),
    }
    join([worker]);
    assert_eq!(core.metrics().workers.busy, 0);
    core.stop(|| JobError::Closed);
    assert_all_answered(&core, 1 + u64::from(was_cancelled));
}

/// L11: a job is cancelled while it is begun and answered, and another waits for its place.
fn place_freed_twice_or_never() {
    let core = queue_of(1, 1);
    let ticket = submit(&core, 1).expect("open");
    let canceller = ticket.canceller();
    let n_run = Arc::new(AtomicUsize::new(0));
    let worker = {
        let n_run = Arc::clone(&n_run);
        spawn(&core, move |core| {
            while let Claimed::Job(claim, job) = core.claim(NEVER) {
                n_run.fetch_add(1, Ordering::SeqCst);
                claim.finish(Ok(10 * job));
            }
        })
    };
    let own = Arc::clone(&core);
    let submitter = thread::spawn(move || {
        let next = submit(&own, 2).expect("open");
        assert_eq!(next.wait().expect("nobody cancels it"), 20);
        own.close();
    });
    let was_cancelled = canceller.cancel();
    let outcome = ticket.wait();
    join([submitter, worker]);
    let metrics = assert_all_answered(&core, 2);
    match outcome {
        Ok(10) => assert!(!was_cancelled),
        Err(JobError::Cancelled) => assert!(was_cancelled),
        other => panic!("{other:?}"),
    }
    let n_unwanted = n_run.load(Ordering::SeqCst) as u64 - metrics.jobs_completed;
    assert_eq!(n_unwanted, metrics.late_replies_dropped, "every result was used or counted");
}

/// L11: a ticket is dropped while its job is answered.
fn outcome_kept_for_nobody() {
    let value = Arc::new(());
    let core: Arc<Core<Arc<()>, Arc<()>>> = Arc::new(Core::new("model".to_owned(), 1, 1));
    let id = core.submit(Arc::clone(&value), Deadline::Never, NEVER).expect("open");
    let ticket = Ticket::new(Arc::clone(&core), id);
    let worker = spawn(&core, |core| {
        if let Claimed::Job(claim, job) = core.claim(NEVER) {
            claim.finish(Ok(job));
        }
    });
    drop(ticket);
    join([worker]);
    assert_eq!(Arc::strong_count(&value), 1, "an outcome without a ticket was kept");
    assert_eq!(core.metrics().jobs_completed, 1);
}

/// L12: two producers, one place, one slow consumer.
fn producer_left_asleep_at_a_free_place() {
    let core = queue_of(1, 1);
    let first = submit(&core, 1).expect("open");
    let sum = Arc::new(AtomicU64::new(0));
    let producers = [2, 3].map(|job| {
        let sum = Arc::clone(&sum);
        let own = Arc::clone(&core);
        thread::spawn(move || {
            let result = submit(&own, job).expect("open").wait().expect("a result");
            sum.fetch_add(result, Ordering::SeqCst);
        })
    });
    for _ in 0..3 {
        let (claim, job) = claim_one(&core);
        core.disturb();
        assert!(claim.finish(Ok(10 * job)));
    }
    join(producers);
    assert_eq!(first.wait().expect("a result"), 10);
    assert_eq!(sum.load(Ordering::SeqCst), 50);
    assert_all_answered(&core, 3);
}

/// L12: a producer's time passes while a place becomes free.
fn place_granted_to_a_producer_that_left() {
    let core = queue_of(1, 1);
    let first = submit(&core, 1).expect("open");
    let timer = Timer::new();
    let patience = timer.deadline();
    let own = Arc::clone(&core);
    let impatient = thread::spawn(move || match own.submit(2, Deadline::Never, &patience) {
        Ok(_) => true,
        Err(Rejected::Full(job)) => {
            assert_eq!(job, 2);
            false
        }
        Err(other) => panic!("{other}"),
    });
    let consumer = spawn(&core, |core| {
        let (claim, job) = claim_one(core);
        assert!(claim.finish(Ok(10 * job)));
    });
    timer.fire();
    core.disturb();
    let was_accepted = impatient.join().expect("the producer");
    join([consumer]);
    assert_eq!(first.wait().expect("a result"), 10);
    let has_place = core.try_submit(3, Deadline::Never).is_ok();
    assert_eq!(has_place, !was_accepted, "a place was lost or made");
    core.stop(|| JobError::Closed);
    assert_all_answered(&core, 2);
}

/// L12: a queued job's time passes while a worker takes it and another job waits for its place.
fn job_begun_and_timed_out() {
    let core = queue_of(1, 1);
    let timer = Timer::new();
    let id = core.submit(1, timer.deadline(), NEVER).expect("open");
    let own = Arc::clone(&core);
    let submitter = thread::spawn(move || {
        assert_eq!(submit(&own, 2).expect("open").wait().expect("no deadline"), 20);
        own.close();
    });
    let n_late = Arc::new(AtomicUsize::new(0));
    let worker = {
        let n_late = Arc::clone(&n_late);
        spawn(&core, move |core| {
            while let Claimed::Job(claim, job) = core.claim(NEVER) {
                n_late.fetch_add(usize::from(!claim.finish(Ok(10 * job))), Ordering::SeqCst);
            }
        })
    };
    timer.fire();
    core.expire();
    let outcome = core.wait_outcome(id, NEVER).expect("no time limit");
    join([submitter, worker]);
    let metrics = assert_all_answered(&core, 2);
    match outcome {
        Ok(10) => assert_eq!(metrics.jobs_completed, 2),
        Err(JobError::Timeout) => assert_eq!(metrics.jobs_completed, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(n_late.load(Ordering::SeqCst) as u64, metrics.late_replies_dropped);
}

#[cfg(ferroyolo_loom)]
mod loom {
    use super::super::check;
    use super::*;

    #[test]
    fn loom_l07_job_left_in_the_queue_while_workers_sleep() {
        check(
            "L7 job left in the queue while workers sleep",
            3,
            3,
            job_left_in_the_queue_while_workers_sleep,
        );
    }

    #[test]
    fn loom_l07_job_given_to_a_worker_that_left() {
        check("L7 job given to a worker that left", 3, 5, job_given_to_a_worker_that_left);
    }

    #[test]
    fn loom_l08_job_neither_run_nor_handed_back() {
        check("L8 job neither run nor handed back", 3, 5, job_neither_run_nor_handed_back);
    }

    #[test]
    fn loom_l08_submitter_left_asleep_by_closing() {
        check("L8 submitter left asleep by closing", 3, None, submitter_left_asleep_by_closing);
    }

    #[test]
    fn loom_l09_ticket_left_open_by_a_dropped_queue() {
        check("L9 ticket left open by a dropped queue", 3, 5, ticket_left_open_by_a_dropped_queue);
    }

    #[test]
    fn loom_l09_job_that_comes_back_finds_no_worker() {
        check("L9 job that comes back finds no worker", 3, None, job_that_comes_back_finds_no_worker);
    }

    #[test]
    fn loom_l09_drain_that_sleeps_on_or_leaves_a_ticket_open() {
        check(
            "L9 drain that sleeps on or leaves a ticket open",
            3,
            5,
            drain_that_sleeps_on_or_leaves_a_ticket_open,
        );
    }

    #[test]
    fn loom_l09_end_that_nobody_hears_of() {
        check("L9 end that nobody hears of", 3, None, end_that_nobody_hears_of);
    }

    #[test]
    fn loom_l10_job_answered_twice() {
        check("L10 job answered twice", 3, 5, job_answered_twice);
    }

    #[test]
    fn loom_l10_death_of_a_worker_that_nobody_hears_of() {
        check("L10 death of a worker that nobody hears of", 3, None, death_of_a_worker_that_nobody_hears_of);
    }

    #[test]
    fn loom_l11_place_freed_twice_or_never() {
        check("L11 place freed twice or never", 3, 4, place_freed_twice_or_never);
    }

    #[test]
    fn loom_l11_outcome_kept_for_nobody() {
        check("L11 outcome kept for nobody", 2, None, outcome_kept_for_nobody);
    }

    #[test]
    fn loom_l12_producer_left_asleep_at_a_free_place() {
        check("L12 producer left asleep at a free place", 3, 3, producer_left_asleep_at_a_free_place);
    }

    #[test]
    fn loom_l12_place_granted_to_a_producer_that_left() {
        check("L12 place granted to a producer that left", 3, None, place_granted_to_a_producer_that_left);
    }

    #[test]
    fn loom_l12_job_begun_and_timed_out() {
        check("L12 job begun and timed out", 3, 4, job_begun_and_timed_out);
    }
}

#[cfg(ferroyolo_shuttle)]
mod shuttle {
    use super::super::explore;
    use super::*;

    const N_WORKERS: usize = 8;
    const N_JOBS: u64 = 50;
    const N_PRODUCERS: u64 = 2;

    /// Every third job is given up once and comes back, every tenth dies with its worker, every seventh is cancelled at
    /// some time.
    fn many_jobs_many_workers() {
        let core = queue_of(4, N_WORKERS);
        let workers: Vec<_> = (0..N_WORKERS)
            .map(|_| {
                spawn(&core, |core| {
                    while let Claimed::Job(claim, job) = core.claim(NEVER) {
                        match (job, claim.attempt()) {
                            (job, 1) if job % 3 == 0 => drop(claim.retry(job)),
                            (job, _) if job % 10 == 0 => drop(claim),
                            (job, _) => drop(claim.finish(Ok(10 * job))),
                        }
                    }
                })
            })
            .collect();
        let producers: Vec<_> = (0..N_PRODUCERS)
            .map(|producer| {
                let core = Arc::clone(&core);
                thread::spawn(move || {
                    let submit = |job| (job, submit(&core, job).expect("open"));
                    let jobs = (0..N_JOBS).filter(|job| job % N_PRODUCERS == producer);
                    let tickets: Vec<_> = jobs.map(submit).collect();
                    for (job, ticket) in tickets {
                        let was_cancelled = job % 7 == 0 && ticket.cancel();
                        match ticket.wait() {
                            Ok(result) => assert_eq!(result, 10 * job),
                            Err(JobError::Cancelled) => assert!(was_cancelled),
                            Err(JobError::Crashed { .. }) => assert_eq!(job % 10, 0),
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        join(producers);
        core.close();
        assert!(core.wait_over(NEVER));
        join(workers);
        assert_all_answered(&core, N_JOBS);
    }

    /// Through the threads of a real queue, with handlers that panic, and dropped before the end.
    fn queue_dropped_early() {
        let queue = TaskQueue::builder().capacity(4).workers(N_WORKERS).start(|_| {
            Ok::<_, String>(|n: u64| match n % 5 {
                4 => std::panic::resume_unwind(Box::new("a panic of the model")),
                _ => Ok::<_, String>(10 * n),
            })
        });
        let queue = queue.expect("a model's threads start");
        let tickets: Vec<_> = (0..N_JOBS).map(|job| (job, queue.submit(job).expect("open"))).collect();
        let waiter = thread::spawn(move || {
            for (job, ticket) in tickets {
                match ticket.wait() {
                    Ok(result) => assert_eq!(result, 10 * job),
                    Err(JobError::Panicked(_)) => assert_eq!(job % 5, 4),
                    Err(JobError::Closed) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        drop(queue);
        join([waiter]);
    }

    /// What loom runs exhaustively, since shuttle's condition variables wake whom they please.
    #[test]
    fn shuttle_small_queue_models() {
        let models: [(&str, fn()); 15] = [
            ("L7", job_left_in_the_queue_while_workers_sleep),
            ("L7 patience", job_given_to_a_worker_that_left),
            ("L8", job_neither_run_nor_handed_back),
            ("L8 close", submitter_left_asleep_by_closing),
            ("L9", ticket_left_open_by_a_dropped_queue),
            ("L9 retry", job_that_comes_back_finds_no_worker),
            ("L9 drain", drain_that_sleeps_on_or_leaves_a_ticket_open),
            ("L9 end", end_that_nobody_hears_of),
            ("L10", job_answered_twice),
            ("L10 death", death_of_a_worker_that_nobody_hears_of),
            ("L11", place_freed_twice_or_never),
            ("L11 ticket", outcome_kept_for_nobody),
            ("L12", producer_left_asleep_at_a_free_place),
            ("L12 patience", place_granted_to_a_producer_that_left),
            ("L12 deadline", job_begun_and_timed_out),
        ];
        for (name, model) in models {
            explore(name, 3, model);
        }
    }

    #[test]
    fn shuttle_many_jobs_many_workers() {
        explore("8 workers, 50 jobs", N_WORKERS + N_PRODUCERS as usize + 1, many_jobs_many_workers);
    }

    #[test]
    fn shuttle_queue_dropped_early() {
        explore("queue dropped early", N_WORKERS + 2, queue_dropped_early);
    }
}
