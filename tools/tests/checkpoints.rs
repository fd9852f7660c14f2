//! Real and hostile files of the folder `shared`, which stands beside the project where there is one.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::path::{Path, PathBuf};

use ferroyolo_tools::{
    Checkpoint, ConvertOptions, Converted, Dtype, ErrorKind, Inspection, convert, inspect,
};
use testing::{Builder, Py, ZipStyle, dict, zip};

#[expect(dead_code, reason = "shared with the unit tests, which use all of it")]
#[path = "../src/testing.rs"]
mod testing;

/// The folder, by `FERROYOLO_SHARED` or beside the workspace.
///
/// Without it a test has nothing to look at and says so; where it has to be there (`CI=true` or
/// `FERROYOLO_REQUIRE_SHARED=1`), the test fails.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let path = std::env::var_os("FERROYOLO_SHARED").map_or(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    let is = |name, value| std::env::var(name).is_ok_and(|got| got == value);
    assert!(
        !is("CI", "true") && !is("FERROYOLO_REQUIRE_SHARED", "1"),
        "shared/ not found at {}",
        path.display()
    );
    eprintln!("skipped: shared/ not found");
    None
}

/// The files of a folder with one of these extensions, in the order of their names.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|of| extensions.iter().any(|extension| of == *extension)))
        .collect();
    files.sort();
    files
}

fn convert_file(path: &Path, dtype: Dtype) -> Converted {
    let converted =
        Checkpoint::open(path).and_then(|checkpoint| convert(&checkpoint, &ConvertOptions { dtype }));
    converted.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_real_checkpoint_is_converted() {
    let Some(shared) = shared() else { return };
    let folders = [("reference/checkpoints", 31), ("released", 2), ("models", 3), ("peers", 3)];
    for (folder, n) in folders {
        let files = files(&shared.join(folder), &["pt", "pth"]);
        assert!(files.len() >= n, "{folder} has {} checkpoints", files.len());
        for path in files {
            let converted = convert_file(&path, Dtype::Keep);
            let bytes = converted.to_bytes().unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.len(), converted.summary().n_tensors);
            let document = converted.document();
            assert!(!document.names.is_empty() && !document.stride.is_empty());
            assert!(document.provenance.version.is_some() || document.provenance.producer == "yolox");
            assert!(!inspect(&path).unwrap().is_refused(), "{}", path.display());
            // Nothing of where the checkpoint was made may leak.
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            assert!(!header.metadata().as_ref().unwrap()["ferroyolo.model"].contains("/home/"));
        }
    }
}

#[test]
fn half_precision_kernels_keep_their_bytes() {
    let Some(shared) = shared() else { return };
    let path = shared.join("peers/yolo11n.pt");
    let kept = convert_file(&path, Dtype::Keep).to_bytes().unwrap();
    let single = convert_file(&path, Dtype::F32).to_bytes().unwrap();
    let half = convert_file(&path, Dtype::F16).to_bytes().unwrap();
    assert!(kept == half, "half-precision checkpoints are kept as they are");
    let read = |bytes| safetensors::SafeTensors::deserialize(bytes).unwrap();
    let (kept, single) = (read(&kept), read(&single));
    assert!(single.tensor("model.0.conv.weight").unwrap().data().len() == 4 * 16 * 27);
    for (name, tensor) in kept.iter() {
        let is_kernel = name.ends_with(".weight");
        assert_eq!(
            tensor.dtype(),
            if is_kernel { safetensors::Dtype::F16 } else { safetensors::Dtype::F32 },
            "{name}"
        );
        let widened: Vec<u8> = match is_kernel {
            true => tensor
                .data()
                .chunks_exact(2)
                .flat_map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32().to_le_bytes())
                .collect(),
            false => tensor.data().to_vec(),
        };
        assert!(widened == single.tensor(name).unwrap().data(), "{name}");
    }
}

#[test]
fn known_networks_are_described_as_they_are() {
    let Some(shared) = shared() else { return };
    let converted = convert_file(&shared.join("released/yolo11n-released.pt"), Dtype::Keep);
    let document = converted.document();
    assert_eq!((document.task.as_str(), document.imgsz, document.names.len()), ("detect", [640, 640], 80));
    assert_eq!((document.names[0].as_str(), document.names[79].as_str()), ("person", "toothbrush"));
    assert_eq!(document.provenance.version.as_deref(), Some("8.2.100"));
    assert_eq!(
        document.provenance.license.as_deref(),
        Some("AGPL-3.0 License (https://ultralytics.com/license)")
    );
    assert_eq!(document.layers.len(), 24);
    assert_eq!(document.layers[12].from, [11, 6]);
    assert_eq!(document.layers[23].from, [16, 19, 22]);
    let detect = &document.layers[23].module;
    let children: Vec<_> = detect.children.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((detect.class.as_str(), children), ("Detect", vec!["cv2", "cv3", "dfl"]));
    assert_eq!(converted.tensors().count(), 255);

    let converted = convert_file(&shared.join("reference/checkpoints/yolov10n.pt"), Dtype::Keep);
    let head = &converted.document().layers[23].module;
    assert!(head.child("cv2").is_some() && head.child("one2one_cv3").is_some());

    let converted = convert_file(&shared.join("models/yolox_nano.pth"), Dtype::Keep);
    let document = converted.document();
    assert_eq!((document.imgsz, document.names.len(), document.input.color), ([416, 416], 80, "bgr"));
    let depthwise = document.layers[1].module.child("dconv").unwrap().child("conv").unwrap();
    assert_eq!(depthwise.attrs["groups"], 16);
}

#[test]
fn every_hostile_pickle_is_refused_by_name() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("hostile/pickles");
    let samples = files(&folder, &["pkl", "bin", "zip"]);
    assert!(samples.len() >= 50, "{} samples", samples.len());
    let scratch = std::env::temp_dir().join(format!("ferroyolo-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    for path in samples {
        let bytes = std::fs::read(&path).unwrap();
        let wrapped = zip(
            ZipStyle::Torch,
            &[("x/data.pkl", &bytes), ("x/byteorder", b"little"), ("x/version", b"3\n")],
        );
        let is_zip = bytes.starts_with(b"PK");
        for (what, bytes) in [("bare", bytes), ("wrapped", wrapped)] {
            let name = format!("{} {what}", path.display());
            let error = Checkpoint::from_bytes(&name, bytes.clone()).expect_err(&name);
            let message = error.to_string();
            assert!(message.starts_with(&name), "{message}");
            let names_it = message.contains("opcode ") || message.contains("is not a pickle opcode");
            assert!(names_it || (is_zip && what == "bare"), "{message}");
            assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::Corrupt), "{error:?}");
            let file = scratch.join("sample.pt");
            std::fs::write(&file, &bytes).unwrap();
            let inspection = inspect(&file).unwrap();
            assert!(inspection.is_refused(), "{name}");
            if !is_zip && !name.contains("malicious23") {
                assert!(inspection.globals.iter().any(|global| !global.allowed), "{name}: {inspection}");
            }
        }
    }
    // The samples would have left files, had anything of them run.
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1);
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// Inspects `bytes`, which have to be refused with a reason that has `part` in it.
#[track_caller]
fn check_inspect_refuses(what: &str, bytes: &[u8], part: &str) -> Inspection {
    let path = std::env::temp_dir().join(format!("ferroyolo-inspect-{what}-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let inspection = inspect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(
        inspection.refused.iter().any(|reason| reason.contains(part)),
        "{what}: {:?}",
        inspection.refused
    );
    inspection
}

/// A network of one convolution with this kernel.
fn one_conv(kernel: f32) -> Vec<u8> {
    let mut builder = Builder::default();
    let layer = builder.conv([1, 1, 1, 1], 1, &[kernel], &[[1.0, 0.0, 0.0, 1.0]], "SiLU");
    let model = builder.model(vec![(layer, Py::Int(-1))]);
    builder.checkpoint(model)
}

#[test]
fn inspect_refuses_what_convert_refuses() {
    let refuse = |what: &str, root: Py, part: &str| {
        let bytes = Builder::default().archive(&root);
        let checkpoint = Checkpoint::from_bytes(what, bytes.clone()).unwrap();
        assert!(convert(&checkpoint, &ConvertOptions::default()).is_err());
        check_inspect_refuses(what, &bytes, part)
    };
    let no_network = refuse("no-network", dict([("model", Py::None)]), "no network found");
    assert_eq!(no_network.keys, ["model"], "what can be listed still is");
    let class = ("ultralytics.nn.tasks", "DetectionModel");
    let no_layers =
        refuse("no-layers", Builder::module(class, vec![], vec![], vec![]), "no sequence of layers");
    assert_eq!(no_layers.classes.len(), 1);
    let nan = check_inspect_refuses("nan", &one_conv(f32::NAN), "model.0.conv.weight: element 0 is NaN");
    assert_eq!((nan.refused.len(), nan.tensors.len()), (1, 5));

    // A memoised name of a megabyte is refused by both.
    let long = Builder::module(class, vec![], vec![], vec![(&"a".repeat(1 << 20), Py::None)]);
    refuse("long-name", dict([("model", long)]), "name of a module has 1048576 bytes, 256 are the most");
}

#[test]
fn inspect_refuses_safetensors_that_are_no_models() {
    let bytes = convert(&Checkpoint::from_bytes("m.pt", one_conv(1.5)).unwrap(), &ConvertOptions::default())
        .unwrap()
        .to_bytes()
        .unwrap();
    let path = std::env::temp_dir().join(format!("ferroyolo-inspect-sound-{}", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    assert!(!inspect(&path).unwrap().is_refused());
    std::fs::remove_file(&path).unwrap();

    let replaced = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let other = replaced(b"ferroyolo.format", b"something.format");
    let other = check_inspect_refuses("other", &other, "ferroyolo.format: missing");
    assert_eq!(other.tensors.len(), 3);
    let newer = replaced(b"\"ferroyolo.format\":\"1\"", b"\"ferroyolo.format\":\"2\"");
    check_inspect_refuses("newer", &newer, "is version `2`");
    let inf = replaced(&1.5f32.to_le_bytes(), &f32::INFINITY.to_le_bytes());
    check_inspect_refuses("inf", &inf, "model.0.conv.weight: element 0 is inf");
}

#[test]
fn other_files_are_told_what_they_are() {
    let refusal = |bytes: &[u8]| Checkpoint::from_bytes("f", bytes.to_vec()).unwrap_err().to_string();
    assert_eq!(refusal(b""), "f: file is empty");
    assert!(refusal(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").contains("legacy torch file"));
    assert!(refusal(b"\x80\x02}.").contains("bare pickle without"));
    assert!(refusal(b"\x80\x02cos\nsystem\n.").contains("`os system`"));
    assert!(refusal(b"\x02\0\0\0\0\0\0\0{}").contains("safetensors file"));
    assert!(refusal(&zip(ZipStyle::Plain, &[("a.txt", b"x")])).contains("no <name>/data.pkl"));
    assert!(
        refusal(&zip(ZipStyle::Plain, &[("m/data.pkl", b"N."), ("m/code/x.py", b"")]))
            .contains("TorchScript")
    );
    assert!(
        refusal(&zip(ZipStyle::Plain, &[("m/data.pkl", b"N."), ("n/data.pkl", b"N.")]))
            .contains("more than one")
    );
    assert!(refusal(&zip(ZipStyle::Plain, &[("m/data.pkl", b"N."), ("x", b"")])).contains("outside"));
    let big = zip(ZipStyle::Plain, &[("m/data.pkl", b"N."), ("m/byteorder", b"big")]);
    assert!(refusal(&big).contains("only `little`"));
    let yolov5 = zip(ZipStyle::Plain, &[("m/data.pkl", b"\x80\x02cmodels.yolo\nModel\n.")]);
    assert!(refusal(&yolov5).contains("not supported"));
    let missing = Checkpoint::open("no/such/file.pt".as_ref()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(missing.to_string().starts_with("no/such/file.pt: "));
    assert_eq!(Checkpoint::open(std::env::temp_dir().as_ref()).unwrap_err().kind(), ErrorKind::Io);
}
