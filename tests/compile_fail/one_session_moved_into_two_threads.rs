// The guide's second unsafe example: what was made outside is handed to several threads.

use std::thread;

use ferroyolo::{Image, Model, PredictOptions};

fn predict(model: &Model, images: [Image; 2]) {
    let mut session = model.session();
    let [first, second] = images;
    thread::spawn(move || session.predict(&[&first], &PredictOptions::default()).is_ok());
    thread::spawn(move || session.predict(&[&second], &PredictOptions::default()).is_ok());
}

fn main() {}
