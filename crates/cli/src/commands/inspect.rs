//! `ferroyolo inspect`: what a file holds, without executing anything of it.

use ferroyolo_tools::inspect;

use crate::args::Inspect;
use crate::error::{Error, Outcome, Result};
use crate::output::json::{JsonSink, is_stdout, print_line};

/// Prints what the file holds; fails if it would be refused.
pub fn run(args: &Inspect) -> Result<Outcome> {
    let inspection = inspect(&args.file).map_err(|error| Error::at(&args.file, error))?;
    if let Some(target) = &args.json {
        JsonSink::open(target, [args.file.as_path()])?.write(&inspection)?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        print_line(inspection.to_string().trim_end())?;
    }
    Ok(if inspection.is_refused() { Outcome::SomeFailed } else { Outcome::Done })
}
