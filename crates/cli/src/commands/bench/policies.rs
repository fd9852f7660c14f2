//! `ferroyolo bench --policies`: the ways of sharing a model among workers, beside each other.
//!
//! Each way is measured in a process of its own, so that memory is told apart, with one worker and with all of them, in
//! turns. As many callers as there are workers hand in an encoded picture, wait for its boxes, and hand in the next.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use ferroyolo::{Image, Model, PredictOptions};
use ferroyolo_concurrency::engine::{Policy, Predictor};
use serde::{Deserialize, Serialize};

use super::{Latency, peak_rss_bytes, picture_bytes, rounded};
use crate::args::{Bench, ModelArgs, Way, model_args};
use crate::commands::input_size;
use crate::crew::{ProcessCrew, Sharing, Staffing};
use crate::error::{Error, Outcome, Result};
use crate::model;
use crate::output::console::{self, Progress};
use crate::output::file::refuse_to_overwrite;
use crate::output::json::{JsonSink, is_stdout, print_line};

/// Turns over all ways; figures are medians.
const N_ROUNDS: usize = 5;

/// All ways, named as they are printed.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    imgsz: [usize; 2],
    workers: usize,
    threads_per_worker: usize,
    runs: usize,
    rounds: usize,
    policies: Vec<Row>,
}

/// One way of sharing.
#[derive(Debug, Serialize)]
struct Row {
    policy: String,
    images_per_second: f64,
    /// Images per second over those of the same way with one worker: the median over rounds, in which both are
    /// neighbours, so that a machine that is slow for a while is slow for both.
    speedup: f64,
    /// From handing a picture in to its boxes, with all workers busy.
    latency_ms: Tail,
    /// With one worker.
    alone_ms: Tail,
    /// The most memory of all processes, pages that they share counted for each.
    peak_rss_bytes: Option<u64>,
    /// Memory of all processes, pages that they share counted once, with all workers over that with one.
    further_worker_bytes: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tail {
    p50: f64,
    p99: f64,
}

/// What one process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    threads: usize,
    images_per_second: f64,
    latency_ms: Tail,
    peak_rss_bytes: Option<u64>,
    memory_bytes: Option<u64>,
}

/// Measures all ways that are asked for, each in processes of its own, and prints.
pub fn compare(args: &Bench, ways: &[Way]) -> Result<Outcome> {
    let loaded = model::load(&args.model, args.model.threads, false)?;
    if let Some(target) = &args.json {
        refuse_to_overwrite("--json", target, loaded.path.as_deref())?;
    }
    let n_cpus = thread::available_parallelism().map_or(1, usize::from);
    let n_workers = args.workers.unwrap_or(n_cpus);
    let threads = args.model.threads.unwrap_or((n_cpus / n_workers).max(1));
    let imgsz = input_size(args.imgsz, &loaded.model);
    let model_args = loaded.args_for_others(&args.model);
    let name = loaded.name;
    drop(loaded.model);

    let counts = if n_workers > 1 { vec![1, n_workers] } else { vec![1] };
    let mut measured: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
    let progress = Progress::new(Some(N_ROUNDS * ways.len() * counts.len()), true);
    for _ in 0..N_ROUNDS {
        for (idx, &way) in ways.iter().enumerate() {
            for &n in &counts {
                let figures = measure_apart(args, &model_args, way, n, threads)?;
                measured.entry((idx, n)).or_default().push(figures);
                progress.step();
            }
        }
    }
    drop(progress);
    let row = |(idx, way): (usize, &Way)| {
        Row::of(*way, &measured[&(idx, 1)], &measured[&(idx, n_workers)], n_workers)
    };
    let report = Report {
        model: name,
        imgsz,
        workers: n_workers,
        threads_per_worker: threads,
        runs: args.runs,
        rounds: N_ROUNDS,
        policies: ways.iter().enumerate().map(row).collect(),
    };
    if !args.json.as_deref().is_some_and(is_stdout) {
        print_line(&table(&report))?;
        notes(ways);
    }
    if let Some(target) = &args.json {
        JsonSink::open(target, loaded.path.as_deref())?.write(&report)?;
    }
    Ok(Outcome::Done)
}

/// Measures one way in this process and prints the figures for the process that compares.
pub fn measure_here(args: &Bench, way: Way) -> Result<Outcome> {
    let n_workers = args.workers.unwrap_or(1);
    let bytes = picture_bytes(args)?;
    let loaded = model::load(&args.model, args.model.threads, true)?;
    let threads = loaded.model.threads();
    // The full input, so that every picture costs the same.
    let imgsz = Some(input_size(args.imgsz, &loaded.model));
    let options = PredictOptions { imgsz, rect: false, ..PredictOptions::default() };
    let open = |bytes: &[u8]| Image::decode(bytes).map_err(Error::from);
    let measured = match way {
        Way::Policy(Sharing::Threads(policy)) => {
            let n_sessions = n_workers.try_into().map_err(|_| Error::failed("no workers"))?;
            let predictor = Predictor::new(&loaded.model, policy, n_sessions);
            let call = |_: usize| {
                let image = open(&bytes)?;
                predictor
                    .predict(&[&image], &options)
                    .map(drop)
                    .map_err(|error| Error::failed(error.to_string()))
            };
            measure(args, n_workers, threads, Vec::new, call)?
        }
        Way::Policy(Sharing::Processes) => {
            drop(loaded);
            let staffing =
                Staffing { sharing: Sharing::Processes, n_workers, threads: Some(threads), batch: 1 };
            let crew = ProcessCrew::start(&args.model, staffing, &options, false)?;
            measure(args, n_workers, threads, || crew.pool().pids(), |_| crew.call(&bytes))?
        }
        Way::SeparateModels => {
            drop(loaded);
            let load = |_| model::load(&args.model, Some(threads), true).map(|loaded| loaded.model);
            let models = (0..n_workers).map(load).collect::<Result<Vec<Model>>>()?;
            let call = |caller: usize| {
                models[caller].predict(&open(&bytes)?, &options).map(drop).map_err(Error::from)
            };
            measure(args, n_workers, threads, Vec::new, call)?
        }
    };
    let line = serde_json::to_string(&measured).map_err(|error| Error::named("json", error))?;
    print_line(&line)?;
    Ok(Outcome::Done)
}

/// Lets `n_callers` call at the same time. `others` are processes whose memory counts.
fn measure(
    args: &Bench,
    n_callers: usize,
    threads: usize,
    others: impl Fn() -> Vec<u32>,
    call: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Measured> {
    // Callers wait for each other before the timed calls, and after them until memory was read: what belongs to a thread
    // ends with it. Whoever failed waits as well, so that nobody waits for ever.
    let (warm, done, read) =
        (Barrier::new(n_callers), Barrier::new(n_callers + 1), Barrier::new(n_callers + 1));
    let timed = |caller: usize| {
        let warmed =
            catch_unwind(AssertUnwindSafe(|| (0..args.warmup.max(1)).try_for_each(|_| call(caller))));
        warm.wait();
        warmed.unwrap_or_else(|panic| resume_unwind(panic))?;
        let start = Instant::now();
        let mut times_ms = Vec::with_capacity(args.runs);
        for _ in 0..args.runs {
            let start = Instant::now();
            call(caller)?;
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok((times_ms, start, Instant::now()))
    };
    let run = |caller: usize| {
        let outcome = catch_unwind(AssertUnwindSafe(|| timed(caller)));
        done.wait();
        read.wait();
        outcome.unwrap_or_else(|_| Err(Error::failed("a caller panicked")))
    };
    let (outcomes, peak_rss_bytes, memory_bytes) = thread::scope(|scope| {
        let run = &run;
        let callers: Vec<_> = (0..n_callers).map(|caller| scope.spawn(move || run(caller))).collect();
        done.wait();
        let others = others();
        let sum = |own: Option<u64>, of: fn(&str) -> Option<u64>| {
            others.iter().try_fold(own?, |sum, pid| Some(sum + of(&pid.to_string())?))
        };
        let memory = (sum(peak_rss_bytes(), super::peak_rss_of), sum(memory_of("self"), memory_of));
        read.wait();
        let join = |caller: thread::ScopedJoinHandle<'_, _>| {
            caller.join().unwrap_or_else(|_| Err(Error::failed("a caller panicked")))
        };
        let outcomes: Vec<Result<_>> = callers.into_iter().map(join).collect();
        (outcomes, memory.0, memory.1)
    });
    let mut times_ms = Vec::new();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let (times, start, end) = outcome?;
        times_ms.extend(times);
        starts.push(start);
        ends.push(end);
    }
    let seconds = match (starts.iter().min(), ends.iter().max()) {
        (Some(&start), Some(&end)) => (end - start).as_secs_f64(),
        _ => return Err(Error::failed("nobody called")),
    };
    let images_per_second = rounded(times_ms.len() as f64 / seconds);
    Ok(Measured { threads, images_per_second, latency_ms: Tail::of(times_ms), peak_rss_bytes, memory_bytes })
}

/// Memory of a process in bytes, where the system tells it; of what it shares with others only its part.
fn memory_of(pid: &str) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn measure_apart(
    args: &Bench,
    model: &ModelArgs,
    way: Way,
    n_workers: usize,
    threads: usize,
) -> Result<Measured> {
    let program = std::env::current_exe().map_err(|error| Error::named("this program", error))?;
    let mut command = Command::new(program);
    command.arg("bench").args(model_args(model, Some(threads)));
    command.args(["--runs", &args.runs.to_string(), "--warmup", &args.warmup.to_string()]);
    command.args(["--workers", &n_workers.to_string(), "--way", &way.to_string()]);
    if let Some(imgsz) = &args.imgsz {
        command.args(["--imgsz", &imgsz.to_string()]);
    }
    if let Some(source) = &args.source {
        command.arg("--source").arg(source);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let failed = |what: String| Error::failed(format!("{way} with {n_workers} worker(s): {what}"));
    let output = output.map_err(|error: io::Error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("no figures: {error}")))
}

impl Tail {
    fn of(times_ms: Vec<f64>) -> Self {
        let latency = Latency::of(times_ms);
        Self { p50: latency.p50, p99: latency.p99 }
    }
}

impl Row {
    /// Medians of the rounds with one worker and with `n_workers`.
    fn of(way: Way, one: &[Measured], all: &[Measured], n_workers: usize) -> Self {
        let median =
            |rounds: &[Measured], of: fn(&Measured) -> f64| Latency::of(rounds.iter().map(of).collect()).p50;
        let tail = |rounds| Tail {
            p50: median(rounds, |round| round.latency_ms.p50),
            p99: median(rounds, |round| round.latency_ms.p99),
        };
        let memory = |rounds: &[Measured]| {
            let known = rounds.iter().all(|round| round.memory_bytes.is_some());
            known.then(|| median(rounds, |round| round.memory_bytes.unwrap_or_default() as f64))
        };
        let further = memory(one).zip(memory(all)).filter(|_| n_workers > 1);
        let images_per_second = median(all, |round| round.images_per_second);
        let speedups = all.iter().zip(one).map(|(all, one)| all.images_per_second / one.images_per_second);
        let speedup = Latency::of(speedups.collect()).p50;
        Self {
            policy: way.to_string(),
            images_per_second,
            speedup,
            latency_ms: tail(all),
            alone_ms: tail(one),
            peak_rss_bytes: all.iter().filter_map(|round| round.peak_rss_bytes).max(),
            further_worker_bytes: further.map(|(one, all)| ((all - one) / (n_workers - 1) as f64) as i64),
        }
    }
}

fn table(report: &Report) -> String {
    let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let [h, w] = report.imgsz;
    let mut text = format!(
        "{}  {h}x{w}  {} worker(s) of {} thread(s)  medians of {} rounds of {} images for each caller\n\
         {:<16}{:>10}{:>10}{:>10}{:>10}{:>12}{:>12}{:>14}",
        report.model,
        report.workers,
        report.threads_per_worker,
        report.rounds,
        report.runs,
        "policy",
        "images/s",
        "speedup",
        "p50 ms",
        "p99 ms",
        "alone p50",
        "peak MiB",
        "MiB a worker",
    );
    for row in &report.policies {
        text += &format!(
            "\n{:<16}{:>10.1}{:>9.2}x{:>10.2}{:>10.2}{:>12.2}{:>12}{:>14}",
            row.policy,
            row.images_per_second,
            row.speedup,
            row.latency_ms.p50,
            row.latency_ms.p99,
            row.alone_ms.p50,
            or_dash(row.peak_rss_bytes.map(|bytes| mib(bytes as f64))),
            or_dash(row.further_worker_bytes.map(|bytes| mib(bytes as f64))),
        );
    }
    text
}

/// Says what the figures can't.
fn notes(ways: &[Way]) {
    console::notice("speedup: over the same policy with one worker; a worker: memory of each further one");
    if ways.contains(&Way::Policy(Sharing::Threads(Policy::Locked))) {
        console::notice(
            "locked: one call at a time, so further callers only wait; more --threads make it faster",
        );
    }
    if ways.contains(&Way::Policy(Sharing::Processes)) {
        console::notice("process: each worker has its own copy of the weights, and pictures travel to it");
    }
    if ways.contains(&Way::SeparateModels) {
        console::notice("separate-models: a model of its own for each worker, for comparison");
    }
}
