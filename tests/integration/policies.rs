//! Every way to share a model gives what one session gives alone, to the bit, from any number of threads.

use std::num::NonZeroUsize;
use std::thread;

use ferroyolo::{Image, Isa, Model, ModelOptions, PredictOptions, Results, Tensor};
use ferroyolo_concurrency::engine::{Policy, Predictor, Sessions};
use ferroyolo_concurrency::{AppError, TaskQueue};
use ferroyolo_tests::{convert, demo_bytes, load, shared};

const N_THREADS: [usize; 5] = [1, 2, 4, 8, 16];

fn model(bytes: &[u8], threads: usize) -> Model {
    let options = ModelOptions { isa: Some(Isa::best()), threads: Some(threads), ..ModelOptions::default() };
    load("model", bytes, &options)
}

/// What was found, without what differs from run to run.
fn without_speed(results: Results) -> Results {
    results.with_speed(Default::default())
}

/// Predicts every picture from `n_threads` threads, each beginning at another picture, and compares.
fn check(model: &Model, images: &[Image], options: &PredictOptions, n_threads: usize) {
    let mut session = model.session();
    let serial: Vec<Results> = images
        .iter()
        .map(|image| without_speed(session.predict(&[image], options).expect("a prediction").remove(0)))
        .collect();
    assert!(serial.iter().any(|results| !results.boxes.is_empty()), "nothing to compare");
    for policy in Policy::ALL {
        // Fewer sessions than threads, so that callers have to wait.
        let n_sessions = NonZeroUsize::new(n_threads.div_ceil(2)).expect("at least one");
        let predictor = Predictor::new(model, policy, n_sessions);
        thread::scope(|scope| {
            for first in 0..n_threads {
                let (predictor, serial) = (&predictor, &serial);
                scope.spawn(move || {
                    for idx in (0..images.len()).map(|step| (first + step) % images.len()) {
                        let mut results = predictor.predict(&[&images[idx]], options).expect("a prediction");
                        let same = without_speed(results.remove(0)) == serial[idx];
                        assert!(same, "{policy}, {n_threads} threads, picture {idx}");
                    }
                });
            }
        });
    }
    let queue = queue(model, options, n_threads);
    let submit = |image: &Image| queue.submit(image.clone()).expect("an open queue");
    let tickets: Vec<_> = images.iter().chain(images).map(submit).collect();
    for (idx, ticket) in tickets.into_iter().enumerate() {
        let same = ticket.wait().expect("a prediction") == serial[idx % images.len()];
        assert!(same, "queue, {n_threads} workers, picture {idx}");
    }
}

fn queue(model: &Model, options: &PredictOptions, n_workers: usize) -> TaskQueue<Image, Results> {
    let (model, options) = (model.clone(), options.clone());
    TaskQueue::builder()
        .capacity(4)
        .workers(n_workers)
        .start(move |_| {
            let (mut session, options) = (model.session(), options.clone());
            Ok::<_, AppError>(move |image: Image| {
                session.predict(&[&image], &options).map(|mut results| without_speed(results.remove(0)))
            })
        })
        .expect("a queue")
}

/// Pictures of noise in sizes that give different inputs.
fn noise() -> Vec<Image> {
    let mut state = 1_u32;
    let mut picture = |&(width, height): &(usize, usize)| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        Image::from_rgb8(width, height, (0..width * height * 3).map(|_| next()).collect()).expect("a picture")
    };
    [(64, 64), (320, 96), (40, 200), (333, 250), (64, 64)].iter().map(&mut picture).collect()
}

#[test]
fn mixed_sizes_from_many_threads_on_the_demo_model() {
    let bytes = demo_bytes();
    let options = PredictOptions { conf: 0.001, ..PredictOptions::default() };
    for n_threads in N_THREADS {
        check(&model(&bytes, 1), &noise(), &options, n_threads);
    }
    // A network that uses threads of its own, called from several.
    check(&model(&bytes, 2), &noise(), &options, 3);
}

#[test]
fn photographs_from_many_threads() {
    let Some(shared) = shared("photographs_from_many_threads") else { return };
    let mut paths: Vec<_> = std::fs::read_dir(shared.join("coco64/images"))
        .expect("photographs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let images: Vec<Image> =
        paths.iter().step_by(6).map(|path| Image::open(path).expect("a photograph")).collect();
    assert!(images.len() > 8, "{} photographs", images.len());
    let model = model(&convert(&shared.join("models/yolox_nano.pth")), 1);
    let options = PredictOptions { imgsz: Some([320, 320]), ..PredictOptions::default() };
    for n_threads in N_THREADS {
        check(&model, &images, &options, n_threads);
    }
}

/// As separate models that interfere with each other would not: https://github.com/ultralytics/ultralytics/issues/2273.
#[test]
fn separate_models_do_not_interfere() {
    let bytes = demo_bytes();
    let images = noise();
    let options = PredictOptions { conf: 0.001, ..PredictOptions::default() };
    let models: Vec<Model> = (0..4).map(|_| model(&bytes, 1)).collect();
    let expected: Vec<Results> = images
        .iter()
        .map(|image| without_speed(models[0].predict(image, &options).expect("a prediction")))
        .collect();
    thread::scope(|scope| {
        for model in &models {
            let (images, expected, options) = (&images, &expected, &options);
            scope.spawn(move || {
                for (image, expected) in images.iter().zip(expected) {
                    let results = without_speed(model.predict(image, options).expect("a prediction"));
                    assert!(results == *expected, "another model changed this one's results");
                }
            });
        }
    });
}

/// The first calls of several threads race to make plans and sessions.
#[test]
fn first_calls_of_many_threads_race() {
    let bytes = demo_bytes();
    let images = noise();
    let options = PredictOptions { conf: 0.001, ..PredictOptions::default() };
    let expected = without_speed(model(&bytes, 1).predict(&images[3], &options).expect("a prediction"));
    for _ in 0..5 {
        let fresh = model(&bytes, 1);
        let start = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let results = fresh.predict(&images[3], &options).expect("a prediction");
                    assert!(without_speed(results) == expected);
                });
            }
        });
    }
}

/// A lock that is held while results are still to come would make a nested call wait for ever. Here results are
/// complete when a call returns, so a caller may call again while it looks at them; and a call within a call is an error.
#[test]
fn a_call_while_results_are_read_does_not_wait_for_itself() {
    let model = model(&demo_bytes(), 1);
    let images = noise();
    let options = PredictOptions { conf: 0.001, ..PredictOptions::default() };
    for policy in Policy::ALL {
        let predictor = Predictor::new(&model, policy, NonZeroUsize::MIN);
        let results = predictor.predict(&[&images[0], &images[4]], &options).expect("predictions");
        let before = results.clone();
        for outer in &results {
            let inner = predictor.predict(&[&images[1]], &options).expect("a prediction");
            assert_eq!(inner[0].orig_shape, images[1].shape(), "{policy}");
            assert_eq!(outer.orig_shape, images[0].shape(), "{policy}");
        }
        assert!(results == before, "{policy}: a later call changed earlier results");
    }
    let locked = ferroyolo_concurrency::Locked::new(model.session());
    let nested = locked.with(|_| locked.with(|_| ()));
    assert_eq!(nested, Ok(Err(ferroyolo_concurrency::LockError::Reentrant)));
}

/// A time limit on suppression that drops what was found so far would show as an empty result on a slow machine.
#[test]
fn suppression_takes_the_time_it_needs() {
    let model = model(&demo_bytes(), 1);
    let side = 640;
    let image = Image::from_rgb8(side, side, noise_pixels(side * side * 3)).expect("a picture");
    let options = PredictOptions {
        conf: 0.0,
        iou: 1.0,
        max_det: 100_000,
        multi_label: true,
        imgsz: Some([side, side]),
        ..PredictOptions::default()
    };
    let results = model.predict(&image, &options).expect("a prediction");
    // 8400 anchors with several classes each, of which suppression considers at most 30,000.
    assert_eq!(results.boxes.len(), 30_000);
}

fn noise_pixels(n: usize) -> Vec<u8> {
    (0..n as u32).map(|idx| (idx.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A pool's sessions and a thread's sessions share the weights: only the arena is theirs.
#[test]
fn further_sessions_cost_their_arena_only() {
    let model = model(&demo_bytes(), 1);
    let pool = ferroyolo_concurrency::Pool::new(Sessions::of(&model), NonZeroUsize::new(2).expect("two"));
    let images = Tensor::new(vec![1, 3, 64, 64], vec![0.5; 3 * 64 * 64]).expect("a tensor");
    let (mut one, mut two) = (pool.get().expect("a session"), pool.get().expect("a session"));
    one.run(&images).expect("a run");
    assert_eq!(two.arena_bytes(), 0, "an arena before the first run");
    two.run(&images).expect("a run");
    assert_eq!(one.arena_bytes(), two.arena_bytes());
}
