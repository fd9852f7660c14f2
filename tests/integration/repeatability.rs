//! The same values, to the bit, from run to run, for any number of threads, and from any number of callers.

use ferroyolo::{Image, Isa, Model, ModelOptions, PredictOptions, Tensor};
use ferroyolo_tests::{demo_bytes, load};

/// Reproducible noise: `[n, 3, h, w]` from 0 to 1.
fn noise(n: usize, h: usize, w: usize) -> Tensor {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let data = (0..n * 3 * h * w).map(|_| next()).collect();
    Tensor::new(vec![n, 3, h, w], data).expect("a shape that fits")
}

fn demo(isa: Isa, threads: usize) -> Model {
    let options = ModelOptions { isa: Some(isa), threads: Some(threads), ..ModelOptions::default() };
    load("demo.safetensors", &demo_bytes(), &options)
}

fn output0(model: &Model, images: &Tensor) -> Vec<f32> {
    let mut session = model.session();
    session.run(images).expect("a run").output0().expect("the one-to-many head").data.to_vec()
}

#[test]
fn threads_and_runs_do_not_change_a_bit() {
    for isa in Isa::available() {
        for (h, w) in [(64, 96), (160, 32), (320, 320)] {
            let images = noise(2, h, w);
            let want = output0(&demo(isa, 1), &images);
            for threads in [1, 2, 3, 5, 8] {
                let model = demo(isa, threads);
                for _ in 0..2 {
                    assert!(output0(&model, &images) == want, "{isa:?}, {threads} threads, {h}x{w}");
                }
            }
        }
    }
}

#[test]
fn a_session_forgets_the_shapes_before() {
    let model = demo(Isa::best(), 2);
    let shapes = [(1, 64, 64), (2, 96, 32), (1, 320, 160), (1, 64, 64), (3, 32, 32)];
    let mut session = model.session();
    for (n, h, w) in shapes {
        let images = noise(n, h, w);
        let got = session.run(&images).expect("a run").output0().expect("the head").data.to_vec();
        assert!(got == output0(&model, &images), "{n}x{h}x{w} after other shapes");
    }
}

#[test]
fn one_model_serves_many_threads() {
    let model = demo(Isa::best(), 2);
    let picture = |side: usize| {
        let values = noise(1, side, side + 32).data().iter().map(|value| (value * 255.0) as u8).collect();
        Image::from_rgb8(side + 32, side, values).expect("a picture")
    };
    let options = PredictOptions { conf: 0.001, ..PredictOptions::default() };
    let pictures: Vec<Image> = [40, 64, 100, 320].map(picture).into();
    let boxes = |model: &Model, picture: &Image| {
        let results = model.predict(picture, &options).expect("a prediction");
        (results.boxes.xyxy().to_vec(), results.boxes.conf().to_vec())
    };
    let serial: Vec<_> = pictures.iter().map(|picture| boxes(&model, picture)).collect();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (model, pictures, serial) = (model.clone(), &pictures, &serial);
            scope.spawn(move || {
                for idx in (0..8).map(|step| (first + step) % pictures.len()) {
                    assert!(boxes(&model, &pictures[idx]) == serial[idx], "picture {idx}");
                }
            });
        }
    });
}

#[test]
fn models_and_sessions_cross_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    shared::<Model>();
    moved::<ferroyolo::Session>();
}
