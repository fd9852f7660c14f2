//! `ferroyolo convert`: a PyTorch checkpoint becomes a model file.

use std::path::PathBuf;
use std::time::Instant;

use ferroyolo_tools::{Checkpoint, ConvertOptions, convert};

use crate::args::{Convert, Dtype};
use crate::error::{Error, Outcome, Result};
use crate::output::file::is_same_file;
use crate::output::json::print_line;

/// Converts the checkpoint and says what was written.
pub fn run(args: &Convert) -> Result<Outcome> {
    let start = Instant::now();
    let output = output_path(args)?;
    let named = |error: ferroyolo_tools::Error| Error::at(&args.input, error);
    let checkpoint = Checkpoint::open(&args.input).map_err(named)?;
    let dtype = match args.dtype {
        Dtype::Keep => ferroyolo_tools::Dtype::Keep,
        Dtype::F16 => ferroyolo_tools::Dtype::F16,
        Dtype::F32 => ferroyolo_tools::Dtype::F32,
    };
    let converted = convert(&checkpoint, &ConvertOptions { dtype }).map_err(named)?;
    converted.write(&output).map_err(|error| Error::at(&output, error))?;
    let seconds = start.elapsed().as_secs_f64();
    print_line(&format!("{}: {}, {seconds:.2} s", output.display(), converted.summary()))?;
    Ok(Outcome::Done)
}

/// The file to write: as given, in the directory given, or beside the checkpoint.
fn output_path(args: &Convert) -> Result<PathBuf> {
    let beside = args.input.with_extension("safetensors");
    let output = match &args.output {
        None => beside,
        Some(directory) if directory.is_dir() => directory.join(beside.file_name().unwrap_or_default()),
        Some(file) => file.clone(),
    };
    if is_same_file(&args.input, &output) {
        return Err(Error::Usage(format!(
            "{}: would be overwritten by its own conversion",
            args.input.display()
        )));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn check(input: &Path, output: Option<&Path>) -> Result<PathBuf> {
        output_path(&Convert { input: input.into(), output: output.map(Into::into), dtype: Dtype::Keep })
    }

    #[test]
    fn the_model_file_lies_where_it_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("a.pt");
        fs::write(&input, b"").unwrap();
        assert_eq!(check(&input, None).unwrap(), dir.path().join("a.safetensors"));
        assert_eq!(check(&input, Some(Path::new("b.st"))).unwrap(), Path::new("b.st"));
        assert_eq!(check(Path::new("x/b.pt"), Some(dir.path())).unwrap(), dir.path().join("b.safetensors"));
        assert_eq!(check(&input, Some(&input)).unwrap_err().exit_status(), 2);
    }
}
