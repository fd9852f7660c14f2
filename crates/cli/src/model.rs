//! From `--model` to a loaded model: files, checkpoints, well-known names, and the model that is built in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ferroyolo::{Device, Head, Isa, Model, ModelOptions};
use ferroyolo_tools::{Checkpoint, ConvertOptions, convert};

use crate::args::ModelArgs;
use crate::builtin;
use crate::error::{Error, Result, chain};
use crate::fetch::cache::{self, Access};
use crate::output::console;
use crate::tensors::check_header;

/// A model and what to call it.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// As it was given, or the name of the one that is built in.
    pub name: String,
    /// The file it came from, unless it is built in.
    pub path: Option<PathBuf>,
}

impl Loaded {
    /// `args` for another process, which shall run the model where it runs here.
    pub fn args_for_others(&self, args: &ModelArgs) -> ModelArgs {
        ModelArgs { device: self.model.device(), ..args.clone() }
    }

    /// Tells what runs the model; on the CPU that is `threads` threads.
    pub fn tell_processor(&self, threads: usize) {
        let name = self.model.device_name();
        match self.model.device() {
            Device::Gpu(_) => console::notice(&format!("running on {name}")),
            _ => console::notice(&format!("running on the {name}, {threads} thread(s)")),
        }
    }
}

/// Loads the model that `args` ask for, to use `threads` or all CPUs; notices go to stderr unless `quiet`.
///
/// Warns if a GPU was found and could not be used.
pub fn load(args: &ModelArgs, threads: Option<usize>, quiet: bool) -> Result<Loaded> {
    let loaded = load_silently(args, threads, quiet)?;
    if let Some(why) = loaded.model.fallback() {
        console::warning(&format!("the CPU is used, since a GPU failed: {}", chain(why)));
    }
    Ok(loaded)
}

fn load_silently(args: &ModelArgs, threads: Option<usize>, quiet: bool) -> Result<Loaded> {
    let options = ModelOptions {
        device: args.device,
        precision: args.precision,
        threads,
        isa: args.isa.as_deref().map(find_isa).transpose()?,
        tuning: args.tune,
        cache: cache::directory(),
        ..ModelOptions::default()
    };
    let Some(given) = &args.model else {
        let built_in = builtin::model(args.task)?;
        let model = Model::from_bytes(built_in.name, built_in.bytes, &options)?;
        return Ok(Loaded { model, name: built_in.name.into(), path: None });
    };
    let path = cache::locate(given, Access { offline: args.offline, quiet })?;
    let model = match form_of(&path)? {
        Form::Model => {
            check_header(&path)?;
            Model::open(&path, &options).map_err(|error| Error::at(&path, error))?
        }
        Form::Checkpoint => from_checkpoint(&path, &options, quiet)?,
    };
    let name = given.display().to_string();
    if let Some(task) = args.task.filter(|&task| task != model.task()) {
        return Err(Error::Usage(format!("--task {task}: {name} is a model for {}", model.task())));
    }
    Ok(Loaded { model, name, path: Some(path) })
}

/// The name of `head` on the command line.
pub fn head_name(head: Head) -> &'static str {
    match head {
        Head::Auto => "auto",
        Head::OneToMany => "one2many",
        Head::OneToOne => "one2one",
    }
}

fn find_isa(name: &str) -> Result<Isa> {
    Isa::by_name(name).ok_or_else(|| {
        let known: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        Error::Usage(format!("--isa {name}: this CPU has {}", known.join(", ")))
    })
}

fn from_checkpoint(path: &Path, options: &ModelOptions, quiet: bool) -> Result<Model> {
    let start = Instant::now();
    // The checkpoint and its tensors are gone before the model is built, so that only one copy is held at a time.
    let bytes = {
        let checkpoint = Checkpoint::open(path).map_err(|error| Error::at(path, error))?;
        let converted =
            convert(&checkpoint, &ConvertOptions::default()).map_err(|error| Error::at(path, error))?;
        drop(checkpoint);
        converted.to_bytes().map_err(|error| Error::at(path, error))?
    };
    if !quiet {
        let seconds = start.elapsed().as_secs_f64();
        console::notice(&format!(
            "{}: converted in memory in {seconds:.2} s; `ferroyolo convert` does it once and for all",
            path.display()
        ));
    }
    Model::from_bytes(&path.display().to_string(), &bytes, options).map_err(|error| Error::at(path, error))
}

/// What a file given as a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Model,
    Checkpoint,
}

fn form_of(path: &Path) -> Result<Form> {
    // Before opening, which waits for a writer if it is a pipe.
    let meta = fs::metadata(path).map_err(|error| Error::at(path, error))?;
    if !meta.is_file() {
        let got = if meta.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(Error::failed(format!("{}: {got}, expected a model file", path.display())));
    }
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("safetensors") => return Ok(Form::Model),
        Some("pt" | "pth" | "pkl") => return Ok(Form::Checkpoint),
        Some(
            other @ ("onnx" | "engine" | "tflite" | "torchscript" | "mlmodel" | "param" | "bin" | "xml"
            | "yaml"),
        ) => {
            return Err(Error::failed(format!(
                "{}: .{other} files are not read; give the .pt checkpoint or the .safetensors converted from it",
                path.display()
            )));
        }
        _ => {}
    }
    let mut start = [0; 2];
    let mut file = File::open(path).map_err(|error| Error::at(path, error))?;
    match file.read_exact(&mut start) {
        // A zip, or a bare pickle, for which the checkpoint reader has an error of its own.
        Ok(()) if start == *b"PK" || start[0] == 0x80 => Ok(Form::Checkpoint),
        _ => Ok(Form::Model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_name_then_content() {
        let dir = tempfile::tempdir().unwrap();
        let form = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            form_of(&path)
        };
        assert_eq!(form("a.safetensors", b"PK").unwrap(), Form::Model);
        assert_eq!(form("a.PT", b"").unwrap(), Form::Checkpoint);
        assert_eq!(form("a", b"PK\x03\x04").unwrap(), Form::Checkpoint);
        assert_eq!(form("b", b"\x08\0\0\0\0\0\0\0{}").unwrap(), Form::Model);
        assert!(form("a.onnx", b"").unwrap_err().chain().contains("not read"));
        assert!(form_of(dir.path()).unwrap_err().chain().contains("is a directory"));
        if cfg!(unix) {
            let error = form_of(Path::new("/dev/zero")).unwrap_err().chain();
            assert!(error.contains("is not a regular file"), "{error}");
        }
    }
}
