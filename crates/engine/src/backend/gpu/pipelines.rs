//! What a driver has compiled, kept for the next process.
//!
//! A driver trusts what it is given here. So the file says what it is: whose pipelines, how many bytes and their
//! SHA-256. Whatever is cut off, changed or another device's is not given to a driver, but made anew.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::{kept, trust};

/// What a file begins with: a name, and the version of its form.
const MAGIC: [u8; 8] = *b"FYPIPES\x01";

/// Far more than the pipelines of many models take.
const MAX_BYTES: u64 = 256 << 20;

/// Bytes of a SHA-256.
const SUM: usize = 32;

/// The pipelines of a device, and the file that they are kept in.
#[derive(Debug)]
pub(super) struct Pipelines {
    cache: wgpu::PipelineCache,
    /// Adapter and driver.
    key: String,
    place: PathBuf,
    /// Whether something was compiled that the file does not have.
    has_news: AtomicBool,
}

/// Bytes that came out of a driver, by way of a file that has not been changed since.
pub(super) struct Proven(Vec<u8>);

impl Proven {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Pipelines {
    /// With what `folder` keeps for this adapter. None if the device can't keep pipelines.
    pub(super) fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let info = device.adapter_info();
        let of_device = wgpu::util::pipeline_cache_key(&info)?;
        let key = format!("{of_device} {} {} {}", info.name, info.driver, info.driver_info);
        let place = folder.join(format!("gpu-pipelines-{:016x}.bin", kept::hash(&key)));
        let proven = read(&place, &key);
        let cache = trust::pipeline_cache(device, proven.as_ref());
        Some(Self { cache, key, place, has_news: AtomicBool::new(false) })
    }

    /// For a pipeline that is to be compiled.
    pub(super) fn for_compiling(&self) -> &wgpu::PipelineCache {
        self.has_news.store(true, Ordering::Relaxed);
        &self.cache
    }

    /// Writes the file if something was compiled since. It is only a memory: nothing is lost if that fails.
    pub(super) fn save(&self) {
        if !self.has_news.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Some(data) = self.cache.get_data()
            && read(&self.place, &self.key).is_none_or(|known| known.0 != data)
        {
            // Only the next process would be faster.
            let _ = kept::write_whole(&self.place, &encode(&self.key, &data));
        }
    }
}

/// What the file has for `key`, if it is whole.
fn read(place: &Path, key: &str) -> Option<Proven> {
    decode(&kept::read_whole(place, MAX_BYTES)?, key)
}

/// A file: magic, the lengths of key and data as little-endian 64-bit numbers, both, and the SHA-256 of all that.
fn encode(key: &str, data: &[u8]) -> Vec<u8> {
    let lengths = [key.len(), data.len()].map(|len| (len as u64).to_le_bytes());
    let mut bytes = [&MAGIC, &lengths[0], &lengths[1], key.as_bytes(), data].concat();
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The data of a file, if it is whole and has this key.
fn decode(bytes: &[u8], key: &str) -> Option<Proven> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    if Sha256::digest(content).as_slice() != sum {
        return None;
    }
    let rest = content.strip_prefix(&MAGIC)?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (data_len, rest) = rest.split_first_chunk()?;
    let data = rest.strip_prefix(key.as_bytes())?;
    let is_as_long = u64::from_le_bytes(*key_len) == key.len() as u64
        && u64::from_le_bytes(*data_len) == data.len() as u64;
    is_as_long.then(|| Proven(data.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::for_tests;
    use crate::backend::gpu::tests::{SMALL, demo};

    /// The only file of a folder, if there is one.
    fn only_file(folder: &Path) -> Option<PathBuf> {
        let mut files = fs::read_dir(folder).ok()?.map(|entry| entry.expect("an entry").path());
        let first = files.next();
        assert!(files.next().is_none(), "several files in {}", folder.display());
        first
    }

    #[test]
    fn pipelines_are_kept_and_spoilt_files_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = || {
            let gpu = for_tests(Element::F32)?.keep_pipelines(Some(folder.path()));
            let can_keep = gpu.adapter().has_pipeline_cache;
            demo(gpu).plan(SMALL).expect("a plan");
            Some(can_keep)
        };
        let Some(can_keep) = plan() else { return };
        let file = only_file(folder.path());
        assert_eq!(file.is_some(), can_keep);
        let Some(file) = file else { return };
        let whole = fs::read(&file).expect("the file");
        assert!(whole.starts_with(&MAGIC));
        for len in [0, 7, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..len]).expect("a file");
            plan();
            assert_eq!(only_file(folder.path()).as_ref(), Some(&file));
            let again = fs::read(&file).expect("the file");
            assert!(again.starts_with(&MAGIC) && again.len() > len, "{len} of {} bytes", whole.len());
        }
        // What is whole is used, and stays.
        plan();
        assert!(fs::read(&file).expect("the file").starts_with(&MAGIC));
    }

    #[test]
    fn folders_that_can_not_be_written_to_do_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, []).expect("a file");
        let Some(gpu) = for_tests(Element::F32) else { return };
        demo(gpu.keep_pipelines(Some(&file.join("below")))).plan(SMALL).expect("a plan");
        assert!(fs::read(&file).expect("the file").is_empty());
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("new").join("pipelines");
        for data in [&b""[..], b"pipelines", &[0; 5000]] {
            kept::write_whole(&place, &encode("device 1", data)).expect("a file");
            assert_eq!(read(&place, "device 1").expect("the file").bytes(), data);
            assert!(read(&place, "device 2").is_none());
            assert!(read(&place, "device").is_none());
            assert!(read(&place, "device 1p").is_none());
        }
        assert!(read(&folder.path().join("absent"), "device 1").is_none());
        assert!(read(folder.path(), "device 1").is_none());
    }

    /// No byte may change or be missing.
    #[test]
    fn what_was_changed_is_not_used() {
        let whole = encode("key", b"some pipelines");
        assert!(decode(&whole, "key").is_some());
        for len in 0..whole.len() {
            assert!(decode(&whole[..len], "key").is_none(), "{len} bytes");
        }
        for idx in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[idx] ^= 1 << bit;
                assert!(decode(&changed, "key").is_none(), "byte {idx}, bit {bit}");
            }
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(decode(&longer, "key").is_none());
        // Whole, but with lengths that are not those of what follows.
        let mut content = whole[..whole.len() - SUM].to_vec();
        content[MAGIC.len()] += 1;
        let sum = Sha256::digest(&content);
        content.extend_from_slice(&sum);
        assert!(decode(&content, "key").is_none());
    }
}
