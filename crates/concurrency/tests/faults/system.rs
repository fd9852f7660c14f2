//! Faults that concern whole processes: parents that die, descriptors that run out, signals.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ferroyolo_concurrency::JobError;
use ferroyolo_concurrency::process::faults::{Fault, Job};
use ferroyolo_concurrency::process::signals::{Request, Shutdown};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::support::{
    alone, builder, children, command, faulty, has_proc, is_alive, n_descriptors, outcome, run, signal,
    submit, until,
};

const PARENT_ENV: &str = "FERROYOLO_TEST_PARENT";

/// A process with a pool, which says on standard output how it goes.
struct Parent {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Parent {
    fn start(role: &str) -> Parent {
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .args(["--exact", "system::parent_entry", "--nocapture", "--test-threads=1"])
            .env(PARENT_ENV, role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Parent { child, lines }
    }

    /// What follows `key` on the next line that has it.
    fn read(&mut self, key: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            if let Some((_, rest)) = line.split_once(key) {
                return rest.trim().to_owned();
            }
        }
        panic!("the parent ended without saying {key:?}");
    }

    fn pids(&mut self) -> Vec<u32> {
        self.read("pids:").split(' ').map(|pid| pid.parse().expect("a number")).collect()
    }

    fn signal(&self, signal: Signal) {
        crate::support::signal(self.child.id(), signal);
    }
}

fn say(text: &str) {
    // The harness writes to the same stream, without ending its line.
    println!("\n{text}");
}

/// The work of a [`Parent`]; by hand, the test that signals are not made up.
#[test]
fn parent_entry() {
    let role = std::env::var(PARENT_ENV).unwrap_or_default();
    let pool = builder(command()).workers(3).capacity(100).start().unwrap();
    match role.as_str() {
        "" => {
            let shutdown = Shutdown::install().unwrap();
            assert_eq!(shutdown.requested(), None);
            run(&pool, &Job::new(0)).unwrap();
        }
        "killed" => {
            let _stopped = submit(&pool, &faulty(0, Fault::StopItself));
            let _loops = submit(&pool, &faulty(1, Fault::LoopForever));
            until("two run and one is ready", || {
                let metrics = pool.metrics();
                metrics.n_running == 2 && metrics.workers.idle == 1
            });
            until("one is stopped", || {
                pool.pids().iter().any(|pid| {
                    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") T ")
                })
            });
            let pids: Vec<String> = pool.pids().iter().map(ToString::to_string).collect();
            say(&format!("pids: {}", pids.join(" ")));
            std::thread::sleep(Duration::from_secs(600));
        }
        "drained" | "hangs" => {
            let shutdown = Shutdown::install().unwrap();
            let fault = if role == "hangs" { Fault::LoopForever } else { Fault::None };
            let mut accepted = Vec::new();
            let mut n_refused = 0;
            for number in 0.. {
                let job = Job { delay_ms: 5, ..faulty(number, fault) };
                match pool.try_submit(job.encode()) {
                    Ok(ticket) => accepted.push((ticket, job)),
                    Err(rejected) => {
                        assert!(!rejected.is_closed());
                        n_refused += 1;
                    }
                }
                if number == 200 {
                    until("all workers are there", || pool.pids().len() == 3);
                    let pids: Vec<String> = pool.pids().iter().map(ToString::to_string).collect();
                    say(&format!("pids: {}", pids.join(" ")));
                }
                if let Some(request) = shutdown.requested() {
                    assert_eq!(request, Request::Terminate);
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            say("draining: now");
            pool.close();
            assert!(pool.submit(Vec::new()).is_err_and(|rejected| rejected.is_closed()));
            let report = pool.drain(Duration::from_secs(600));
            assert!(report.in_time, "{report:?}");
            let n_accepted = accepted.len();
            for (ticket, job) in accepted {
                outcome(ticket, &job).unwrap();
            }
            assert!(children().is_empty());
            say(&format!("done: {n_accepted} {n_refused}"));
        }
        other => panic!("there is no role {other:?}"),
    }
}

#[test]
fn f07_no_worker_outlives_its_parent() {
    if !has_proc() {
        return;
    }
    let mut parent = Parent::start("killed");
    let pids = parent.pids();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let start = Instant::now();
    parent.signal(Signal::KILL);
    parent.child.wait().unwrap();
    until("no orphan is left", || !pids.iter().any(|pid| is_alive(*pid)));
    eprintln!("all workers were gone {} ms after their parent was killed", start.elapsed().as_millis());
}

#[test]
fn f08_a_thousand_restarts_leave_nothing() {
    if !has_proc() {
        return;
    }
    alone("system::f08_a_thousand_restarts_leave_nothing", || {
        let count = || {
            let pool = builder(command()).workers(2).retries(0).start().unwrap();
            run(&pool, &Job::new(0)).unwrap();
            pool
        };
        // What the first pool makes the process keep for good is no leak.
        drop(count());
        let n_before = n_descriptors();
        let pool = count();
        for number in 1..=1000 {
            let fault = if number % 2 == 0 { Fault::Exit } else { Fault::Sigkill };
            let error = run(&pool, &faulty(number, fault)).unwrap_err();
            assert!(matches!(error, JobError::Crashed { .. }), "{error}");
        }
        let metrics = pool.metrics();
        assert_eq!(metrics.worker_restarts.get("crashed"), Some(&1000), "{metrics}");
        until("two workers and no zombie are there", || children().len() == 2);
        assert!(children().iter().all(|pid| is_alive(*pid)));
        drop(pool);
        assert!(children().is_empty(), "processes are left: {:?}", children());
        until("no descriptor is left", || n_descriptors() == n_before);
    });
}

#[test]
fn f09_a_signal_under_load_lets_accepted_jobs_finish() {
    if !has_proc() {
        return;
    }
    let mut parent = Parent::start("drained");
    let pids = parent.pids();
    parent.signal(Signal::TERM);
    let counts = parent.read("done:");
    assert!(parent.child.wait().unwrap().success());
    until("no worker is left", || !pids.iter().any(|pid| is_alive(*pid)));
    let (n_accepted, n_refused) = counts.split_once(' ').expect("two counts");
    assert!(n_accepted.parse::<u32>().unwrap() > 0 && n_refused.parse::<u32>().unwrap() > 0, "{counts}");
}

#[test]
fn f09_a_second_signal_ends_it_at_once() {
    if !has_proc() {
        return;
    }
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut parent = Parent::start("hangs");
        let pids = parent.pids();
        parent.signal(Signal::TERM);
        parent.read("draining:");
        parent.signal(signal);
        assert_eq!(parent.child.wait().unwrap().code(), Some(code));
        until("no worker is left", || !pids.iter().any(|pid| is_alive(*pid)));
    }
}

#[test]
fn f14_running_out_of_descriptors_loses_nothing() {
    if !has_proc() {
        return;
    }
    alone("system::f14_running_out_of_descriptors_loses_nothing", || {
        let pool = builder(command()).workers(2).retries(5).quarantine_after(9).start().unwrap();
        run(&pool, &Job::new(0)).unwrap();
        until("both workers are there", || pool.pids().len() == 2 && pool.metrics().workers.idle == 2);
        let limit = getrlimit(Resource::Nofile);
        // Nobody can be started any more, neither here nor there.
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
        for pid in pool.pids() {
            signal(pid, Signal::KILL);
        }
        let jobs: Vec<Job> = (1..20).map(Job::new).collect();
        let tickets: Vec<_> = jobs[..10].iter().map(|job| submit(&pool, job)).collect();
        until("starts have failed", || {
            pool.metrics().worker_restarts.get("not_started").is_some_and(|n| *n >= 3)
        });
        assert_eq!(pool.metrics().jobs_completed, 1);
        setrlimit(Resource::Nofile, limit).unwrap();
        for (ticket, job) in tickets.into_iter().zip(&jobs) {
            outcome(ticket, job).unwrap();
        }
        assert!(pool.metrics().is_balanced());
    });
}
