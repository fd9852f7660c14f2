//! Arbitrary model files, and arbitrary descriptions over sound tensors: loading and a small run end in a result or
//! an error.
#![no_main]

use std::collections::HashMap;
use std::sync::LazyLock;

use ferroyolo::{Model, ModelOptions, Tensor};
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

/// Tensors of a narrow network whose description is the place to start from.
static GOLDEN: &[u8] = include_bytes!("../../tests/goldens/detect8.model.safetensors");
static TENSORS: LazyLock<SafeTensors<'static>> =
    LazyLock::new(|| SafeTensors::deserialize(GOLDEN).expect("a sound file"));

/// Larger inputs than this only cost time.
const MAX_STRIDE: usize = 64;

fuzz_target!(|data: &[u8]| {
    try_model(data);
    let Ok(text) = str::from_utf8(data) else { return };
    let entries = [("ferroyolo.format", "1"), ("ferroyolo.model", text)];
    let metadata: HashMap<String, String> =
        entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let file = safetensors::serialize(TENSORS.tensors(), Some(metadata)).expect("a file that can be written");
    try_model(&file);
});

fn try_model(bytes: &[u8]) {
    let options = ModelOptions { threads: Some(1), ..ModelOptions::default() };
    let Ok(model) = Model::from_bytes("fuzz", bytes, &options) else { return };
    let side = model.stride();
    if side <= MAX_STRIDE {
        let images = Tensor::zeros(vec![1, 3, side, side]).expect("a small picture");
        let _ = model.session().run(&images);
    }
}
