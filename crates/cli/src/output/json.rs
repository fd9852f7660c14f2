//! JSON objects, one a line, on stdout or in a file.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::file::refuse_to_overwrite;
use crate::error::{Error, Result};

/// Where JSON goes.
pub enum JsonSink {
    /// `--json -`
    Stdout,
    /// `--json PATH`
    File(BufWriter<File>, String),
}

impl JsonSink {
    /// Opens `target`; `-` is stdout. A file that exists is replaced, unless it is one of `inputs`.
    pub fn open<'a>(target: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        if is_stdout(target) {
            return Ok(Self::Stdout);
        }
        refuse_to_overwrite("--json", target, inputs)?;
        let file = File::create(target).map_err(|error| Error::at(target, error))?;
        Ok(Self::File(BufWriter::new(file), target.display().to_string()))
    }

    /// Writes `value` as one line and hands it on at once, so that a later failure can't lose it.
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value).map_err(|error| Error::named("json", error))?;
        match self {
            Self::Stdout => print_line(&line),
            Self::File(file, name) => writeln!(file, "{line}")
                .and_then(|()| file.flush())
                .map_err(|error| Error::named(name, error)),
        }
    }
}

/// Errors if there is a file at `target` that holds something else than objects written before.
///
/// For runs whose sources are not known beforehand: such a file may be one of them.
pub fn refuse_other_than_json(target: &Path) -> Result<()> {
    // Devices and pipes keep nothing that could be lost; and what can't be read is no source.
    if is_stdout(target) || !target.is_file() {
        return Ok(());
    }
    let mut first = [0];
    match File::open(target).and_then(|mut file| file.read(&mut first)) {
        Ok(1..) if first != *b"{" => Err(Error::Usage(format!(
            "--json {}: holds no JSON objects, and may be one of the sources that are named on stdin",
            target.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether `--json` names stdout.
pub fn is_stdout(target: &Path) -> bool {
    target.as_os_str() == "-"
}

/// Prints one line of results.
pub fn print_line(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Error::stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_there_once_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut sink = JsonSink::open(&path, []).unwrap();
        sink.write(&serde_json::json!({"path": "é\n"})).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"path\":\"é\\n\"}\n");
        assert!(JsonSink::open(&dir.path().join("absent/a"), []).is_err());
        assert_eq!(JsonSink::open(&path, [path.as_path()]).err().map(|error| error.exit_status()), Some(2));
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
    }
}
