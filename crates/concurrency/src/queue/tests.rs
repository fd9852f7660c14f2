//! What the queue promises, with threads and clocks as they are.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::core::Claimed;
use super::*;
use crate::metrics::FailureKind;

const NEVER: Duration = Duration::from_secs(600);

/// A handler that waits to be let go, and says when it has begun.
struct Gated {
    begun: Receiver<u32>,
    go: Sender<()>,
}

/// A queue with one worker whose handler doubles numbers, each when it is let go.
fn gated(capacity: usize) -> (TaskQueue<u32, u32>, Gated) {
    let (say_begun, begun) = channel();
    let (go, wait_go) = channel();
    let wait_go = Mutex::new(Some(wait_go));
    let queue = TaskQueue::builder()
        .capacity(capacity)
        .start(move |_| {
            let say_begun = say_begun.clone();
            let wait_go = lock(&wait_go).take().expect("built once");
            Ok::<_, String>(move |n: u32| {
                say_begun.send(n).expect("the test listens");
                // An error means that the test has ended and lets everything go.
                let _ = wait_go.recv();
                Ok::<_, String>(2 * n)
            })
        })
        .expect("it starts");
    (queue, Gated { begun, go })
}

fn squares() -> TaskQueue<u64, u64> {
    TaskQueue::builder().workers(3).start(|_| Ok::<_, String>(|n| Ok::<_, String>(n * n))).expect("it starts")
}

#[test]
fn results_belong_to_their_jobs() {
    let queue = squares();
    thread::scope(|scope| {
        for base in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for n in 0..50 {
                    let n = 1000 * base + n;
                    assert_eq!(queue.submit(n).unwrap().wait().unwrap(), n * n);
                }
            });
        }
    });
    let metrics = queue.metrics();
    assert_eq!((metrics.jobs_accepted, metrics.jobs_completed), (200, 200));
    assert_eq!(metrics.infer.count(), 200);
    assert!(metrics.is_balanced());
}

#[test]
fn a_full_queue_hands_the_job_back() {
    let (queue, gated) = gated(1);
    let running = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    let queued = queue.submit(2).unwrap();
    assert!(matches!(queue.try_submit(3), Err(Rejected::Full(3))));
    assert!(matches!(queue.submit_timeout(3, Duration::from_millis(1)), Err(Rejected::Full(3))));
    let deadline = SubmitOptions::new().deadline(Duration::from_millis(1));
    assert!(matches!(queue.submit_with(3, deadline), Err(Rejected::Full(3))));
    assert_eq!((queue.metrics().n_queued, queue.metrics().n_running), (1, 1));
    gated.go.send(()).unwrap();
    gated.go.send(()).unwrap();
    assert_eq!((running.wait().unwrap(), queued.wait().unwrap()), (2, 4));
}

#[test]
fn a_closed_queue_hands_the_job_back_and_runs_the_rest() {
    let (queue, gated) = gated(2);
    let tickets = [queue.submit(1).unwrap(), queue.submit(2).unwrap()];
    queue.close();
    assert!(queue.is_closed());
    assert!(matches!(queue.submit(3), Err(Rejected::Closed(3))));
    assert!(matches!(queue.try_submit(3), Err(Rejected::Closed(3))));
    drop(gated.go);
    assert_eq!(tickets.map(|ticket| ticket.wait().unwrap()), [2, 4]);
}

#[test]
fn closing_frees_submitters_that_wait() {
    let (queue, gated) = gated(1);
    let running = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    let queued = queue.submit(2).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.submit(3));
        queue.core.await_submitters(1);
        queue.close();
        assert!(matches!(waiting.join().unwrap(), Err(Rejected::Closed(3))));
    });
    drop(gated.go);
    assert_eq!((running.wait().unwrap(), queued.wait().unwrap()), (2, 4));
}

#[test]
fn submitters_are_served_in_the_order_they_came() {
    let (queue, gated) = gated(1);
    let first = queue.submit(0).unwrap();
    assert_eq!(gated.begun.recv(), Ok(0));
    let second = queue.submit(1).unwrap();
    thread::scope(|scope| {
        for n in 2..6 {
            let queue = &queue;
            scope.spawn(move || queue.submit(n).unwrap().wait().unwrap());
            queue.core.await_submitters(n as usize - 1);
        }
        for n in 0..6 {
            gated.go.send(()).unwrap();
            if n < 5 {
                assert_eq!(gated.begun.recv(), Ok(n + 1));
            }
        }
    });
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (0, 2));
}

#[test]
fn a_panic_is_answered_and_the_handler_replaced() {
    let n_built = Arc::new(Mutex::new(0));
    let built = Arc::clone(&n_built);
    let queue = TaskQueue::builder()
        .start(move |_| {
            *built.lock().unwrap() += 1;
            let mut n_done = 0;
            Ok::<_, String>(move |n: u32| {
                n_done += 1;
                assert_ne!(n, 13, "unlucky");
                Ok::<_, String>(n_done)
            })
        })
        .unwrap();
    assert_eq!(queue.submit(1).unwrap().wait().unwrap(), 1);
    assert_eq!(queue.submit(2).unwrap().wait().unwrap(), 2);
    match queue.submit(13).unwrap().wait() {
        Err(JobError::Panicked(message)) => assert!(message.contains("unlucky"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.submit(3).unwrap().wait().unwrap(), 1, "the state of a handler that panicked was used");
    assert_eq!(*n_built.lock().unwrap(), 2);
    let metrics = queue.metrics();
    assert_eq!(metrics.worker_restarts.get("panic"), Some(&1));
    assert_eq!(metrics.jobs_failed.of(FailureKind::Panicked), 1);
}

#[test]
fn jobs_fail_while_the_handler_cannot_be_rebuilt() {
    let n_builds = Mutex::new(0);
    let queue = TaskQueue::builder()
        .start(move |_| {
            let mut n_builds = n_builds.lock().unwrap();
            *n_builds += 1;
            match *n_builds {
                2 => Err("no memory"),
                3 => {
                    drop(n_builds);
                    panic!("no luck")
                }
                _ => Ok(|n: u32| if n == 0 { panic!("zero") } else { Ok::<_, String>(n) }),
            }
        })
        .unwrap();
    assert!(matches!(queue.submit(0).unwrap().wait(), Err(JobError::Panicked(_))));
    match queue.submit(1).unwrap().wait() {
        Err(JobError::App(error)) => assert_eq!(error.to_string(), "no memory"),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(queue.submit(1).unwrap().wait(), Err(JobError::Panicked(message)) if message == "no luck")
    );
    assert_eq!(queue.submit(1).unwrap().wait().unwrap(), 1);
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let held = Arc::new(());
    let witness = Arc::clone(&held);
    let started = TaskQueue::builder().workers(3).start(move |worker_idx| {
        let held = Arc::clone(&held);
        if worker_idx == 1 {
            Err("no such model")
        } else {
            Ok(move |()| Ok::<_, String>(Arc::strong_count(&held)))
        }
    });
    let error = started.expect_err("worker 1 has no instance");
    assert_eq!(error.to_string(), "no instance could be built for worker 1: the job failed: no such model");
    assert_eq!(Arc::strong_count(&witness), 1, "an instance or the factory is left");
}

#[test]
fn nothing_is_not_a_queue() {
    let handler = |_| Ok::<_, String>(|()| Ok::<_, String>(()));
    assert!(matches!(TaskQueue::builder().workers(0).start(handler), Err(StartError::Zero("workers"))));
    assert!(matches!(TaskQueue::builder().capacity(0).start(handler), Err(StartError::Zero("capacity"))));
}

#[test]
fn a_cancelled_job_does_not_run_and_frees_its_place() {
    let (queue, gated) = gated(1);
    let running = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    let queued = queue.submit(2).unwrap();
    assert!(queued.cancel());
    assert!(!queued.canceller().cancel(), "cancelled twice");
    let next = queue.try_submit(3).expect("the place is free");
    assert!(matches!(queued.wait(), Err(JobError::Cancelled)));
    drop(gated.go);
    assert_eq!((running.wait().unwrap(), next.wait().unwrap()), (2, 6));
    drop(queue);
    assert_eq!(gated.begun.iter().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_running_job_is_cancelled_at_once_and_its_result_dropped() {
    let (queue, gated) = gated(1);
    let ticket = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    assert!(ticket.cancel());
    assert!(matches!(ticket.wait(), Err(JobError::Cancelled)));
    let metrics = queue.metrics();
    assert_eq!((metrics.n_running, metrics.workers.busy), (0, 1));
    drop(gated.go);
    assert!(queue.drain(NEVER).in_time);
    assert_eq!(queue.metrics().late_replies_dropped, 1);
}

#[test]
fn a_running_job_times_out_while_its_handler_goes_on() {
    let (queue, gated) = gated(2);
    // Long enough for an idle worker to begin, also on a busy machine.
    let options = SubmitOptions::new().deadline(Duration::from_secs(1));
    let ticket = queue.submit_with(1, options).unwrap();
    assert_eq!(gated.begun.recv_timeout(NEVER), Ok(1));
    assert!(matches!(ticket.wait(), Err(JobError::Timeout)), "the handler was never let go");
    gated.go.send(()).unwrap();
    gated.go.send(()).unwrap();
    assert_eq!(
        queue.submit(2).unwrap().wait().unwrap(),
        4,
        "a late result must not be taken for the next one"
    );
    let metrics = queue.metrics();
    assert_eq!(metrics.late_replies_dropped, 1);
    assert_eq!(metrics.jobs_failed.of(FailureKind::Timeout), 1);
}

#[test]
fn an_earlier_deadline_comes_before_the_one_that_is_waited_for() {
    let (queue, gated) = gated(3);
    let running = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    let soon = || SubmitOptions::new().deadline(Duration::from_millis(5));
    let far = queue.submit_with(2, SubmitOptions::new().deadline(NEVER)).unwrap();
    // After the first of these the timer sleeps until the far deadline; the second has to wake it.
    for job in [3, 4] {
        let ticket = queue.submit_with(job, soon()).unwrap();
        let outcome = ticket.wait_timeout(Duration::from_secs(60)).expect("the timer woke up");
        assert!(matches!(outcome, Err(JobError::Timeout)), "{outcome:?}");
    }
    drop(gated.go);
    assert_eq!((running.wait().unwrap(), far.wait().unwrap()), (2, 4));
}

#[test]
fn a_queued_job_times_out_without_a_worker_and_makes_room() {
    let (queue, gated) = gated(1);
    let running = queue.submit(1).unwrap();
    assert_eq!(gated.begun.recv(), Ok(1));
    let expiring = queue.submit_with(2, SubmitOptions::new().deadline(Duration::from_millis(5))).unwrap();
    // Blocks until the timer has made room: the only worker is busy.
    let next = queue.submit(3).unwrap();
    assert!(matches!(expiring.wait(), Err(JobError::Timeout)));
    drop(gated.go);
    assert_eq!((running.wait().unwrap(), next.wait().unwrap()), (2, 6));
}

#[test]
fn a_ticket_waits_in_portions() {
    let (queue, gated) = gated(1);
    let ticket = queue.submit(1).unwrap();
    let ticket = ticket.try_wait().expect_err("the handler was not let go");
    let ticket = ticket.wait_timeout(Duration::from_millis(1)).expect_err("the handler was not let go");
    assert_eq!(ticket.id(), 0);
    gated.go.send(()).unwrap();
    assert_eq!(ticket.wait_timeout(NEVER).expect("600 s are enough").unwrap(), 2);
}

#[test]
fn dropping_a_queue_resolves_every_ticket() {
    let (queue, gated) = gated(8);
    let tickets: Vec<_> = (0..5).map(|n| queue.submit(n).unwrap()).collect();
    assert_eq!(gated.begun.recv(), Ok(0));
    let dropper = thread::spawn(move || drop(queue));
    let mut outcomes = tickets.into_iter();
    let running = outcomes.next().unwrap();
    for ticket in outcomes {
        assert!(matches!(ticket.wait(), Err(JobError::Closed)));
    }
    gated.go.send(()).unwrap();
    assert_eq!(running.wait().unwrap(), 0);
    dropper.join().unwrap();
}

#[test]
fn drain_runs_everything_when_it_has_time() {
    let queue = squares();
    let tickets: Vec<_> = (0..10).map(|n| queue.submit(n).unwrap()).collect();
    let report = queue.drain(NEVER);
    assert!(report.in_time);
    assert_eq!((report.n_closed, report.n_left_running, report.n_failed), (0, 0, 0));
    for (ticket, n) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.try_wait().expect("done").unwrap(), n * n);
    }
}

#[test]
fn drain_leaves_no_ticket_open_at_its_limit() {
    let (queue, gated) = gated(4);
    let tickets = [queue.submit(1).unwrap(), queue.submit(2).unwrap()];
    assert_eq!(gated.begun.recv(), Ok(1));
    let report = queue.drain(Duration::from_millis(5));
    assert!(!report.in_time);
    assert_eq!((report.n_closed, report.n_failed, report.n_left_running), (2, 2, 1));
    for ticket in tickets {
        assert!(matches!(ticket.try_wait().expect("resolved"), Err(JobError::Closed)));
    }
}

#[test]
fn a_dropped_ticket_drops_the_outcome_and_not_the_job() {
    let (queue, gated) = gated(1);
    drop(queue.submit(1).unwrap());
    gated.go.send(()).unwrap();
    assert!(queue.drain(NEVER).in_time);
    assert_eq!(queue.metrics().jobs_completed, 1);
    assert_eq!(queue.core.n_outcomes(), 0, "an outcome without a ticket was kept");
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}

#[test]
fn destructors_that_panic_take_nothing_with_them() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let queue = TaskQueue::builder()
        .start(move |_| {
            let gate = Arc::clone(&gate);
            Ok::<_, String>(move |bomb: Option<Bomb>| {
                let guard = gate.0.lock().unwrap();
                drop(gate.1.wait_while(guard, |open| !*open).unwrap());
                Ok::<_, String>(bomb)
            })
        })
        .unwrap();
    let running = queue.submit(Some(Bomb)).unwrap();
    let queued = queue.submit(Some(Bomb)).unwrap();
    assert!(queued.cancel());
    drop(running);
    *opened.0.lock().unwrap() = true;
    opened.1.notify_all();
    assert!(queue.submit(None).unwrap().wait().unwrap().is_none());
}

#[test]
fn a_handler_may_drop_its_own_queue() {
    let (give_queue, take_queue) = channel::<TaskQueue<(), ()>>();
    let take_queue = Mutex::new(Some(take_queue));
    let queue = TaskQueue::builder()
        .start(move |_| {
            let take_queue = take_queue.lock().unwrap().take().expect("built once");
            Ok::<_, String>(move |()| take_queue.recv().map(drop))
        })
        .unwrap();
    let ticket = queue.submit(()).unwrap();
    give_queue.send(queue).unwrap();
    ticket.wait().unwrap();
}

#[test]
fn a_worker_that_dies_answers_its_job() {
    let core: Arc<Core<u32, u32>> = Arc::new(Core::new("dying".to_owned(), 1, 1));
    let id = core.submit(1, Deadline::Never, &Deadline::Never).unwrap();
    let ticket = Ticket::new(Arc::clone(&core), id);
    match core.claim(&Deadline::Never) {
        Claimed::Job(claim, _) => drop(claim),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ticket.wait(), Err(JobError::Crashed { attempt: 1, .. })));
    assert_eq!(core.metrics().workers.busy, 0);
}

#[test]
fn a_job_that_comes_back_goes_first_and_old_answers_are_dropped() {
    let core: Arc<Core<char, char>> = Arc::new(Core::new("retrying".to_owned(), 2, 2));
    let never = &Deadline::Never;
    let ids = ['a', 'b'].map(|job| core.submit(job, Deadline::Never, never).unwrap());
    let tickets = ids.map(|id| Ticket::new(Arc::clone(&core), id));
    let Claimed::Job(first, 'a') = core.claim(never) else { panic!("jobs begin in order") };
    let lost = first.key();
    assert!(core.retry(lost, 'a'));
    assert!(!core.retry(lost, 'a'), "given up twice");
    let Claimed::Job(second, 'a') = core.claim(never) else { panic!("a job that comes back goes first") };
    assert_eq!(second.attempt(), 2);
    assert!(!first.finish(Ok('x')), "the first attempt was given up");
    assert!(second.finish(Ok('A')));
    let Claimed::Job(third, 'b') = core.claim(never) else { panic!("b was lost") };
    assert!(third.finish(Ok('B')));
    assert_eq!(tickets.map(|ticket| ticket.wait().unwrap()), ['A', 'B']);
    let metrics = core.metrics();
    assert_eq!((metrics.job_retries, metrics.late_replies_dropped), (1, 1));
}

#[test]
fn a_job_that_was_not_begun_is_not_counted_as_begun_anew() {
    let core: Core<char, char> = Core::new("passing".to_owned(), 1, 1);
    let never = &Deadline::Never;
    core.submit('a', Deadline::Never, never).unwrap();
    let claim = || match core.claim(never) {
        Claimed::Job(claim, 'a') => claim,
        other => panic!("{other:?}"),
    };
    assert!(claim().put_back('a'));
    assert_eq!(core.metrics().job_retries, 0);
    assert!(claim().retry('a'));
    assert_eq!(core.metrics().job_retries, 1);
    assert!(claim().finish(Ok('A')));
}

#[test]
fn a_queue_is_shared_and_its_tickets_travel() {
    fn shared<T: Send + Sync>() {}
    shared::<TaskQueue<Vec<u8>, std::cell::Cell<u8>>>();
    shared::<Ticket<std::cell::Cell<u8>>>();
}
