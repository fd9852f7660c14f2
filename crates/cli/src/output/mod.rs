//! Everything that leaves the program: lines, JSON, messages and files.

pub mod console;
pub mod file;
pub mod inputs;
pub mod json;
mod labels;
pub mod report;
pub mod save;
pub mod unique;
mod video;
