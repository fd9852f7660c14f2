//! What the tests across crates share: where files lie, tolerances, loading, and comparison with PyTorch.

mod agreement;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferroyolo::{Adapter, Device, Model, ModelOptions, Precision, Tensor, adapters};
use ferroyolo_tools::{Checkpoint, ConvertOptions};

pub use agreement::{Agreement, agreement, configurations};

/// Largest difference of the coordinates of boxes and keypoints from PyTorch's, in pixels of the input.
pub const BOX_TOLERANCE_PX: f32 = 0.01;

/// Largest difference of scores and visibilities from PyTorch's.
pub const SCORE_TOLERANCE: f32 = 1e-4;

/// Largest difference of prototypes, mask coefficients, angles, class logits of cells, and depths from PyTorch's.
pub const OTHER_TOLERANCE: f32 = 1e-3;

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map_or_else(|| tests.to_owned(), Path::to_owned)
}

/// The folder of reference data beside the repository, or `None` after saying that a test is skipped.
///
/// Looked for at `$FERROYOLO_SHARED`, else at `../shared`. Panics where it has to be there: with `CI=true` or
/// `FERROYOLO_REQUIRE_SHARED=1`.
#[must_use]
pub fn shared(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FERROYOLO_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    if folder.join("reference/checkpoints").is_dir() {
        return Some(folder);
    }
    let is_set = |name: &str, value: &str| std::env::var(name).is_ok_and(|got| got == value);
    let required = is_set("CI", "true") || is_set("FERROYOLO_REQUIRE_SHARED", "1");
    assert!(!required, "{test}: no reference data at {}", folder.display());
    eprintln!("skipped: {test}: no reference data at {}", folder.display());
    None
}

/// Options for the first usable graphics processor, or program that stands in for one, with this precision; `None`
/// after saying that a test is skipped. Panics if there is none where it has to be there: with `CI=true`.
#[must_use]
pub fn gpu(test: &str, precision: Precision) -> Option<ModelOptions> {
    let usable =
        |adapter: &Adapter| adapter.lacks.is_empty() && (precision != Precision::F16 || adapter.has_f16);
    if let Some(adapter) = adapters().into_iter().find(usable) {
        return Some(ModelOptions {
            device: Device::Gpu(Some(adapter.index)),
            precision,
            ..ModelOptions::default()
        });
    }
    let required = std::env::var("CI").is_ok_and(|got| got == "true");
    assert!(!required, "{test}: no adapter for {precision:?}");
    eprintln!("skipped: {test}: no adapter for {precision:?}; Debian's mesa-vulkan-drivers have one");
    None
}

/// The bytes of the model file made from a checkpoint. Panics with the reason if it can't be converted.
#[must_use]
pub fn convert(path: &Path) -> Vec<u8> {
    let convert =
        || ferroyolo_tools::convert(&Checkpoint::open(path)?, &ConvertOptions::default())?.to_bytes();
    convert().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A model from the bytes of a model file. Panics with the reason if it can't be loaded.
#[must_use]
pub fn load(name: &str, bytes: &[u8], options: &ModelOptions) -> Model {
    Model::from_bytes(name, bytes, options).unwrap_or_else(|error| panic!("{error}"))
}

/// The model that ships with the command line.
#[must_use]
pub fn demo_bytes() -> Vec<u8> {
    read(&root().join("crates/cli/assets/demo.safetensors"))
}

/// The tensors of a safetensors file of `f32`.
#[must_use]
pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = read(path);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let widen = |data: &[u8]| data.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
            let tensor = Tensor::new(view.shape().to_vec(), widen(view.data()));
            (name, tensor.unwrap_or_else(|error| panic!("{error}")))
        })
        .collect()
}

/// A file's bytes. Panics with its path if it can't be read.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
