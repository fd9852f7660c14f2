//! A pool: many threads, few sessions. The number of sessions bounds memory and load; a thread that finds all of them
//! lent waits for its turn, or gives up after a while.
//!
//! ```text
//! cargo run --release -p ferroyolo-concurrency --features engine --example model_pool -- MODEL PICTURE...
//! ```

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
use ferroyolo_concurrency::engine::Sessions;
use ferroyolo_concurrency::{AppError, Pool};

mod arguments;

fn main() -> Result<(), AppError> {
    let (model, pictures) = arguments::model_and_pictures();
    let model = Model::open(model, &ModelOptions { threads: Some(1), ..ModelOptions::default() })?;
    let sessions = Pool::new(Sessions::of(&model), NonZeroUsize::new(2).ok_or("no sessions")?);

    thread::scope(|scope| {
        let sessions = &sessions;
        let running: Vec<_> = pictures
            .iter()
            .map(|path| {
                scope.spawn(move || {
                    let image = Image::open(path)?;
                    let mut session = sessions.get_timeout(Duration::from_secs(60))?;
                    let mut results = session.predict(&[&image], &PredictOptions::default())?;
                    Ok::<_, AppError>(results.remove(0))
                })
            })
            .collect();
        for (path, thread) in pictures.iter().zip(running) {
            let results = thread.join().map_err(|_| "a thread panicked")??;
            println!("{}: {}", path.display(), results.verbose());
        }
        Ok(())
    })
}
