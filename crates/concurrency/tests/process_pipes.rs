//! Workers that are talked to by pipes, as on Windows. Without the harness of other tests, which prints to standard
//! output: that is the channel here.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use ferroyolo_concurrency::process::{RestartPolicy, Stderr, WorkerCommand, worker};
use ferroyolo_concurrency::{JobError, ProcessPool, Ticket};

fn main() -> Result<(), Box<dyn Error>> {
    if worker::is_worker() {
        let served = worker::serve(|job| match job {
            b"error" => Err("an error".to_owned()),
            b"panic" => panic!("a panic"),
            b"exit" => std::process::exit(5),
            b"hang" => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            b"print" => {
                println!("what is no message, and longer than the header of one has to be");
                Ok(Vec::new())
            }
            job => Ok(job.iter().rev().copied().collect()),
        });
        std::process::exit(i32::from(served.is_err()));
    }
    answers_come()?;
    faults_are_told_apart()?;
    a_worker_that_takes_nothing_is_killed_at_the_deadline()?;
    println!("test result: ok. 3 passed");
    Ok(())
}

fn command() -> Result<WorkerCommand, Box<dyn Error>> {
    Ok(WorkerCommand::current_exe()?.pipes().stderr(Stderr::Discard))
}

fn pool() -> Result<ProcessPool, Box<dyn Error>> {
    let restarts =
        RestartPolicy { backoff: Duration::from_millis(1), budget: 1000, ..RestartPolicy::default() };
    Ok(ProcessPool::builder(command()?).restarts(restarts).retries(0).start()?)
}

fn answers_come() -> Result<(), Box<dyn Error>> {
    let pool = pool()?;
    for len in [0, 1, 1000, 3_000_000] {
        let job: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let expected: Vec<u8> = job.iter().rev().copied().collect();
        assert_eq!(pool.submit(job)?.wait()?, expected);
    }
    assert!(pool.drain(Duration::from_secs(60)).in_time);
    assert!(pool.metrics().worker_restarts.is_empty(), "{}", pool.metrics());
    Ok(())
}

fn faults_are_told_apart() -> Result<(), Box<dyn Error>> {
    let pool = pool()?;
    let run = |job: &[u8]| pool.submit(job.to_vec()).map(Ticket::wait);
    assert!(matches!(run(b"error")?, Err(JobError::App(_))));
    assert!(matches!(run(b"panic")?, Err(JobError::Panicked(message)) if message == "a panic"));
    assert!(matches!(run(b"exit")?, Err(JobError::Crashed { code: Some(5), .. })));
    assert!(matches!(run(b"print")?, Err(JobError::Protocol(_))));
    assert_eq!(run(b"abc")??, b"cba");
    Ok(())
}

fn a_worker_that_takes_nothing_is_killed_at_the_deadline() -> Result<(), Box<dyn Error>> {
    let pool = ProcessPool::builder(command()?).deadline(Duration::from_secs(2)).start()?;
    assert!(matches!(pool.submit(b"hang".to_vec())?.wait(), Err(JobError::Timeout)));
    assert_eq!(pool.submit(b"abc".to_vec())?.wait()?, b"cba");
    Ok(())
}
