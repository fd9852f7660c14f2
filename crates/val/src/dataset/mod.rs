//! Labelled data sets: what the YAML file says, which pictures there are, and their labels.
//!
//! A data set that is broken as a whole is an error. A label file that is broken is an error of its picture alone, and
//! names file and line; a label file that is missing says that the picture shows nothing.

mod description;
mod files;
mod folders;
mod labels;
mod maps;

pub use description::{Dataset, MAX_CLASSES};
pub use files::{PICTURE_EXTENSIONS, label_path};
pub use folders::ClassFolders;
pub use labels::{Keypoint, LabelKind, Labels, Object, Shape};
pub use maps::{ClassMap, IGNORED, mask_path, n_map_values};
