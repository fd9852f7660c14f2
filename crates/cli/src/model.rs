//! From `--model` to a loaded model: files, checkpoints, well-known names, and the model that is built in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ferroyolo::{Head, Isa, Model, ModelOptions};
use ferroyolo_tools::{Checkpoint, ConvertOptions, convert};

use crate::args::ModelArgs;
use crate::builtin;
use crate::error::{Error, Result};
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

/// Loads the model that `args` ask for, to use `threads` or all CPUs; notices go to stderr unless `quiet`.
pub fn load(args: &ModelArgs, threads: Option<usize>, quiet: bool) -> Result<Loaded> {
    let options = ModelOptions {
        device: args.device,
        precision: args.precision,
        threads,
        isa: args.isa.as_deref().map(find_isa).transpose()?,
    };
    let Some(given) = &args.model else {
        let built_in = builtin::model(args.task)?;
        let model = Model::from_bytes(built_in.name, built_in.bytes, &options)?;
        return Ok(Loaded { model, name: built_in.name.into(), path: None });
    };
    let path = locate(given, cache_directory())?;
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

/// The file that `given` means: a path, or a well-known name that is in the directory `cache`.
fn locate(path: &Path, cache: Option<PathBuf>) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.into());
    }
    let given = path.display();
    let Some(known) = path.to_str().and_then(WellKnown::parse) else {
        let is_path = path.components().count() > 1 || path.extension().is_some();
        let also = if is_path { "" } else { ", and no well-known model has this name" };
        return Err(Error::failed(format!("{given}: no such file or directory{also}")));
    };
    let places = cache.iter().flat_map(|directory| {
        ["safetensors", "pt", "pth"].map(|extension| directory.join(format!("{}.{extension}", known.stem)))
    });
    if let Some(found) = places.into_iter().find(|place| place.is_file()) {
        return Ok(found);
    }
    let place = cache.map_or_else(
        || "set FERROYOLO_CACHE to a directory that holds it".to_string(),
        |directory| format!("put it into {}", directory.display()),
    );
    Err(Error::failed(format!(
        "{given}: not here and not in the cache; download {file} from {page} ({license}), then {place} or give its path",
        file = known.file,
        page = known.page,
        license = known.license,
    )))
}

/// `$FERROYOLO_CACHE`, else the user's cache directory.
fn cache_directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || match std::env::consts::OS {
        "windows" => variable("LOCALAPPDATA"),
        "macos" => variable("HOME").map(|home| home.join("Library/Caches")),
        _ => variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache"))),
    };
    variable("FERROYOLO_CACHE").or_else(|| user().map(|cache| cache.join("ferroyolo")))
}

/// A published model, by its name.
#[derive(Debug, PartialEq, Eq)]
struct WellKnown {
    /// The name without an extension.
    stem: String,
    /// The file as published.
    file: String,
    /// Where it is published.
    page: &'static str,
    /// Its licence.
    license: &'static str,
}

/// Names of published networks, their sizes, and the tasks of which there are variants.
const FAMILIES: [(&str, &str, &[&str]); 6] = [
    ("yolov8", "nsmlx", &["-seg", "-pose", "-obb", "-cls"]),
    ("yolov9", "tsmce", &["-seg"]),
    ("yolov10", "nsmblx", &[]),
    ("yolo11", "nsmlx", &["-seg", "-pose", "-obb", "-cls"]),
    ("yolo12", "nsmlx", &[]),
    ("yolo26", "nsmlx", &["-seg", "-pose", "-obb", "-cls"]),
];

impl WellKnown {
    fn parse(name: &str) -> Option<Self> {
        let stem = ["pt", "pth", "safetensors"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension)?.strip_suffix('.'))
            .unwrap_or(name);
        if let Some("nano" | "tiny" | "s" | "m" | "l" | "x") = stem.strip_prefix("yolox_") {
            return Some(Self {
                stem: stem.into(),
                file: format!("{stem}.pth"),
                page: "https://github.com/Megvii-BaseDetection/YOLOX/releases/tag/0.1.1rc0",
                license: "Apache-2.0",
            });
        }
        let in_family = FAMILIES.iter().any(|(family, sizes, tasks)| {
            stem.strip_prefix(family).is_some_and(|rest| {
                let mut rest = rest.chars();
                let size = rest.next().is_some_and(|size| sizes.contains(size));
                size && (rest.as_str().is_empty() || tasks.contains(&rest.as_str()))
            })
        });
        let in_yolov5 =
            stem.strip_prefix("yolov5").and_then(|rest| rest.strip_suffix('u')).is_some_and(|rest| {
                let size = rest.strip_suffix('6').unwrap_or(rest);
                matches!(size, "n" | "s" | "m" | "l" | "x")
            });
        let in_yolov3 = matches!(stem, "yolov3u" | "yolov3-tinyu" | "yolov3-sppu");
        (in_family || in_yolov5 || in_yolov3).then(|| Self {
            stem: stem.into(),
            file: format!("{stem}.pt"),
            page: "https://github.com/ultralytics/assets/releases",
            license: "AGPL-3.0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_are_known() {
        for name in [
            "yolo11n",
            "yolo11n.pt",
            "yolov8x-seg",
            "yolov9c",
            "yolov10b",
            "yolo26s-pose",
            "yolov5n6u",
            "yolov3-tinyu",
            "yolox_nano",
            "yolox_l.pth",
        ] {
            let known = WellKnown::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert!(name.starts_with(&known.stem));
        }
        for name in [
            "",
            "yolo",
            "yolo11",
            "yolo11z",
            "yolo11nn",
            "yolov5n",
            "models/yolo11n.pt",
            "yolox_huge",
            "bus.jpg",
        ] {
            assert_eq!(WellKnown::parse(name), None, "{name}");
        }
    }

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

    #[test]
    fn well_known_names_are_found_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name: &str| locate(Path::new(name), Some(dir.path().to_path_buf()));
        let error = find("yolox_nano").unwrap_err().chain();
        assert!(error.contains("yolox_nano.pth") && error.contains("https://"), "{error}");
        fs::write(dir.path().join("yolox_nano.pth"), b"").unwrap();
        assert_eq!(find("yolox_nano").unwrap(), dir.path().join("yolox_nano.pth"));
        fs::write(dir.path().join("yolox_nano.safetensors"), b"").unwrap();
        assert_eq!(find("yolox_nano.pth").unwrap(), dir.path().join("yolox_nano.safetensors"));
        assert!(find("absent/x.pt").unwrap_err().chain().contains("no such file"));
        assert!(find("yolo99").unwrap_err().chain().contains("no well-known model"));
    }
}
