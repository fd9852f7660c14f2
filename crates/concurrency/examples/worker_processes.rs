//! Worker processes, as `multiprocessing` in Python: a picture that crashes its worker, or hangs, or takes all memory,
//! costs that picture and nothing else. The workers are this same program, started anew; each loads the model by itself.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example worker_processes -- MODEL PICTURE...
//! ```

use std::time::Duration;

use ferroyolo::{Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::AppError;
use ferroyolo_concurrency::engine::{Picture, ProcessPredictor, serve};
use ferroyolo_concurrency::process::{Limits, ProcessPool, WorkerCommand, worker};

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    if worker::is_worker() {
        let options = ModelOptions { threads: Some(1), ..ModelOptions::default() };
        return Ok(serve(|| Model::open(model, &options))?);
    }

    let command = WorkerCommand::current_exe()?
        .arg(model)
        .limits(Limits { address_space: Some(4 << 30), ..Limits::default() });
    let pool = ProcessPool::builder(command).workers(2).deadline(Duration::from_secs(60)).start()?;
    let predictor = ProcessPredictor::new(pool);

    let mut tickets = Vec::new();
    for path in &pictures {
        let picture = Picture::File(path.clone());
        tickets.push(predictor.submit(&[picture], &PredictOptions::default())?);
    }
    for (path, ticket) in pictures.iter().zip(tickets) {
        match ticket.wait() {
            // What is wrong with a picture is its own; what was wrong with its worker is the job's.
            Ok(results) => match &results[0] {
                Ok(found) => println!("{}: {}", path.display(), found.verbose()),
                Err(error) => println!("{}: {error}", path.display()),
            },
            Err(error) => println!("{}: {error}", path.display()),
        }
    }
    predictor.drain(Duration::from_secs(10));
    Ok(())
}
