//! How good a trained network is: labelled data sets in, precision and recall out.
//!
//! [`dataset`] reads data sets in the form that Ultralytics made common: a YAML file, pictures, and a text file of
//! labels for each picture. [`metrics`] turns detections and labels into average precision as COCO defines it, and
//! into what goes with it. [`geometry`] says how much two boxes, masks, poses or turned boxes agree.
//!
//! Everything here is plain numbers: no network, no picture is needed. Coordinates of labels are shares of the
//! picture's width and height until they are scaled to pixels.

#![forbid(unsafe_code)]

pub mod dataset;
pub mod error;
pub mod geometry;
pub mod metrics;

pub use error::{Error, ErrorKind, Result};
