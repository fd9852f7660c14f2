//! The command line as its users meet it: the real binary, run on files made here.

mod bench;
mod built_in;
mod checkpoints;
mod fetch;
mod forward;
mod gpu;
mod models;
mod policies;
mod predict;
mod saving;
mod server;
mod sources;
mod support;
mod tasks;
mod urls;
mod usage;
mod val;
mod video;
