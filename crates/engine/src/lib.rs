//! Engine.

pub mod error;
pub mod image;
