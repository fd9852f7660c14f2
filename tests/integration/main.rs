//! Tests that need more than one crate.

mod agreement;
mod bad_models;
mod compile_fail;
mod gpu;
mod objects_on_gpu;
mod overflow;
mod policies;
mod repeatability;
mod tasks;
mod tidy;
