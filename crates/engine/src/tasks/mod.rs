//! From the network's outputs to objects: decoding and suppression.

pub(crate) mod detect;
pub(crate) mod nms;
