//! What the guide calls unsafe does not compile, and for the reason that is meant: `tests/compile_fail` holds each program
//! with what the compiler says. The twins here differ from them in what makes them safe, and do compile.

use std::thread;

use ferroyolo::{Image, Model, PredictOptions, Results, Session};

#[test]
fn unsafe_use_does_not_compile() {
    trybuild::TestCases::new().compile_fail("compile_fail/*.rs");
}

/// Models and results are shared, and a session may move; running it takes it alone.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    const fn moves<T: Send>() {}
    is_shared::<Model>();
    is_shared::<Image>();
    is_shared::<Results>();
    is_shared::<PredictOptions>();
    moves::<Session>();
};

/// The twin of `one_session_in_two_threads` and `one_session_behind_an_arc`: each thread makes its own.
fn predict_in_two_threads(model: &Model, images: &[Image; 2], options: &PredictOptions) -> usize {
    thread::scope(|scope| {
        let run = |image| {
            scope.spawn(move || model.session().predict(&[image], options).map_or(0, |all| all.len()))
        };
        let threads = images.each_ref().map(run);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}

/// The twin of `one_session_moved_into_two_threads`: what was made outside is handed to one thread.
fn predict_elsewhere(model: &Model, image: Image) -> usize {
    let mut session = model.session();
    let run = move || session.predict(&[&image], &PredictOptions::default()).map_or(0, |all| all.len());
    thread::spawn(run).join().expect("no panic")
}

#[test]
fn safe_twins_run() {
    let model = ferroyolo_tests::load("demo", &ferroyolo_tests::demo_bytes(), &Default::default());
    let image = || Image::from_rgb8(64, 48, vec![114; 64 * 48 * 3]).expect("a picture");
    assert_eq!(predict_in_two_threads(&model, &[image(), image()], &PredictOptions::default()), 2);
    assert_eq!(predict_elsewhere(&model, image()), 1);
}
