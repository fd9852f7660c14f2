// The guide's first unsafe example: one instance, and two threads that predict with it.

use std::thread;

use ferroyolo::{Image, Model, PredictOptions};

fn predict(model: &Model, images: &[Image; 2], options: &PredictOptions) {
    let mut session = model.session();
    thread::scope(|scope| {
        scope.spawn(|| session.predict(&[&images[0]], options));
        scope.spawn(|| session.predict(&[&images[1]], options));
    });
}

fn main() {}
