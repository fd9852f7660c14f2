//! Arbitrary bytes as a pickle: reading ends in values or an error, and the scan refuses whatever the reader does.
#![no_main]

use std::sync::Arc;

use ferroyolo_tools::pickle::{Pickle, scan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = Pickle::parse(Arc::new(bytes.to_vec()), 0..bytes.len());
    let scanned = scan(bytes);
    if parsed.is_ok() {
        assert!(scanned.refused.is_empty(), "read, but refused by the scan: {:?}", scanned.refused);
    }
});
