//! Opens checkpoints: tells PyTorch's archives from everything else, and reads their pickle.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, printable};
use crate::pickle::Pickle;
use crate::torch::Storages;
use crate::zip::{self, Archive};

/// The number that the pickle of a file written before PyTorch 1.6 begins with, as its LONG1 instruction.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// A PyTorch checkpoint that has been read whole and checked; inert data.
pub struct Checkpoint {
    pub(crate) name: String,
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) archive: Archive,
    pub(crate) prefix: String,
    pub(crate) pickle: Pickle,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.name)
            .field("pickle", &self.pickle)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Reads and checks the file at `path`.
    ///
    /// Nothing of it is executed. Errors name the file and the entry, opcode, global or tensor in it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = read_file(path).map_err(|error| error.in_file(&shown))?;
        Self::from_bytes(&shown, bytes)
    }

    /// The same for a file that is already in memory; `name` is what errors and the provenance call it.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_arc(name, Arc::new(bytes))
    }

    pub(crate) fn from_arc(name: &str, bytes: Arc<Vec<u8>>) -> Result<Self> {
        read_parts(&bytes)
            .map(|(archive, prefix, pickle)| Self { name: name.to_owned(), bytes, archive, prefix, pickle })
            .map_err(|error| error.in_file(name))
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        Sha256::digest(self.bytes.as_slice()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn storages(&self) -> Storages<'_> {
        Storages { bytes: &self.bytes, archive: &self.archive, prefix: &self.prefix }
    }

    /// Name of the file, without its folder.
    pub(crate) fn file_name(&self) -> String {
        let name = self.name.rsplit(['/', '\\']).next().unwrap_or_default();
        printable(name)
    }
}

/// The bytes of the regular file at `path`.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(|source| Error::io("can't read the file", source))?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::Io, "", "not a regular file"));
    }
    fs::read(path).map_err(|source| Error::io("can't read the file", source))
}

fn read_parts(bytes: &Arc<Vec<u8>>) -> Result<(Archive, String, Pickle)> {
    if !zip::looks_like_zip(bytes) {
        return Err(not_a_zip(bytes));
    }
    let archive = Archive::parse(bytes)?;
    let prefix = find_prefix(bytes, &archive)?;
    if let Some(order) = archive.find(bytes, &format!("{prefix}/byteorder"))
        && &bytes[order.clone()] != b"little"
    {
        let order = printable(&String::from_utf8_lossy(&bytes[order]));
        return Err(Error::unsupported(
            format!("{prefix}/byteorder"),
            format!("is `{order}`, only `little` is read"),
        ));
    }
    let entry = format!("{prefix}/data.pkl");
    let range = archive.find(bytes, &entry).ok_or_else(|| Error::format("zip archive without a data.pkl"))?;
    let pickle = Pickle::parse(Arc::clone(bytes), range).map_err(|error| error.within(&entry))?;
    Ok((archive, prefix, pickle))
}

/// The one folder that all entries of a PyTorch archive lie in.
pub(crate) fn find_prefix(bytes: &[u8], archive: &Archive) -> Result<String> {
    let mut pickles = archive.iter(bytes).filter_map(|(name, _)| name.strip_suffix("/data.pkl"));
    let prefix = match (pickles.next(), pickles.next()) {
        (Some(prefix), None) if !prefix.contains('/') => prefix,
        (Some(_), _) => {
            return Err(Error::corrupt("", "zip archive with more than one data.pkl, or in a subfolder"));
        }
        _ => {
            return Err(Error::format(
                "zip archive, but not a PyTorch checkpoint: it has no <name>/data.pkl",
            ));
        }
    };
    for (name, _) in archive.iter(bytes) {
        let inside = name.strip_prefix(prefix).and_then(|name| name.strip_prefix('/'));
        match inside {
            None => {
                let message = format!("entry lies outside the archive's folder `{}`", printable(prefix));
                return Err(Error::refused(printable(name), message));
            }
            Some(inside) if inside.starts_with("code/") || inside == "constants.pkl" => {
                return Err(Error::unsupported(printable(name), "TorchScript archives are not supported"));
            }
            Some(_) => {}
        }
    }
    Ok(prefix.to_owned())
}

/// Whether `bytes` begin with a header length of less than 2^48 and a JSON object.
pub(crate) fn looks_like_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{') && bytes.get(6..8) == Some(&[0, 0])
}

/// What a file that is no zip archive is, as far as that can be told.
fn not_a_zip(bytes: &Arc<Vec<u8>>) -> Error {
    if bytes.is_empty() {
        return Error::format("file is empty");
    }
    if bytes.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_MAGIC)) {
        return Error::format(
            "legacy torch file, as PyTorch wrote them before 1.6: load and save it with a newer one",
        );
    }
    if looks_like_safetensors(bytes) {
        return Error::format("safetensors file, not a PyTorch checkpoint: nothing to convert");
    }
    match Pickle::parse(Arc::clone(bytes), 0..bytes.len()) {
        Ok(_) => Error::format("bare pickle without PyTorch's zip archive around it"),
        Err(error) => error.within("not a PyTorch zip archive; read as a bare pickle"),
    }
}
