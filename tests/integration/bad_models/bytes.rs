//! Files that are damaged before the network can be read.

use serde_json::{Value, json};

use super::{FORMAT, File, MODEL, check, golden_bytes, join};

#[test]
fn truncated_files() {
    let bytes = golden_bytes("detect8");
    let header_len = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let all_of = 0..=40;
    let around_header = header_len - 20..=header_len + 20;
    let all_over = (0..bytes.len()).step_by(997);
    for len in all_of.chain(around_header).chain(all_over).chain([bytes.len() - 2, bytes.len() - 1]) {
        check(&bytes[..len], &["safetensors"]);
    }
}

#[test]
fn bytes_after_the_last_tensor() {
    check(&[golden_bytes("detect8"), vec![0; 5]].concat(), &["safetensors"]);
}

#[test]
fn lengths_of_the_header_that_lie() {
    let bytes = golden_bytes("detect8");
    let (len, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let len = u64::from_le_bytes(*len);
    let file_len = bytes.len() as u64;
    for lie in
        [u64::MAX, u64::MAX - 7, i64::MAX as u64, 1 << 32, file_len - 7, file_len, 0, 1, 2, len - 1, len + 1]
    {
        check(&[&lie.to_le_bytes(), rest].concat(), &["safetensors"]);
    }
}

#[test]
fn noise_and_other_files() {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for len in [1, 7, 8, 9, 100, 1000, 100_000] {
        let noise: Vec<u8> = (0..len).map(|_| next()).collect();
        check(&noise, &["safetensors"]);
        check(&join(&noise, &[]), &["safetensors"]);
    }
    for start in ["PK\u{3}\u{4}", "{}", "<!DOCTYPE html>"] {
        check(&[start.as_bytes(), &[b' '; 500]].concat(), &["safetensors"]);
    }
}

#[test]
fn headers_that_describe_no_tensors() {
    let data = &[0; 64];
    let entry =
        |shape: Value, offsets: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let metadata = Value::Object(File::golden().metadata);
    for tensor in [
        entry(json!([1]), json!([0, 8])),
        entry(json!([u64::MAX, 4]), json!([0, 16])),
        entry(json!([1u64 << 62, 1u64 << 62]), json!([0, 0])),
        entry(json!([2]), json!([8, 0])),
        entry(json!([2]), json!([u64::MAX - 7, u64::MAX])),
        entry(json!([-1]), json!([0, 4])),
        entry(json!("x"), json!([0, 4])),
        json!({"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}),
        json!(5),
    ] {
        let header = json!({"__metadata__": &metadata, "model.0.conv.weight": tensor});
        check(&join(header.to_string().as_bytes(), data), &["safetensors"]);
    }
    for header in ["[]", "null", "5", "\"\"", "{", "{}}"] {
        check(&join(header.as_bytes(), data), &[]);
    }
    let nested = "[".repeat(1_000_000);
    check(&join(nested.as_bytes(), data), &["safetensors"]);
}

#[test]
fn files_without_a_network() {
    let mut file = File::golden();
    file.metadata.remove(FORMAT);
    check(&file.bytes(), &[FORMAT, "missing"]);
    file.metadata.clear();
    check(&file.bytes(), &[FORMAT, "missing"]);
    let mut file = File::golden();
    file.metadata.remove(MODEL);
    check(&file.bytes(), &[MODEL, "missing"]);
    for version in ["2", "", "1.0"] {
        let mut file = File::golden();
        file.metadata.insert(FORMAT.into(), version.into());
        check(&file.bytes(), &[FORMAT, &format!("{version:?}")]);
    }
}
