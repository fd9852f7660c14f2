//! One instance a thread, as the guide to thread-safe YOLO inference recommends, but with the weights in memory once:
//! `PerThread` builds a session the first time that a thread calls, and drops it when the thread ends.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example model_per_thread -- MODEL PICTURE...
//! ```

use std::thread;

use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::engine::Sessions;
use ferroyolo_concurrency::{AppError, PerThread};

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    let model = Model::open(model, &ModelOptions { threads: Some(1), ..ModelOptions::default() })?;
    let sessions = PerThread::new(Sessions::of(&model));

    // Two threads, each with its half of the pictures and a session that it keeps.
    let halves = pictures.chunks(pictures.len().div_ceil(2));
    thread::scope(|scope| {
        let sessions = &sessions;
        let running: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || {
                    for path in half {
                        let image = Image::open(path)?;
                        let results = sessions
                            .with(|session| session.predict(&[&image], &PredictOptions::default()))??;
                        println!("{}: {}", path.display(), results[0].verbose());
                    }
                    Ok::<(), AppError>(())
                })
            })
            .collect();
        for thread in running {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}
