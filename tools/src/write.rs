//! Writes safetensors: an 8-byte header length, a JSON header, the tensors' bytes one after the other.
//!
//! Written here rather than with the `safetensors` crate for two reasons: the same input gives the same bytes (that
//! crate keeps the metadata in a hash map), and tensors are converted one at a time while they are written.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::torch::ScalarType;

/// Headers longer than this are refused by readers of the format.
const MAX_HEADER: usize = 100_000_000;

/// One tensor of the file to write.
#[derive(Clone, Debug)]
pub(crate) struct OutTensor {
    pub(crate) name: String,
    pub(crate) ty: ScalarType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// Where a tensor's elements come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// These bytes of the checkpoint, elements of this type.
    File(Range<usize>, ScalarType),
    /// Elements of the tensor's own type.
    Owned(Vec<u8>),
}

impl OutTensor {
    /// An F32 tensor; errors, naming it, if a value is not finite as `f32`.
    pub(crate) fn f32(
        name: String,
        shape: Vec<usize>,
        values: impl IntoIterator<Item = f64>,
    ) -> Result<Self> {
        let mut bytes = Vec::with_capacity(4 * shape.iter().product::<usize>());
        for (idx, value) in values.into_iter().enumerate() {
            let value = value as f32;
            if !value.is_finite() {
                return Err(Error::tensor(name, format!("element {idx} becomes {value} in 32 bits")));
            }
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Ok(Self { name, ty: ScalarType::F32, shape, data: Data::Owned(bytes) })
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_elements() * self.ty.size()
    }

    fn write(&self, out: &mut impl Write, file: &[u8]) -> io::Result<()> {
        /// Elements converted at a time, so that no tensor is in memory twice.
        const BLOCK: usize = 1 << 14;
        match &self.data {
            Data::Owned(bytes) => out.write_all(bytes),
            Data::File(range, ty) if *ty == self.ty => out.write_all(&file[range.clone()]),
            Data::File(range, ty) => file[range.clone()]
                .chunks(BLOCK * ty.size())
                .try_for_each(|block| out.write_all(&convert(block, *ty, self.ty))),
        }
    }
}

/// Rounds elements of type `from` to the floating-point type `to`.
pub(crate) fn convert(bytes: &[u8], from: ScalarType, to: ScalarType) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / from.size() * to.size());
    for value in from.values(bytes) {
        match to {
            ScalarType::F16 => out.extend_from_slice(&f16::from_f64(value).to_le_bytes()),
            ScalarType::BF16 => out.extend_from_slice(&bf16::from_f64(value).to_le_bytes()),
            ScalarType::F64 => out.extend_from_slice(&value.to_le_bytes()),
            _ => out.extend_from_slice(&(value as f32).to_le_bytes()),
        }
    }
    out
}

/// A file as it will be written: its header, and the tensors in their order.
pub(crate) struct Layout<'a> {
    header: Vec<u8>,
    order: Vec<&'a OutTensor>,
}

impl<'a> Layout<'a> {
    /// Lays `tensors` out by falling element size, then by name, so each is aligned to its element.
    ///
    /// `metadata` keeps its order. Errors if the header gets longer than readers accept.
    pub(crate) fn new(metadata: &[(&str, String)], tensors: &'a [OutTensor]) -> Result<Self> {
        let mut order: Vec<&OutTensor> = tensors.iter().collect();
        order.sort_by(|a, b| b.ty.size().cmp(&a.ty.size()).then_with(|| a.name.cmp(&b.name)));
        if let Some(pair) = order.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::corrupt(pair[0].name.clone(), "tensor is there twice"));
        }
        let mut header = header(metadata, &order).map_err(|source| {
            Error::new(ErrorKind::Format, "header", "can't be written as JSON").with_source(source)
        })?;
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() > MAX_HEADER {
            return Err(Error::limit(
                "header",
                format!("takes {} bytes, {MAX_HEADER} are the most", header.len()),
            ));
        }
        Ok(Self { header, order })
    }

    /// Size of the file.
    pub(crate) fn n_bytes(&self) -> usize {
        8 + self.header.len() + self.order.iter().map(|tensor| tensor.n_bytes()).sum::<usize>()
    }

    /// Writes the file; `file` is the checkpoint that the tensors' elements lie in.
    pub(crate) fn write_to(&self, out: &mut impl Write, file: &[u8]) -> Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes()).map_err(write_failed)?;
        out.write_all(&self.header).map_err(write_failed)?;
        self.order.iter().try_for_each(|tensor| tensor.write(out, file)).map_err(write_failed)
    }
}

/// Writes a file whole or not at all: to a temporary name beside it, which is then renamed.
///
/// A link keeps pointing where it did; what it points to is replaced. Devices and pipes, which can't be replaced, are
/// written to directly.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<fs::File>) -> Result<()>,
) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let written = match fs::metadata(&target) {
        Ok(metadata) if !metadata.is_file() => write_directly(&target, write),
        _ => replace(&target, write),
    };
    written.map_err(|error| error.in_file(&path.display().to_string()))
}

fn write_directly(
    target: &Path,
    write: impl FnOnce(&mut io::BufWriter<fs::File>) -> Result<()>,
) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(target);
    let mut out = io::BufWriter::new(file.map_err(|source| Error::io("can't be written to", source))?);
    write(&mut out)?;
    out.flush().map_err(write_failed)
}

fn replace(target: &Path, write: impl FnOnce(&mut io::BufWriter<fs::File>) -> Result<()>) -> Result<()> {
    let (file, temporary) = create_beside(target)?;
    let mut out = io::BufWriter::new(file);
    let result = write(&mut out).and_then(|()| {
        let file = out.into_inner().map_err(|error| write_failed(error.into_error()))?;
        file.sync_all().map_err(write_failed)?;
        fs::rename(&temporary, target).map_err(|source| Error::io("can't put the file in its place", source))
    });
    result.inspect_err(|_| {
        // The failure to report is the first one; a temporary that can't be removed adds nothing to it.
        let _ = fs::remove_file(&temporary);
    })
}

fn write_failed(source: io::Error) -> Error {
    Error::io("can't write the model", source)
}

/// A new file in the directory of `target`, under a short name that nobody else has.
fn create_beside(target: &Path) -> Result<(fs::File, PathBuf)> {
    const MAX_ATTEMPTS: u32 = 1000;
    if target.file_name().is_none() {
        return Err(Error::new(ErrorKind::Io, "", "path has no file name"));
    }
    let mut attempt = 0;
    loop {
        let temporary = target.with_file_name(format!(".ferroyolo-{}-{attempt}.part", std::process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < MAX_ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => return Err(Error::io("can't create a file beside it", error)),
        }
    }
}

fn header(metadata: &[(&str, String)], order: &[&OutTensor]) -> serde_json::Result<Vec<u8>> {
    /// Pairs as a JSON object.
    struct Object<'a>(&'a [(&'a str, String)]);

    impl Serialize for Object<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
        }
    }

    #[derive(Serialize)]
    struct Entry<'a> {
        dtype: &'static str,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }

    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("__metadata__", &Object(metadata))?;
    let mut offset = 0;
    for tensor in order {
        let data_offsets = [offset, offset + tensor.n_bytes()];
        map.serialize_entry(
            &tensor.name,
            &Entry { dtype: tensor.ty.name(), shape: &tensor.shape, data_offsets },
        )?;
        offset = data_offsets[1];
    }
    map.end()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, values: &[f64]) -> OutTensor {
        OutTensor::f32(name.to_owned(), vec![values.len()], values.iter().copied()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_by_the_safetensors_crate() {
        let half = OutTensor {
            name: "a.weight".into(),
            ty: ScalarType::F16,
            shape: vec![1, 3],
            data: Data::File(2..8, ScalarType::F16),
        };
        let widened = OutTensor { name: "b".into(), ty: ScalarType::F32, ..half.clone() };
        let tensors = [half, tensor("a.bias", &[0.5, -2.0]), widened];
        let file = [9, 9, 0x00, 0x3c, 0x00, 0x40, 0x00, 0xc0, 9];
        let metadata = [("z", "1".to_owned()), ("a", "{\"x\": 2}".to_owned())];
        let mut bytes = Vec::new();
        let layout = Layout::new(&metadata, &tensors).unwrap();
        layout.write_to(&mut bytes, &file).unwrap();
        assert_eq!(bytes.len(), layout.n_bytes());

        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("a.weight").unwrap().data(), &file[2..8]);
        assert_eq!(read.tensor("a.weight").unwrap().shape(), [1, 3]);
        assert_eq!(
            read.tensor("a.bias").unwrap().data(),
            [0.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()
        );
        let widened: Vec<u8> = [1f32, 2.0, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read.tensor("b").unwrap().data(), widened);
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["a"], "{\"x\": 2}");
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let tensors = [tensor("x", &[1.0]), tensor("x", &[2.0])];
        let error = Layout::new(&[], &tensors).err().unwrap();
        assert_eq!(error.to_string(), "x: tensor is there twice");
    }

    #[test]
    fn values_beyond_f32_are_refused() {
        let error = OutTensor::f32("x.bias".into(), vec![2], [0.0, 1e300]).unwrap_err();
        assert_eq!(error.to_string(), "x.bias: element 1 becomes inf in 32 bits");
    }

    /// An empty folder that is gone after the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ferroyolo-write-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn n_files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(path: &Path, bytes: &[u8]) -> Result<()> {
        write_atomically(path, |out| out.write_all(bytes).map_err(write_failed))
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = Folder::new("failed");
        let path = folder.0.join("m.safetensors");
        let error = write_atomically(&path, |_| Err(Error::tensor("x", "is bad"))).unwrap_err();
        assert!(error.to_string().ends_with("m.safetensors: x: is bad"), "{error}");
        assert_eq!(folder.n_files(), 0);
        write(&path, b"old").unwrap();
        write(&path, b"ok").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ok");
        assert_eq!(folder.n_files(), 1);
        assert!(write(&folder.0, b"ok").is_err(), "a folder is no file");
    }

    #[test]
    fn long_names_are_written() {
        let folder = Folder::new("long");
        let path = folder.0.join("n".repeat(240));
        write(&path, b"ok").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ok");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let folder = Folder::new("link");
        let (target, link) = (folder.0.join("m.safetensors"), folder.0.join("latest"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink("m.safetensors", &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(folder.n_files(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_get_the_bytes() {
        use std::os::unix::fs::FileTypeExt;

        let folder = Folder::new("pipe");
        let pipe = folder.0.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let bytes = vec![7; 1 << 18];
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read(pipe).unwrap())
        };
        write(&pipe, &bytes).unwrap();
        assert!(reader.join().unwrap() == bytes);
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(folder.n_files(), 1);
    }
}
