//! What the tests of faults share. Workers are this test program, started anew to run one test of it: `worker_entry`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ferroyolo_concurrency::process::faults::{self, Fault, Job, digest};
use ferroyolo_concurrency::process::{Builder, RestartPolicy, Stderr, WorkerCommand, worker};
use ferroyolo_concurrency::{JobError, ProcessPool, Ticket};
use rustix::process::{Pid, Signal, kill_process};

/// Something that hangs fails after this long, however slow the machine is.
pub const FOREVER: Duration = Duration::from_secs(120);

/// The work of a worker; by hand, the test that a program no pool started can't work.
#[test]
fn worker_entry() {
    match faults::serve() {
        Ok(()) => assert!(worker::is_worker()),
        Err(worker::ServeError::NotAWorker) => assert!(!worker::is_worker()),
        Err(error) => panic!("{error}"),
    }
}

pub fn command() -> WorkerCommand {
    WorkerCommand::current_exe()
        .expect("the path of this program")
        .args(["--exact", "support::worker_entry", "--nocapture", "--test-threads=1"])
        .stderr(Stderr::Discard)
}

/// A pool that gives nothing up for a long time and restarts as often as needed.
pub fn builder(command: WorkerCommand) -> Builder {
    ProcessPool::builder(command).restarts(RestartPolicy {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(20),
        budget: 100_000,
        ..RestartPolicy::default()
    })
}

pub fn faulty(number: u64, fault: Fault) -> Job {
    Job { fault, ..Job::new(number) }
}

pub fn submit(pool: &ProcessPool, job: &Job) -> Ticket<Vec<u8>> {
    pool.submit(job.encode()).expect("an open pool")
}

/// The outcome of a job, which has to come, and if it is a result, to be the right one.
#[track_caller]
pub fn outcome(ticket: Ticket<Vec<u8>>, job: &Job) -> Result<(), JobError> {
    let outcome = ticket.wait_timeout(FOREVER).expect("an outcome for every job");
    outcome.map(|reply| assert_eq!(reply, digest(&job.encode()), "the answer to another job"))
}

#[track_caller]
pub fn run(pool: &ProcessPool, job: &Job) -> Result<(), JobError> {
    outcome(submit(pool, job), job)
}

/// Waits for something that another process or thread does.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FOREVER, "still not: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    kill_process(pid, signal).expect("the process is there");
}

/// Whether this process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// What a process does, as the system says in one letter.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// This process' children, zombies included.
pub fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let of_mine = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(me.as_str())
    };
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(of_mine).collect()
}

pub fn n_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc/self/fd").count()
}

pub fn has_proc() -> bool {
    let has = Path::new("/proc/self/fd").exists();
    if !has {
        eprintln!("skipped: there is no /proc to count processes and descriptors by");
    }
    has
}

const ALONE_ENV: &str = "FERROYOLO_TEST_ALONE";

/// Runs `body` in a process of its own, where no other test opens descriptors or starts processes.
#[track_caller]
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var(ALONE_ENV).is_ok_and(|name| name == test) {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("the path of this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE_ENV, test)
        .stdin(Stdio::null())
        .output()
        .expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "there is no test called {test}");
}
