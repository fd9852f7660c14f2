//! The command line of ferroyolo: pictures in, boxes out.
//!
//! Results go to stdout, everything else to stderr. Exit status: 0 done, 1 something failed (each failure told with
//! its path and cause), 2 wrong usage.
#![forbid(unsafe_code)]

mod args;
mod builtin;
mod commands;
mod crew;
mod error;
mod fetch;
mod input;
mod model;
mod output;
mod tensors;
mod val;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::error::{Error, Outcome};

fn main() -> ExitCode {
    match commands::run(Args::parse().command) {
        // Whoever read our output has seen enough (`| head`): that is no failure.
        Ok(Outcome::Done) | Err(Error::StdoutClosed) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Stopped(status)) => ExitCode::from(status),
        Err(error) => {
            output::console::error(&error);
            ExitCode::from(error.exit_status())
        }
    }
}
