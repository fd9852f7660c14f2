//! What a queue does when ten times as many pictures come as it can serve:
//!
//! ```text
//! cargo run --release -p ferroyolo-benches --bin overload [threads|processes] [n_accepted]
//! ```
//!
//! One thread hands pictures in at ten times the rate that the workers were measured to serve, whatever becomes of
//! them, until `n_accepted` were taken (10,000 unless given). Those that find no place are refused. Printed are how long
//! a refusal took, how long the accepted ones took from being handed in to their boxes, the bound that the queue's depth
//! sets to that, and memory after a tenth of the jobs and at the end.

use std::collections::VecDeque;
use std::env;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::engine::{Picture, ProcessPredictor, SubmitError, serve};
use ferroyolo_concurrency::process::{ProcessPool, WorkerCommand, worker};
use ferroyolo_concurrency::{AppError, Rejected, TaskQueue};

/// Jobs that may wait.
const CAPACITY: usize = 16;

/// How many times too many jobs come.
const OVERLOAD: f64 = 10.0;

/// Side of the network's input in pixels.
const SIDE: usize = 160;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/cli/assets/demo.safetensors");
const SAMPLE: &[u8] = include_bytes!("../crates/cli/assets/sample.png");

/// Somebody who takes a job if there is a place, and gives a way to wait for it.
type TrySubmit = dyn Fn() -> Result<Option<Wait>, AppError>;
type Wait = Box<dyn FnOnce() -> Result<(), AppError> + Send>;

fn main() -> Result<(), AppError> {
    if worker::is_worker() {
        return Ok(serve(model)?);
    }
    let args: Vec<String> = env::args().skip(1).collect();
    let way = args.first().map_or("threads", String::as_str);
    let n_accepted = args.get(1).map_or(Ok(10_000), |arg| arg.parse())?;
    let n_workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let submit = match way {
        "threads" => threads(n_workers)?,
        "processes" => processes(n_workers)?,
        other => return Err(format!("got {other}, expected threads or processes").into()),
    };
    run(way, n_workers, n_accepted, &*submit)
}

fn model() -> ferroyolo::Result<Model> {
    Model::open(MODEL, &ModelOptions { threads: Some(1), ..ModelOptions::default() })
}

fn options() -> PredictOptions {
    PredictOptions { imgsz: Some([SIDE, SIDE]), ..PredictOptions::default() }
}

fn threads(n_workers: usize) -> Result<Box<TrySubmit>, AppError> {
    let (model, image) = (model()?, Arc::new(Image::decode(SAMPLE)?));
    let queue = TaskQueue::builder().capacity(CAPACITY).workers(n_workers).start(move |_| {
        let mut session = model.session();
        Ok::<_, AppError>(move |image: Arc<Image>| session.predict(&[&image], &options()).map(drop))
    })?;
    Ok(Box::new(move || match queue.try_submit(Arc::clone(&image)) {
        Ok(ticket) => Ok(Some(Box::new(move || Ok(ticket.wait()?)))),
        Err(Rejected::Full(_)) => Ok(None),
        Err(rejected) => Err(rejected.to_string().into()),
    }))
}

fn processes(n_workers: usize) -> Result<Box<TrySubmit>, AppError> {
    let command = WorkerCommand::current_exe()?;
    let pool = ProcessPool::builder(command).capacity(CAPACITY).workers(n_workers).start()?;
    let predictor = ProcessPredictor::new(pool);
    let (picture, options) = ([Picture::Encoded(SAMPLE.to_vec())], options());
    Ok(Box::new(move || match predictor.try_submit(&picture, &options) {
        Ok(ticket) => Ok(Some(Box::new(move || {
            ticket.wait()?.remove(0)?;
            Ok(())
        }))),
        Err(SubmitError::Rejected(Rejected::Full(_))) => Ok(None),
        Err(error) => Err(error.to_string().into()),
    }))
}

fn run(way: &str, n_workers: usize, n_accepted: usize, submit: &TrySubmit) -> Result<(), AppError> {
    let service = service_time(n_workers, submit)?;
    let gap = service.div_f64(OVERLOAD);

    // Tickets are waited for in order, which is the order in which jobs begin.
    let (sender, tickets) = channel::<(Instant, Wait)>();
    let waiter = thread::spawn(move || {
        // Written beforehand, so that the growth of the figures is not taken for that of the queue.
        let mut latencies = vec![Duration::MAX; n_accepted];
        for ((submitted, wait), latency) in tickets.into_iter().zip(&mut latencies) {
            wait()?;
            *latency = submitted.elapsed();
        }
        Ok::<_, AppError>(latencies)
    });
    let (mut refusals, mut n_refused) = (vec![Duration::MAX; n_accepted], 0);
    let mut n_taken = 0;
    let mut memory = None;
    let begin = Instant::now();
    let mut at = begin;
    while n_taken < n_accepted {
        at += gap;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        match submit()? {
            Some(wait) => {
                n_taken += 1;
                sender.send((start, wait)).map_err(|_| "a job failed")?;
            }
            None => {
                // The last ones stand for all.
                refusals[n_refused % n_accepted] = start.elapsed();
                n_refused += 1;
            }
        }
        if n_taken == n_accepted / 10 && memory.is_none() {
            memory = Some(resident_kib());
        }
    }
    drop(sender);
    let overloaded = begin.elapsed() / u32::try_from(n_accepted)?;
    let mut latencies = waiter.join().map_err(|_| "a thread panicked")??;
    let after = resident_kib();

    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let offered = n_accepted + n_refused;
    refusals.truncate(n_refused);
    // Whoever is accepted last waits for all places before it, and is served then.
    let bound = overloaded * (CAPACITY + n_workers) as u32;
    println!(
        "{way}: {n_workers} workers, {CAPACITY} places; {:.2} ms between results at full load, {:.2} ms under overload",
        ms(service),
        ms(overloaded),
    );
    println!(
        "offered {offered}, accepted {n_accepted}, refused {} ({:.1} times the load)",
        n_refused,
        offered as f64 / n_accepted as f64
    );
    println!(
        "refusal: p50 {:.4} ms, p99 {:.4} ms",
        ms(share(&mut refusals, 0.5)),
        ms(share(&mut refusals, 0.99))
    );
    println!(
        "accepted: p50 {:.1} ms, p99 {:.1} ms; queue depth x service time {:.1} ms",
        ms(share(&mut latencies, 0.5)),
        ms(share(&mut latencies, 0.99)),
        ms(bound),
    );
    if let Some((before, after)) = memory.flatten().zip(after) {
        println!("memory: {before} KiB after a tenth of the jobs, {after} KiB at the end");
    }
    Ok(())
}

/// Time between two results while all workers are busy, from 200 jobs.
fn service_time(n_workers: usize, submit: &TrySubmit) -> Result<Duration, AppError> {
    let mut waiting: VecDeque<Wait> = VecDeque::new();
    let mut start = Instant::now();
    for n in 0..250 {
        if n == 50 {
            start = Instant::now();
        }
        while waiting.len() >= 2 * n_workers {
            waiting.pop_front().ok_or("no job")?()?;
        }
        waiting.push_back(submit()?.ok_or("refused without need")?);
    }
    Ok(start.elapsed() / 200)
}

/// The value that this share of the times does not exceed.
fn share(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times.get(((times.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default()
}

/// This process' resident memory, where the system tells it.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
