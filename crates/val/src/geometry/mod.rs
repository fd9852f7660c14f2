//! How much two things agree, from 0 to 1: boxes, masks, poses and turned boxes.

mod boxes;
mod keypoints;
mod mask;
mod polygon;
mod rotated;

pub use boxes::{area, box_iou};
pub use keypoints::{COCO_SIGMAS, oks, oks_of_box, sigmas};
pub use mask::Mask;
pub use polygon::{fill_polygon, trace_polygon};
pub use rotated::{RotatedBox, prob_iou};
