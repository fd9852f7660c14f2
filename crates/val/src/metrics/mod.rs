//! Metrics: average precision, confusion, top-k accuracy and mean intersection over union.
//!
//! Detections of a picture are first matched with its labels, at ten thresholds of overlap at once
//! ([`match_picture`]); an [`Evaluation`] gathers the matches of all pictures and makes [`Metrics`] of them. Which
//! overlap it is, of boxes, masks, poses or turned boxes, is the caller's.

mod confusion;
mod curves;
mod evaluation;
mod matching;
mod pixels;
mod precision;
mod top_k;

pub use confusion::{ConfusionMatrix, ConfusionOptions};
pub use curves::{Curve, N_CONFIDENCES};
pub use evaluation::{ClassMetrics, Evaluation, Metrics};
pub use matching::{Found, Labelled, Match, N_THRESHOLDS, match_picture, thresholds};
pub use pixels::{PixelCounts, PixelMetrics};
pub use precision::{AveragePrecision, N_RECALLS};
pub use top_k::{TopK, TopKMetrics};
