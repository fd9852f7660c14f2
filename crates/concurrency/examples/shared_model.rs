//! One model, called from any number of threads: what the guide to thread-safe YOLO inference warns against in Python,
//! and what is the plain way here. A `Model` holds only what never changes; each call takes working memory of its own.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example shared_model -- MODEL PICTURE...
//! ```

use std::thread;

use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::AppError;

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    let model = Model::open(model, &ModelOptions { threads: Some(1), ..ModelOptions::default() })?;

    thread::scope(|scope| {
        let model = &model;
        let running: Vec<_> = pictures
            .iter()
            .map(|path| scope.spawn(move || model.predict(&Image::open(path)?, &PredictOptions::default())))
            .collect();
        for (path, thread) in pictures.iter().zip(running) {
            let results = thread.join().map_err(|_| "a thread panicked")??;
            println!("{}: {}", path.display(), results.verbose());
        }
        Ok(())
    })
}
