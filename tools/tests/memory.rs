//! Memory while files are read: never more than three times the file, whatever is in it.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ferroyolo_tools::{Checkpoint, ConvertOptions, Dtype, convert, inspect};
use testing::{Builder, Py, ZipStyle, doubled, zip};

#[expect(dead_code, reason = "shared with the unit tests, which use all of it")]
#[path = "../src/testing.rs"]
mod testing;

/// Counts the bytes that are allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(n: usize) {
    let now = NOW.fetch_add(n, Relaxed) + n;
    PEAK.fetch_max(now, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it came; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `ptr` came from `alloc` above, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks are counted, as if the allocator had to move it.
        grown(new_size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `ptr` came from `alloc` above, with this layout; the caller vouches for the new size.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `run` takes beyond what was taken before, in multiples of `n_bytes`.
fn ratio(n_bytes: usize, run: impl FnOnce()) -> f64 {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    (PEAK.load(Relaxed) - before) as f64 / n_bytes as f64
}

/// Checks opening, converting and inspecting a file; the file's own bytes count as once.
#[track_caller]
fn check(what: &str, bytes: &[u8], should_open: bool) {
    let scratch = std::env::temp_dir().join(format!("ferroyolo-memory-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let (path, out) = (scratch.join("in.pt"), scratch.join("out.safetensors"));
    let converted = ratio(bytes.len(), || {
        let opened = Checkpoint::from_bytes(what, bytes.to_vec());
        assert_eq!(opened.is_ok(), should_open, "{what}: {:?}", opened.err());
        if let Ok(checkpoint) = opened {
            if let Ok(converted) = convert(&checkpoint, &ConvertOptions { dtype: Dtype::Keep }) {
                assert!(!converted.to_bytes().unwrap().is_empty());
            }
            // A wider file is larger than its checkpoint, so it is written rather than kept.
            if let Ok(converted) = convert(&checkpoint, &ConvertOptions { dtype: Dtype::F32 }) {
                converted.write(&out).unwrap();
            }
        }
    });
    std::fs::write(&path, bytes).unwrap();
    let inspected = ratio(bytes.len(), || {
        assert!(inspect(&path).unwrap().is_refused() || should_open, "{what}");
    });
    std::fs::remove_dir_all(&scratch).unwrap();
    eprintln!(
        "{what}: {} bytes, opened and converted with {converted:.2} times that, inspected with {inspected:.2}",
        bytes.len()
    );
    assert!(converted <= 3.0 && inspected <= 3.0, "{what}: {converted:.2} and {inspected:.2} times the file");
}

/// A checkpoint whose pickle is `start`, then `unit` repeated to this size, then `end`.
fn bomb(start: &[u8], unit: &[u8], end: &[u8], n_bytes: usize) -> Vec<u8> {
    let body = unit.repeat((n_bytes - start.len() - end.len()) / unit.len());
    let pickle = [b"\x80\x02", start, &body, end].concat();
    zip(ZipStyle::Torch, &[("x/data.pkl", &pickle), ("x/byteorder", b"little")])
}

/// One test, because the counters are the process's.
#[test]
fn no_file_takes_more_than_three_times_its_size() {
    // Warm up what is allocated once in a process.
    assert!(Checkpoint::from_bytes("", bomb(b"", b"N", b".", 100)).is_err());

    for n_bytes in [200_000, 4_000_000] {
        for (what, start, unit, end) in [
            ("nones", &b""[..], &b"N"[..], &b"."[..]),
            ("lists", b"", b"]", b"."),
            ("dicts", b"", b"}", b"."),
            ("list of nones", b"](", b"N", b"e."),
            ("list grown one by one", b"]", b"Na", b"."),
            ("list of floats", b"](", b"G\0\0\0\0\0\0\0\0", b"e."),
            ("dict", b"}(", b"K\0N", b"u."),
            ("marks", b"", b"(", b"."),
            ("tuples", b"N", b"\x85", b"."),
            ("tuples side by side", b"](", b"NNN\x87", b"e."),
            ("memo", b"N", b"\x94", b"."),
            ("sparse memo", b"Nr\xff\x00\x03\x00", b"N", b"."),
            ("huge memo index", b"Nr\xff\xff\xff\x7f", b"N", b"."),
            ("huge string", b"X\xff\xff\xff\x7f", b"a", b"."),
            ("long string", b"X\x00\x00\x30\x00", b"a", b"."),
            ("strings", b"](", b"X\0\0\0\0", b"e."),
            ("globals", b"](", b"ctorch\nSize\n", b"e."),
            ("calls", b"](", b"ccollections\nOrderedDict\n)R", b"e."),
            ("calls by memo", b"](ccollections\nOrderedDict\nq\0", b"h\0)R", b"e."),
            ("objects", b"](ctorch.nn.modules.conv\nConv2d\nq\0", b"h\0)\x81}b", b"e."),
            ("refused globals", b"](", b"cos\nsystem\n", b"e."),
            ("refused opcodes", b"", b"N2", b"."),
        ] {
            let bytes = bomb(start, unit, end, n_bytes);
            check(what, &bytes, Checkpoint::from_bytes("", bytes.clone()).is_ok());
        }
    }

    // A tree of modules that holds each level's module twice, in a file that has much besides.
    let tree = [b"}(X\x05\0\0\0model", &doubled(30)[..], b"X\x01\0\0\0x]("].concat();
    let padding = [b"X\xe8\x03\0\0", &[b'a'; 1000][..]].concat();
    check("tree", &bomb(&tree, &padding, b"eu.", 4_000_000), true);

    shared_values();
    wide_batch_norm();

    // A network of a few megabytes, in half and in single precision.
    for is_half in [true, false] {
        let mut builder = Builder::default();
        let (shape, n) = ([512, 256, 3, 3], 512 * 256 * 9);
        let layers =
            (0..4).map(|_| (layer(&mut builder, shape, &vec![0.5; n], is_half), Py::Int(-1))).collect();
        let model = builder.model(layers);
        let bytes = builder.checkpoint(model);
        drop(builder);
        check(if is_half { "half network" } else { "single network" }, &bytes, true);
    }
    check_real_checkpoints();
}

/// The opcodes of a string.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A checkpoint around a pickle, with a storage that nothing names, so that the pickle's own values are few.
fn padded(pickle: &[u8]) -> Vec<u8> {
    let storage = vec![0; 12 * pickle.len().max(1 << 17)];
    zip(ZipStyle::Torch, &[("x/data.pkl", pickle), ("x/byteorder", b"little"), ("x/data/0", &storage)])
}

/// A checkpoint whose `model` holds one module of this class and state under many names.
fn module_in_many_places(class: &[u8], state: &[u8], n: usize) -> Vec<u8> {
    let key = text("model");
    let mut code =
        [b"\x80\x02}", &key[..], b"cultralytics.nn.tasks\nDetectionModel\n)\x81}(", &text("_modules"), b"}("]
            .concat();
    code.extend([&text("m"), class, b")\x81", state, b"bq\0"].concat());
    for idx in 0..n {
        code.extend([&text(&idx.to_string())[..], b"h\0"].concat());
    }
    code.extend(b"uubs.");
    padded(&code)
}

/// One value in many places: whatever is copied for each of them has to be paid for.
fn shared_values() {
    const SEQUENTIAL: &[u8] = b"ctorch.nn.modules.container\nSequential\n";
    const CONV: &[u8] = b"ctorch.nn.modules.conv\nConv2d\n";
    let megabyte = "a".repeat(1 << 20);
    let module = [SEQUENTIAL, b")\x81}b"].concat();
    // The name of a module, of a tensor and of an attribute, and an attribute's text, of every length that matters.
    for n_bytes in [16, 250, 1 << 20] {
        let name = text(&megabyte[..n_bytes]);
        let child = [b"}", &text("_modules")[..], b"}", &name, &module, b"ss"].concat();
        let buffer = [b"}", &text("_buffers")[..], b"}", &name, b"Nss"].concat();
        let attr = [b"}", &name[..], b"K\0s"].concat();
        let value = [b"}", &text("a")[..], &name, b"s"].concat();
        let escaped = [b"}", &text("a")[..], &text(&"\u{1}".repeat(n_bytes)), b"s"].concat();
        for (what, state) in
            [("child", child), ("buffer", buffer), ("attr", attr), ("value", value), ("escapes", escaped)]
        {
            let n = if n_bytes > 1000 { 4000 } else { 60_000 };
            check(&format!("{what} of {n_bytes}"), &module_in_many_places(SEQUENTIAL, &state, n), true);
        }
    }
    // Many items that come to nothing, looked at in many places: this has to end soon.
    let items = [b"}(", &text("_x")[..], b"q\x01N", &b"h\x01N".repeat(50_000), b"u"].concat();
    check("items", &module_in_many_places(CONV, &items, 10_000), true);

    // Keys of the checkpoint, names of classes, and tensors of a state dict.
    let long = text(&megabyte[..200]);
    let keys = [b"}(", &long[..], b"q\0N", &b"h\0N".repeat(400_000), b"u."].concat();
    check("keys", &padded(&[&b"\x80\x02"[..], &keys].concat()), true);
    let model = [b"}", &text("model")[..], b"cultralytics.nn.tasks\nDetectionModel\n)\x81}("].concat();
    let layers =
        [&text("_modules")[..], b"}", &text("model"), SEQUENTIAL, b")\x81}", &text("_modules")].concat();
    let names = [&text("names")[..], b"](", &long, b"q\0", &b"h\0".repeat(400_000), b"e"].concat();
    let layer = [b"}", &text("0")[..], SEQUENTIAL, b")\x81}b"].concat();
    let classes = [b"\x80\x02", &model[..], &layers, &layer, b"ssbs", &names, b"ubs."].concat();
    check("class names", &padded(&classes), true);
}

/// One convolution of many channels and a single input: all that is made of it is larger than it is.
fn wide_batch_norm() {
    let n = 500_000;
    let mut builder = Builder::default();
    let storage = builder.storage("HalfStorage", n, [0, 0x3c].repeat(n));
    let view = |shape: &[usize]| Builder::view(storage.clone(), 0, shape, &testing::contiguous(shape));
    let vectors = ["weight", "bias", "running_mean", "running_var"].map(|name| (name, view(&[n])));
    let eps = vec![("eps", Py::Float(1e-3))];
    let bn = ("torch.nn.modules.batchnorm", "BatchNorm2d");
    let children = vec![
        ("conv", Builder::conv2d_of([n, 1, 1, 1], 1, view(&[n, 1, 1, 1]))),
        ("bn", Builder::module(bn, eps, vectors.to_vec(), vec![])),
    ];
    let conv = Builder::module(("ultralytics.nn.modules.conv", "Conv"), vec![], vec![], children);
    let model = builder.model(vec![(conv, Py::Int(-1))]);
    check("wide batch norm", &builder.checkpoint(model), true);
}

/// The real checkpoints of the folder `shared`, narrow networks with much description to few weights among them.
fn check_real_checkpoints() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("FERROYOLO_SHARED").map_or(beside, PathBuf::from);
    for folder in ["reference/checkpoints", "released", "models", "peers"] {
        // Where the folder has to be there, the tests of the checkpoints themselves fail without it.
        let Ok(entries) = std::fs::read_dir(shared.join(folder)) else {
            eprintln!("skipped: shared/ not found");
            return;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "pt" || extension == "pth") {
                check(&path.display().to_string(), &std::fs::read(&path).unwrap(), true);
            }
        }
    }
}

/// `Conv` with its kernel in half or single precision.
fn layer(builder: &mut Builder, shape: [usize; 4], values: &[f32], is_half: bool) -> Py {
    let kernel = if is_half { builder.half(&shape, values) } else { builder.tensor(&shape, values) };
    let conv = Builder::conv2d_of(shape, 1, kernel);
    let children = vec![
        ("conv", conv),
        ("bn", builder.batch_norm(&[[1.0, 0.0, 0.0, 1.0]; 512])),
        ("act", Builder::act("SiLU")),
    ];
    Builder::module(("ultralytics.nn.modules.conv", "Conv"), vec![], vec![], children)
}
