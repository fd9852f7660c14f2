//! What a hop to a worker process costs: the time from handing a job in to its result, less what the handler took.
//!
//! `cargo run --release -p ferroyolo-concurrency --example process_hop [n_jobs]`

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ferroyolo_concurrency::ProcessPool;
use ferroyolo_concurrency::process::{WorkerCommand, worker};

/// What a worker gets and gives: half a megabyte, as a JPEG of 1920 x 1080 pixels has, and some boxes.
const SIZES: [(usize, usize); 3] = [(64, 64), (512 << 10, 4096), (6 << 20, 4096)];

/// How long a job takes: nothing, or as long as decoding such a JPEG does. Other threads sleep meanwhile, and a machine
/// that was idle for some milliseconds takes longer to wake them.
const WORK: [Duration; 2] = [Duration::ZERO, Duration::from_millis(12)];

/// The first byte of a job says which of [`WORK`] it is; the reply begins with the time in nanoseconds that it took.
fn handler(reply_len: usize) -> impl FnMut(&[u8]) -> Result<Vec<u8>, String> {
    move |job| {
        let start = Instant::now();
        let sum = job.iter().step_by(4096).fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        let mut reply = vec![sum; reply_len];
        while start.elapsed() < WORK[usize::from(job[0])] {
            std::hint::spin_loop();
        }
        reply[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_le_bytes());
        Ok(reply)
    }
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize]
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if worker::is_worker() {
        return Ok(worker::serve(handler(args[0].parse()?))?);
    }
    let n_jobs: usize = args.first().map_or(Ok(2000), |arg| arg.parse())?;
    println!("| channel | job, bytes | result, bytes | work, ms | hop p50, ms | hop p99, ms |");
    println!("|---|---|---|---|---|---|");
    for pipes in [false, true] {
        for (job_len, reply_len) in SIZES {
            let command = WorkerCommand::current_exe()?.arg(reply_len.to_string());
            let command = if pipes { command.pipes() } else { command };
            let pool = ProcessPool::builder(command).start()?;
            for (work_idx, work) in WORK.iter().enumerate() {
                // Jobs that take long are fewer.
                let n_jobs = if work.is_zero() { n_jobs } else { n_jobs / 10 };
                let mut job = vec![7; job_len];
                job[0] = work_idx as u8;
                let mut hops = Vec::new();
                for n in 0..n_jobs + 20 {
                    // The job's bytes belong to the pool; that they are made is not part of the hop.
                    let given = black_box(job.clone());
                    let start = Instant::now();
                    let reply = pool.submit(given)?.wait()?;
                    let took = start.elapsed();
                    let (nanos, _) = reply.split_first_chunk().ok_or("a reply without its time")?;
                    if n >= 20 {
                        hops.push(took.saturating_sub(Duration::from_nanos(u64::from_le_bytes(*nanos))));
                    }
                }
                let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
                println!(
                    "| {} | {job_len} | {reply_len} | {} | {:.3} | {:.3} |",
                    if pipes { "pipes" } else { "socket" },
                    work.as_millis(),
                    ms(percentile(&mut hops, 0.5)),
                    ms(percentile(&mut hops, 0.99)),
                );
            }
        }
    }
    Ok(())
}
