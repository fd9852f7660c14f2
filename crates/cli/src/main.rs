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
    let args = match Args::try_parse() {
        Ok(args) => args,
        // What the parser was not to take for a flag's value may be a URL.
        Err(error) if error.use_stderr() && error.to_string().contains("://") => {
            output::console::usage(&error.to_string());
            return ExitCode::from(Error::Usage(String::new()).exit_status());
        }
        Err(error) => error.exit(),
    };
    match commands::run(args.command) {
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
