//! What a hop to a worker process costs: the same handler, called here and in a worker.
//!
//! `cargo run --release -p ferroyolo-concurrency --example process_hop [n_jobs]`

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ferroyolo_concurrency::ProcessPool;
use ferroyolo_concurrency::process::{WorkerCommand, worker};

/// What a worker gets and gives: half a megabyte, as a JPEG of 1920 x 1080 pixels has, and some boxes.
const SIZES: [(usize, usize); 3] = [(64, 64), (512 << 10, 4096), (6 << 20, 4096)];

fn handler(reply_len: usize) -> impl FnMut(&[u8]) -> Result<Vec<u8>, String> {
    move |job| Ok(vec![job.iter().step_by(4096).fold(0, |sum: u8, byte| sum.wrapping_add(*byte)); reply_len])
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
    println!("| channel | job, bytes | result, bytes | here p50, ms | hop p50, ms | hop p99, ms |");
    println!("|---|---|---|---|---|---|");
    for pipes in [false, true] {
        for (job_len, reply_len) in SIZES {
            let mut here = handler(reply_len);
            let command = WorkerCommand::current_exe()?.arg(reply_len.to_string());
            let command = if pipes { command.pipes() } else { command };
            let pool = ProcessPool::builder(command).start()?;
            let mut direct = Vec::new();
            let mut hops = Vec::new();
            let mut job = vec![7; job_len];
            for n in 0..n_jobs + 20 {
                job[0] = n as u8;
                let start = Instant::now();
                black_box(here(black_box(&job))?);
                let took_here = start.elapsed();
                // The job's bytes belong to the pool; that they are made is not part of the hop.
                let given = job.clone();
                let start = Instant::now();
                let reply = pool.submit(given)?.wait()?;
                let took_hop = start.elapsed();
                assert_eq!(reply, here(&job)?);
                if n >= 20 {
                    direct.push(took_here);
                    hops.push(took_hop.saturating_sub(took_here));
                }
            }
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            println!(
                "| {} | {job_len} | {reply_len} | {:.3} | {:.3} | {:.3} |",
                if pipes { "pipes" } else { "socket" },
                ms(percentile(&mut direct, 0.5)),
                ms(percentile(&mut hops, 0.5)),
                ms(percentile(&mut hops, 0.99)),
            );
        }
    }
    Ok(())
}
