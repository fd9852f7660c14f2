//! What the examples are run with: `MODEL PICTURE...`, or the small model and the picture of this repository.

use std::env::args_os;
use std::path::PathBuf;

/// The model file and the pictures.
pub fn model_and_pictures() -> (PathBuf, Vec<PathBuf>) {
    let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/assets");
    let mut given = args_os().skip(1).map(PathBuf::from);
    let model = given.next().unwrap_or_else(|| [assets, "demo.safetensors"].iter().collect());
    let pictures: Vec<PathBuf> = given.collect();
    let sample: PathBuf = [assets, "sample.png"].iter().collect();
    (model, if pictures.is_empty() { vec![sample; 4] } else { pictures })
}
