//! Model files that are damaged, that lie or that ask for nonsense: each is an error that names what is wrong.

mod blocks;
mod bytes;
mod documents;
mod mutations;
mod tensors;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::process::Command;

use ferroyolo::{Error, Model, ModelOptions};
use ferroyolo_tests::{read, root};
use serde_json::{Map, Value, json};

const FORMAT: &str = "ferroyolo.format";
const MODEL: &str = "ferroyolo.model";

/// Address space in which every lying file has to be refused. Loading the golden itself takes a small part of it.
const MEMORY_KIB: usize = 1 << 20;

/// A model file taken apart.
struct File {
    metadata: Map<String, Value>,
    tensors: BTreeMap<String, Stored>,
}

struct Stored {
    dtype: &'static str,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// The bytes of a model file of `tests/goldens`.
fn golden_bytes(name: &str) -> Vec<u8> {
    read(&root().join(format!("tests/goldens/{name}.model.safetensors")))
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> (Map<String, Value>, &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header's length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).expect("a header"), data)
}

fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

impl File {
    /// The model file that most tests spoil.
    fn golden() -> Self {
        Self::open("detect8")
    }

    fn open(name: &str) -> Self {
        let bytes = golden_bytes(name);
        let (mut header, data) = split(&bytes);
        let Some(Value::Object(metadata)) = header.remove("__metadata__") else { panic!("no metadata") };
        let numbers =
            |value: &Value| -> Vec<usize> { serde_json::from_value(value.clone()).expect("numbers") };
        let stored = |entry: &Value| {
            let offsets = numbers(&entry["data_offsets"]);
            Stored {
                dtype: if entry["dtype"] == "F16" { "F16" } else { "F32" },
                shape: numbers(&entry["shape"]),
                data: data[offsets[0]..offsets[1]].to_vec(),
            }
        };
        Self { metadata, tensors: header.iter().map(|(name, entry)| (name.clone(), stored(entry))).collect() }
    }

    fn document(&self) -> Value {
        serde_json::from_str(self.metadata[MODEL].as_str().expect("a text")).expect("a document")
    }

    fn with_document(mut self, text: impl Into<String>) -> Self {
        self.metadata.insert(MODEL.into(), Value::String(text.into()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(self.metadata.clone()))]);
        let mut data = Vec::new();
        for (name, Stored { dtype, shape, data: values }) in &self.tensors {
            let begin = data.len();
            data.extend_from_slice(values);
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert(name.clone(), entry);
        }
        join(Value::Object(header).to_string().as_bytes(), &data)
    }
}

fn load(bytes: &[u8]) -> Result<Model, Error> {
    Model::from_bytes("bad.safetensors", bytes, &ModelOptions { threads: Some(1), ..ModelOptions::default() })
}

/// An error and its causes as one text.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("a String takes any text");
        source = cause.source();
    }
    text
}

/// Loading fails, with an error that names the file and says each of `expected`.
#[track_caller]
fn check(bytes: &[u8], expected: &[&str]) {
    let Err(error) = load(bytes) else { panic!("was loaded, expected an error with {expected:?}") };
    let text = text(&error);
    for part in ["bad.safetensors"].iter().chain(expected) {
        assert!(text.contains(part), "expected {part:?} in {text:?}");
    }
}

#[track_caller]
fn check_document(expected: &[&str], edit: impl FnOnce(&mut Value)) {
    let file = File::golden();
    let mut document = file.document();
    edit(&mut document);
    check(&file.with_document(document.to_string()).bytes(), expected);
}

#[track_caller]
fn check_tensors(expected: &[&str], edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let mut file = File::golden();
    edit(&mut file.tensors);
    check(&file.bytes(), expected);
}

/// Puts layers between the first two; all that follow still take what they took.
fn insert_layers(document: &mut Value, modules: impl IntoIterator<Item = (Vec<i64>, Value)>) {
    let layers = document["layers"].as_array_mut().expect("layers");
    let modules: Vec<_> = modules.into_iter().collect();
    let n = modules.len();
    for layer in layers.iter_mut().skip(1) {
        layer["index"] = json!(layer["index"].as_u64().expect("an index") + n as u64);
        for from in layer["from"].as_array_mut().expect("a list") {
            *from = json!(from.as_i64().expect("a number") + n as i64);
        }
    }
    for (idx, (from, module)) in modules.into_iter().enumerate() {
        layers.insert(
            1 + idx,
            json!({"index": 1 + idx, "from": from, "path": format!("extra.{idx}"), "module": module}),
        );
    }
}

#[test]
fn the_golden_itself_survives_being_taken_apart() {
    load(&File::golden().bytes()).expect("an untouched model");
}

/// Runs the tests above once more in a process that may not have much memory.
#[test]
#[cfg(target_os = "linux")]
fn lying_files_need_little_memory() {
    let own = std::env::current_exe().expect("the path of this test");
    let script = format!(
        r#"ulimit -v {MEMORY_KIB} && exec "$0" bad_models --skip little_memory --skip any_ --test-threads 2"#
    );
    let output = Command::new("sh").arg("-c").arg(script).arg(own).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("truncated_files ... ok") && said.contains("sizes_that_overflow ... ok"), "{said}");
}
