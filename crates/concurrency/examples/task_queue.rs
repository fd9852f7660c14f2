//! A queue with dedicated workers: pictures go in, tickets come back, and each ticket brings its own picture's result.
//! The queue is bounded: when it is full, the submitter learns it at once and keeps the picture.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example task_queue -- MODEL PICTURE...
//! ```

use std::path::PathBuf;
use std::time::Duration;

use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::{AppError, Rejected, TaskQueue};

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    let model = Model::open(model, &ModelOptions { threads: Some(1), ..ModelOptions::default() })?;

    let queue = TaskQueue::builder().capacity(8).workers(2).start(move |_worker| {
        let mut session = model.session();
        Ok::<_, AppError>(move |path: PathBuf| -> Result<String, AppError> {
            let image = Image::open(path)?;
            let results = session.predict(&[&image], &PredictOptions::default())?;
            Ok(results[0].verbose())
        })
    })?;

    let mut tickets = Vec::new();
    for path in pictures {
        match queue.try_submit(path.clone()) {
            Ok(ticket) => tickets.push((path, ticket)),
            // A server would answer "try again later"; here there is time to wait for a place.
            Err(Rejected::Full(job)) => tickets.push((path, queue.submit(job)?)),
            Err(rejected) => return Err(rejected.into()),
        }
    }
    for (path, ticket) in tickets {
        // One picture that can't be read fails alone.
        match ticket.wait() {
            Ok(found) => println!("{}: {found}", path.display()),
            Err(error) => println!("{}: {error}", path.display()),
        }
    }
    println!("{:?}", queue.drain(Duration::from_secs(10)));
    Ok(())
}
