//! Arbitrary bytes as an archive: every entry of what is accepted lies inside it and apart from the others.
#![no_main]

use ferroyolo_tools::Checkpoint;
use ferroyolo_tools::zip::Archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(archive) = Archive::parse(bytes) {
        let mut ranges: Vec<_> = archive.iter(bytes).map(|(_, range)| range).collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.iter().all(|range| range.end <= bytes.len()));
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let _ = Checkpoint::from_bytes("fuzz.pt", bytes.to_vec());
    }
});
