// The same by reference counting: sharing gives no way to run.

use std::sync::Arc;
use std::thread;

use ferroyolo::{Image, Model, PredictOptions};

fn predict(model: &Model, image: Image, options: PredictOptions) {
    let session = Arc::new(model.session());
    let shared = Arc::clone(&session);
    thread::spawn(move || shared.predict(&[&image], &options).is_ok());
}

fn main() {}
