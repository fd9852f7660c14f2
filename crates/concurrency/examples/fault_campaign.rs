//! Thousands of jobs, every tenth of which makes its worker misbehave, in an order drawn from a seed; then what is left
//! is counted. Linux only.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features fault-injection --example fault_campaign -- \
//!     [--jobs 10000] [--workers 4] [--seed S] [--short | --throughput]
//! ```
//!
//! Exits with 1 if a job is lost or has another's answer, or if a process, a zombie or a descriptor is left. `--short`
//! is for continuous integration: 1,500 jobs, and no comparison of throughput; `--throughput` compares and does nothing
//! else. The comparison means something only on a machine that is otherwise idle: where others compete for it, a worker
//! that is being started is a share of the machine lost.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use ferroyolo_concurrency::process::faults::{self, Fault, Job, ONCE_ENV, digest, spin};
use ferroyolo_concurrency::process::{Builder, Limits, RestartPolicy, Stderr, WorkerCommand, worker};
use ferroyolo_concurrency::{JobError, ProcessPool, Rejected, Ticket};
use rustix::process::{Pid, Signal, kill_process};

/// One job of so many is told to misbehave.
const ONE_FAULT_IN: u64 = 8;

/// One job of so many is cancelled.
const ONE_CANCELLED_IN: u64 = 61;

/// Workers that one input may kill; the pool's default.
const KILLS: u32 = 2;

/// Of so many good jobs one worker is killed from outside, at whatever it is.
const ONE_HIT_IN: u64 = 40;

/// A job that has no outcome after this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(120);

/// When an attempt is given up, and when a silent worker. Much for jobs of some milliseconds: others load the machine.
const DEADLINE: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(2);

/// What a job computes, about.
const JOB: Duration = Duration::from_millis(5);

struct Options {
    n_jobs: u64,
    n_workers: usize,
    seed: u64,
    part: Part,
}

#[derive(PartialEq, Eq)]
enum Part {
    All,
    Short,
    Throughput,
}

impl Options {
    fn parse() -> Result<Options, Box<dyn Error>> {
        let seed = RandomState::new().hash_one(0);
        let mut options = Options { n_jobs: 10_000, n_workers: 4, seed, part: Part::All };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--jobs" => options.n_jobs = value()?.parse()?,
                "--workers" => options.n_workers = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--short" => (options.n_jobs, options.part) = (1500, Part::Short),
                "--throughput" => options.part = Part::Throughput,
                _ => return Err(format!("there is no option {arg:?}").into()),
            }
        }
        Ok(options)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The faults to draw from, and how often each. Those that cost a time limit are rare.
const FAULTS: [(Fault, u64); 20] = [
    (Fault::Sigkill, 10),
    (Fault::Segfault, 8),
    (Fault::Abort, 8),
    (Fault::StackOverflow, 4),
    (Fault::Exit, 8),
    (Fault::Panic, 8),
    (Fault::Error, 6),
    (Fault::OutOfMemory, 5),
    (Fault::LoopForever, 2),
    (Fault::StopItself, 2),
    (Fault::Garbage, 5),
    (Fault::Truncated, 5),
    (Fault::Oversized, 5),
    (Fault::WrongChecksum, 4),
    (Fault::WrongJob, 4),
    (Fault::WrongGeneration, 4),
    (Fault::UnknownKind, 4),
    (Fault::UnexpectedKind, 4),
    (Fault::AnswerTwice, 6),
    (Fault::CloseChannel, 4),
];

fn draw(number: u64, n_rounds: u32, random: &mut Random) -> Job {
    let mut job = Job { n_rounds, ballast: random.below(20_000) as usize, ..Job::new(number) };
    if random.below(ONE_FAULT_IN) == 0 {
        let mut at = random.below(FAULTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in FAULTS {
            if at < weight {
                job.fault = fault;
                break;
            }
            at -= weight;
        }
        job.is_once = random.below(2) == 0;
    }
    job
}

/// Whether this is how such a job has to end.
fn is_right(job: &Job, outcome: &Result<Vec<u8>, JobError>) -> bool {
    match (job.fault, outcome) {
        (Fault::None | Fault::AnswerTwice, outcome) => outcome.is_ok(),
        (Fault::Error, Err(JobError::App(error))) => error.to_string() == "a handler's error",
        (Fault::Panic, Err(JobError::Panicked(message))) => message == "a handler that panics",
        (Fault::OutOfMemory, Err(JobError::OutOfMemory)) => true,
        (Fault::LoopForever, Err(JobError::Timeout)) => true,
        (Fault::Error | Fault::Panic | Fault::OutOfMemory | Fault::LoopForever, _) => false,
        (_, Ok(_)) => job.is_once,
        (_, Err(JobError::Quarantined { kills })) => !job.is_once && *kills == KILLS,
        _ => false,
    }
}

/// What went wrong, by kind, with an example of each.
#[derive(Default)]
struct Violations(BTreeMap<&'static str, (u64, String)>);

impl Violations {
    fn add(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        self.0.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    fn count(&self, what: &str) -> u64 {
        self.0.get(what).map_or(0, |(n, _)| *n)
    }
}

const LOST: &str = "jobs without an outcome";
const FOREIGN: &str = "answers that belong to another job";
const WRONG: &str = "outcomes of another kind than the fault's";
const TWICE: &str = "jobs that were counted more or less than once";
const ORPHANS: &str = "processes left";
const ZOMBIES: &str = "zombies left";
const DESCRIPTORS: &str = "descriptors left";

fn builder(command: &WorkerCommand, n_workers: usize) -> Builder {
    ProcessPool::builder(command.clone()).workers(n_workers).capacity(64).restarts(RestartPolicy {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(10),
        budget: u32::MAX,
        ..RestartPolicy::default()
    })
}

/// How many rounds of [`spin`] take as long as a job should.
fn calibrate() -> u32 {
    let time = |n_rounds| {
        let start = Instant::now();
        spin(n_rounds);
        start.elapsed().as_secs_f64() / f64::from(n_rounds)
    };
    let fastest = (0..20).map(|_| time(500)).fold(f64::INFINITY, f64::min);
    (JOB.as_secs_f64() / fastest) as u32
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if worker::is_worker() {
        faults::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse()?;
    let n_rounds = calibrate();
    println!("seed: {}", options.seed);
    println!(
        "{} jobs of about {} ms ({n_rounds} rounds) on {} workers",
        options.n_jobs,
        JOB.as_millis(),
        options.n_workers
    );
    let folder = tempfile::tempdir()?;
    // By this argument the workers of this run are known to be its own.
    let token = format!("campaign-of-{}", std::process::id());
    let command =
        WorkerCommand::current_exe()?.arg(&token).env(ONCE_ENV, folder.path()).stderr(Stderr::Discard);
    let mut violations = Violations::default();

    // What the first pool makes a process keep for good is no leak.
    drop(builder(&command, 1).start()?.submit(Job::new(0).encode())?.wait()?);
    let n_descriptors = count_descriptors()?;
    if options.part != Part::Throughput {
        misbehaving_jobs(&options, n_rounds, &command, &mut violations)?;
        hits_from_outside(&options, n_rounds, &command, &mut violations)?;
        count_what_is_left(&token, n_descriptors, &mut violations)?;
    }
    if options.part != Part::Short {
        compare_throughput(&options, n_rounds, &command)?;
        count_what_is_left(&token, n_descriptors, &mut violations)?;
    }

    println!("\n| what must not be | found |\n|---|---|");
    for what in [LOST, FOREIGN, WRONG, TWICE, ORPHANS, ZOMBIES, DESCRIPTORS] {
        println!("| {what} | {} |", violations.count(what));
    }
    for (what, (_, example)) in &violations.0 {
        println!("{what}, for example: {example}");
    }
    Ok(if violations.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Jobs that misbehave among jobs that do not: each has to end as its fault says, and none may touch another.
fn misbehaving_jobs(
    options: &Options,
    n_rounds: u32,
    command: &WorkerCommand,
    violations: &mut Violations,
) -> Result<(), Box<dyn Error>> {
    let limits = Limits { address_space: Some(1 << 30), ..Limits::default() };
    let pool = builder(&command.clone().limits(limits), options.n_workers)
        .deadline(DEADLINE)
        .heartbeat(Duration::from_millis(100), SILENCE)
        .seed(options.seed)
        .start()?;
    let mut random = Random(options.seed);
    let mut tally = Outcomes::default();
    let mut open: VecDeque<(Ticket<Vec<u8>>, Job, bool)> = VecDeque::new();
    let start = Instant::now();
    for number in 0..options.n_jobs {
        let job = draw(number, n_rounds, &mut random);
        let ticket = match pool.try_submit(job.encode()) {
            Ok(ticket) => ticket,
            Err(Rejected::Full(bytes)) => {
                tally.n_full += 1;
                pool.submit(bytes)?
            }
            Err(rejected) => return Err(rejected.into()),
        };
        let is_cancelled = random.below(ONE_CANCELLED_IN) == 0 && ticket.cancel();
        open.push_back((ticket, job, is_cancelled));
        while open.len() > 256 {
            tally.take(open.pop_front(), violations);
        }
    }
    while !open.is_empty() {
        tally.take(open.pop_front(), violations);
    }
    let took = start.elapsed();
    tally.settle(&pool, options.n_jobs, violations);
    let is_fault = |(key, _): &(&(Fault, String), &u64)| key.0 != Fault::None;
    let n_faults: u64 = tally.by_fault.iter().filter(is_fault).map(|(_, n)| n).sum();
    println!("\n| fault | outcome | jobs |\n|---|---|---|");
    for ((fault, outcome), n) in &tally.by_fault {
        println!("| {fault:?} | {outcome} | {n} |");
    }
    println!("\n| jobs that misbehave | |\n|---|---|");
    println!("| jobs | {} |", options.n_jobs);
    println!("| of them told to misbehave | {n_faults} |");
    println!("| submissions refused as full, then waited for | {} |", tally.n_full);
    describe(&pool, took);
    Ok(())
}

/// Good jobs while workers are killed from outside: all of them have to have their results.
fn hits_from_outside(
    options: &Options,
    n_rounds: u32,
    command: &WorkerCommand,
    violations: &mut Violations,
) -> Result<(), Box<dyn Error>> {
    // Who is hit from outside often enough is quarantined, as the pool can't know better; that is not what is tried.
    let pool = builder(command, options.n_workers).retries(9).quarantine_after(10).start()?;
    let mut random = Random(!options.seed);
    let mut tally = Outcomes::default();
    let mut open = VecDeque::new();
    let mut n_hits = 0;
    let n_jobs = options.n_jobs / 2;
    let start = Instant::now();
    for number in 0..n_jobs {
        let job = Job { n_rounds, ballast: random.below(600_000) as usize, ..Job::new(number) };
        open.push_back((pool.submit(job.encode())?, job, false));
        while open.len() > 80 {
            tally.take(open.pop_front(), violations);
        }
        if random.below(ONE_HIT_IN) == 0 {
            let pids = pool.pids();
            let pid = pids.get(random.below(pids.len().max(1) as u64) as usize);
            let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
            // It may have been reaped just now, and its number is not given to another so soon.
            n_hits += u64::from(pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
        }
    }
    while !open.is_empty() {
        tally.take(open.pop_front(), violations);
    }
    let took = start.elapsed();
    tally.settle(&pool, n_jobs, violations);
    println!("\n| hits from outside | |\n|---|---|");
    println!("| jobs, of up to 600 kB | {n_jobs} |");
    println!("| workers killed | {n_hits} |");
    describe(&pool, took);
    Ok(())
}

fn describe(pool: &ProcessPool, took: Duration) {
    let metrics = pool.metrics();
    println!("| workers started | {} |", pool.n_started());
    for (reason, n) in &metrics.worker_restarts {
        println!("| workers that ended, {reason} | {n} |");
    }
    println!("| attempts begun again | {} |", metrics.job_retries);
    println!("| late replies dropped | {} |", metrics.late_replies_dropped);
    println!("| seconds | {:.1} |", took.as_secs_f64());
}

#[derive(Default)]
struct Outcomes {
    by_fault: BTreeMap<(Fault, String), u64>,
    n_ok: u64,
    n_full: u64,
}

impl Outcomes {
    fn take(&mut self, open: Option<(Ticket<Vec<u8>>, Job, bool)>, violations: &mut Violations) {
        let Some((ticket, job, is_cancelled)) = open else { return };
        let Ok(outcome) = ticket.wait_timeout(LOST_AFTER) else {
            violations.add(LOST, || format!("{job:?}"));
            return;
        };
        if let Ok(reply) = &outcome {
            self.n_ok += 1;
            if reply[..] != digest(&job.encode()) {
                violations.add(FOREIGN, || format!("{job:?}: {reply:?}"));
            }
        }
        let is_right =
            if is_cancelled { matches!(outcome, Err(JobError::Cancelled)) } else { is_right(&job, &outcome) };
        if !is_right {
            violations.add(WRONG, || format!("{job:?}: {outcome:?}"));
        }
        let outcome = match &outcome {
            Ok(_) => "result".to_owned(),
            Err(error) => error.kind().to_string(),
        };
        *self.by_fault.entry((job.fault, outcome)).or_default() += 1;
    }

    /// Ends the pool and compares its counts with ours.
    fn settle(&self, pool: &ProcessPool, n_jobs: u64, violations: &mut Violations) {
        let report = pool.drain(LOST_AFTER);
        let metrics = pool.metrics();
        let counted = [metrics.jobs_accepted, metrics.jobs_completed, metrics.jobs_failed.total()];
        let expected = [n_jobs, self.n_ok, n_jobs - self.n_ok];
        if !metrics.is_balanced() || counted != expected || !report.in_time {
            violations.add(TWICE, || format!("got {counted:?}, expected {expected:?}, {report:?}"));
        }
    }
}

fn count_descriptors() -> Result<usize, Box<dyn Error>> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Looks for processes of this run, zombies among its children, and descriptors.
fn count_what_is_left(
    token: &str,
    n_descriptors: usize,
    violations: &mut Violations,
) -> Result<(), Box<dyn Error>> {
    let me = std::process::id().to_string();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let cmdline = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        let (state, parent) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if cmdline.split(|byte| *byte == 0).any(|arg| arg == token.as_bytes()) {
            violations.add(ORPHANS, || stat.clone());
        } else if parent == me {
            violations.add(if state == "Z" { ZOMBIES } else { ORPHANS }, || stat.clone());
        }
    }
    // The threads that held them may be ending still.
    let start = Instant::now();
    while count_descriptors()? != n_descriptors && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(10));
    }
    let n_now = count_descriptors()?;
    if n_now != n_descriptors {
        violations.add(DESCRIPTORS, || format!("{n_descriptors} before, {n_now} after"));
    }
    Ok(())
}

/// Good jobs a second with one job of a hundred that kills its workers, against none, in turns.
fn compare_throughput(
    options: &Options,
    n_rounds: u32,
    command: &WorkerCommand,
) -> Result<(), Box<dyn Error>> {
    const N_TURNS: usize = 7;
    let n_jobs = options.n_jobs / 10;
    let mut rates = [Vec::new(), Vec::new()];
    for turn in 0..N_TURNS {
        for (with_poison, rates) in rates.iter_mut().enumerate() {
            let pool = builder(command, options.n_workers).start()?;
            // Starting is not what is compared.
            while pool.metrics().workers.idle < options.n_workers {
                thread::sleep(Duration::from_millis(1));
            }
            let start = Instant::now();
            let mut tickets = Vec::new();
            for number in 0..n_jobs {
                tickets.push(pool.submit(Job { n_rounds, ..Job::new(number) }.encode())?);
                if with_poison == 1 && number % 100 == 50 {
                    let fault = [Fault::Segfault, Fault::Abort, Fault::Sigkill][(number / 100 % 3) as usize];
                    let poison = Job { n_rounds, fault, ..Job::new(number + turn as u64 * n_jobs) };
                    // Dropped: only good jobs are counted.
                    drop(pool.submit(poison.encode())?);
                }
            }
            for ticket in tickets {
                ticket.wait()?;
            }
            rates.push(n_jobs as f64 / start.elapsed().as_secs_f64());
        }
    }
    let [clean, poisoned] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let share = 100.0 * poisoned / clean;
    println!("\n| median of {N_TURNS} turns of {n_jobs} jobs | good jobs a second |\n|---|---|");
    println!("| clean | {clean:.1} |\n| with 1 % poison | {poisoned:.1} |");
    println!(
        "| share, at least 90 % wanted | {share:.1} %: {} |",
        if share >= 90.0 { "met" } else { "missed" }
    );
    Ok(())
}
