//! A lock around inference: what `ThreadingLocked` does in Python. Here the lock holds the session, so that there is no
//! way past it, and two functions that use the session can't end up with two locks.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example threading_locked -- MODEL PICTURE...
//! ```

use std::path::Path;
use std::thread;

use ferroyolo::{Image, Model, ModelOptions, PredictOptions, Results};
use ferroyolo_concurrency::{AppError, Locked, locked};

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    let model = Model::open(model, &ModelOptions::default())?;

    // The session in a lock: callers queue up, first come first served.
    let session = Locked::new(model.session());
    let predict = |path: &Path| -> Result<Results, AppError> {
        let image = Image::open(path)?;
        let mut results =
            session.with(|session| session.predict(&[&image], &PredictOptions::default()))??;
        Ok(results.remove(0))
    };
    thread::scope(|scope| {
        let predict = &predict;
        let running: Vec<_> = pictures.iter().map(|path| scope.spawn(move || predict(path))).collect();
        for (path, thread) in pictures.iter().zip(running) {
            let results = thread.join().map_err(|_| "a thread panicked")??;
            println!("{}: {}", path.display(), results.verbose());
        }
        Ok::<(), AppError>(())
    })?;

    // As a decorator would: a function of one argument that any thread may call.
    let mut session = model.session();
    let count_boxes = locked(move |image: Image| {
        session.predict(&[&image], &PredictOptions::default()).map(|results| results[0].boxes.len())
    });
    println!("{} boxes", count_boxes(Image::open(&pictures[0])?)??);
    Ok(())
}
