//! From pictures to a network's input, and from its outputs to results: fitting, decoding, suppression, masks, maps.

pub(crate) mod detect;
mod extra;
pub(crate) mod finish;
pub(crate) mod fit;
#[cfg(feature = "gpu")]
pub(crate) mod found;
pub(crate) mod map;
pub(crate) mod nms;
mod obb;
mod prob_iou;
mod scale;
pub(crate) mod segment;
