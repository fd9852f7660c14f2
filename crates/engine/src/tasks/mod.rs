//! From the network's outputs to objects: decoding and suppression.

pub(crate) mod detect;
mod extra;
pub(crate) mod map;
pub(crate) mod nms;
