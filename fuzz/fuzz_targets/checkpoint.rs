//! Arbitrary pickles in a sound archive with a few storages: conversion ends in a file or an error.
#![no_main]

use ferroyolo_tools::{Checkpoint, ConvertOptions, Dtype, convert};
use libfuzzer_sys::fuzz_target;
use testing::{ZipStyle, zip};

#[expect(dead_code, reason = "shared with the tests of the tools")]
#[path = "../../tools/src/testing.rs"]
mod testing;

fuzz_target!(|pickle: &[u8]| {
    let storages: [&[u8]; 4] = [&[0; 4], &[0x3c; 36], &[1; 72], &[0; 8]];
    let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", pickle), ("x/byteorder", b"little")];
    entries.extend(["x/data/0", "x/data/1", "x/data/2", "x/data/3"].into_iter().zip(storages));
    let bytes = zip(ZipStyle::Plain, &entries);
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz.pt", bytes) else { return };
    for dtype in [Dtype::Keep, Dtype::F16, Dtype::F32] {
        if let Ok(converted) = convert(&checkpoint, &ConvertOptions { dtype }) {
            let file = converted.to_bytes().expect("what is converted can be written");
            assert!(file.len() >= converted.summary().n_bytes);
        }
    }
});
