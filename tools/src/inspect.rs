//! Tells what a file holds, and what loading it with Python would have called.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, find_prefix, looks_like_safetensors, read_file};
use crate::convert::{ConvertOptions, FORMAT, Network, convert, find_network};
use crate::credit::{Credit, check_name_len};
use crate::error::{Error, ErrorKind, Result, printable};
use crate::pickle::{GlobalUse, Pickle, scan};
use crate::torch::{Modules, ScalarType, TensorRef, TreeModule};
use crate::zip::{self, Archive};

/// What a top-level key takes in the list, and once more in the metadata, beside its text.
const KEY_SIZE: usize = 4 * size_of::<String>();

/// Longest top-level string that is shown.
const MAX_TEXT: usize = 1 << 16;

/// What a file holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inspection {
    /// The file, as it was given.
    pub file: String,
    /// `pytorch`, `safetensors`, `zip`, `pickle` or `unknown`.
    pub format: &'static str,
    /// Size of the file.
    pub bytes: usize,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// Entries of the archive.
    pub entries: Vec<EntryInfo>,
    /// Everything that the pickles would import, with the calls that they would make.
    pub globals: Vec<GlobalUse>,
    /// Top-level keys of the checkpoint.
    pub keys: Vec<String>,
    /// Top-level strings, such as `version`, `date` and `license`; the metadata of a safetensors file.
    pub metadata: BTreeMap<String, String>,
    /// Classes of the module tree.
    pub classes: Vec<ClassCount>,
    /// Tensors by name.
    pub tensors: Vec<TensorInfo>,
    /// Why the file is refused; empty if it is not.
    pub refused: Vec<String>,
}

/// An entry of an archive.
#[derive(Clone, Debug, Serialize)]
pub struct EntryInfo {
    /// Name in the archive.
    pub name: String,
    /// Size of its data.
    pub bytes: usize,
}

/// How often a class stands in the module tree.
#[derive(Clone, Debug, Serialize)]
pub struct ClassCount {
    /// Published name of the class.
    pub class: String,
    /// Number of modules of it.
    pub count: usize,
}

/// A tensor's name, element type, shape and size.
#[derive(Clone, Debug, Serialize)]
pub struct TensorInfo {
    /// Name by its place in the module tree.
    pub name: String,
    /// Element type, as safetensors names it.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Size, stored without gaps.
    pub bytes: usize,
}

/// Tells what the file at `path` holds.
///
/// A file that would be refused is no error here: the reasons stand in [`Inspection::refused`], and everything that
/// can be listed is. Errors with `ErrorKind::Io` if the file can't be read.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let file = path.display().to_string();
    let bytes = Arc::new(read_file(path).map_err(|error| error.in_file(&file))?);
    let mut found = Inspection { file, bytes: bytes.len(), ..Inspection::default() };
    found.sha256 = Sha256::digest(bytes.as_slice()).iter().map(|byte| format!("{byte:02x}")).collect();
    if zip::looks_like_zip(&bytes) {
        found.format = "zip";
        found.look_into_zip(&bytes);
    } else if looks_like_safetensors(&bytes) {
        found.format = "safetensors";
        found.look_into_safetensors(&bytes);
    } else {
        // Only a file that makes some sense as a pickle is called one.
        let scanned = scan(&bytes);
        found.format =
            if scanned.globals.is_empty() && scanned.n_instructions < 2 { "unknown" } else { "pickle" };
        found.globals = scanned.globals;
        found.refused = scanned.refused;
        if let Err(error) = Checkpoint::from_arc("", bytes) {
            found.refuse(&error);
        }
    }
    Ok(found)
}

impl Inspection {
    /// Whether the file is refused: it can't be opened, or its network can't be read.
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    fn refuse(&mut self, error: &Error) {
        let reason = error.to_string();
        if !self.refused.iter().any(|known| reason.ends_with(known.as_str())) {
            self.refused.push(reason);
        }
    }

    fn look_into_zip(&mut self, bytes: &Arc<Vec<u8>>) {
        let archive = match Archive::parse_unverified(bytes) {
            Ok(archive) => archive,
            Err(error) => return self.refuse(&error),
        };
        for (name, data) in archive.iter(bytes) {
            self.entries.push(EntryInfo { name: printable(name), bytes: data.len() });
            if name.ends_with(".pkl") || name.ends_with(".pickle") {
                let scanned = scan(&bytes[data]);
                self.refused.extend(
                    scanned.refused.into_iter().map(|reason| format!("{}: {reason}", printable(name))),
                );
                self.globals.extend(scanned.globals);
            }
        }
        if let Err(error) = find_prefix(bytes, &archive) {
            return self.refuse(&error);
        }
        self.format = "pytorch";
        match Checkpoint::from_arc("", Arc::clone(bytes)) {
            Ok(checkpoint) => {
                // What the conversion would refuse is refused here; what it makes is gone before anything is listed.
                let converted = convert(&checkpoint, &ConvertOptions::default()).map(drop);
                let mut credit = Credit::of(&checkpoint.pickle);
                let listed = self
                    .look_into_pickle(&checkpoint.pickle, &mut credit)
                    .and_then(|()| self.look_into_network(&checkpoint, credit));
                for error in [converted, listed].into_iter().filter_map(Result::err) {
                    self.refuse(&error);
                }
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn look_into_pickle(&mut self, pickle: &Pickle, credit: &mut Credit) -> Result<()> {
        for &(key, value) in pickle.dict(pickle.root).unwrap_or_default() {
            check_name_len(pickle.str_len(key).unwrap_or(0), "a key", "")?;
            let Some(key) = pickle.str(key) else { continue };
            let key = printable(key);
            credit.pay(KEY_SIZE + key.len(), "")?;
            // A text as long as this is none that is shown whole, and looking at it many times takes its time.
            if pickle.str_len(value).is_some_and(|len| len <= MAX_TEXT)
                && let Some(value) = pickle.str(value)
            {
                let value = printable(value);
                credit.pay(KEY_SIZE + key.len() + value.len(), "")?;
                self.metadata.insert(key.clone(), value);
            }
            self.keys.push(key);
        }
        Ok(())
    }

    fn look_into_network(&mut self, checkpoint: &Checkpoint, mut credit: Credit) -> Result<()> {
        let pickle = &checkpoint.pickle;
        match find_network(checkpoint)? {
            Network::Modules(id) => {
                let mut modules = Modules::with_credit(pickle, checkpoint.storages(), credit);
                let tree = modules.read(id, "")?;
                let mut counts = BTreeMap::new();
                self.look_into_module("", &tree, &mut counts, &mut modules.into_credit())?;
                self.classes = counts.into_iter().map(|(class, count)| ClassCount { class, count }).collect();
            }
            Network::StateDict(id) => {
                for &(name, value) in pickle.dict(id).unwrap_or_default() {
                    check_name_len(pickle.str_len(name).unwrap_or(0), "a tensor", "")?;
                    let (Some(name), Some(tensor)) =
                        (pickle.str(name), TensorRef::read(pickle, &checkpoint.storages(), value))
                    else {
                        continue;
                    };
                    let name = printable(name);
                    let tensor = tensor.map_err(|error| error.within(&name))?;
                    self.list_tensor(name, &tensor, &mut credit)?;
                }
            }
        }
        Ok(())
    }

    fn look_into_module(
        &mut self,
        path: &str,
        module: &TreeModule,
        counts: &mut BTreeMap<String, usize>,
        credit: &mut Credit,
    ) -> Result<()> {
        *counts.entry(module.class.clone()).or_default() += 1;
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (name, tensor) in &module.tensors {
            self.list_tensor(join(name), tensor, credit)?;
        }
        for (name, child) in &module.children {
            self.look_into_module(&join(name), child, counts, credit)?;
        }
        Ok(())
    }

    fn list_tensor(&mut self, name: String, tensor: &TensorRef, credit: &mut Credit) -> Result<()> {
        credit.pay(2 * size_of::<TensorInfo>() + 8 * tensor.shape.len() + 8 + name.len(), &name)?;
        self.tensors.push(info(name, tensor));
        Ok(())
    }

    fn look_into_safetensors(&mut self, bytes: &[u8]) {
        let header = match safetensors::SafeTensors::read_metadata(bytes) {
            Ok((_, header)) => header,
            Err(error) => return self.refused.push(format!("not a valid safetensors file: {error}")),
        };
        self.metadata
            .extend(header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        let mut tensors: Vec<_> = header.tensors().into_iter().collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        self.tensors.extend(tensors.into_iter().map(|(name, tensor)| TensorInfo {
            name,
            dtype: format!("{:?}", tensor.dtype),
            shape: tensor.shape.clone(),
            bytes: tensor.data_offsets.1 - tensor.data_offsets.0,
        }));
        if let Err(error) = check_model(bytes, &header) {
            self.refuse(&error);
        }
    }
}

/// Errors if a safetensors file is not one of this project's, of this version, or holds a NaN or an infinity.
fn check_model(bytes: &[u8], header: &safetensors::tensor::Metadata) -> Result<()> {
    let entry = |key: &str| header.metadata().as_ref().and_then(|map| map.get(key));
    match entry("ferroyolo.format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => {
            let message = format!("is version `{}`, only `{FORMAT}` is read", printable(other));
            return Err(Error::unsupported("ferroyolo.format", message));
        }
        None => {
            return Err(Error::unsupported(
                "ferroyolo.format",
                "missing: a safetensors file, but not a ferroyolo model",
            ));
        }
    }
    let document = entry("ferroyolo.model").ok_or_else(|| Error::corrupt("ferroyolo.model", "missing"))?;
    serde_json::from_str::<serde::de::IgnoredAny>(document)
        .map_err(|source| Error::corrupt("ferroyolo.model", "is not valid JSON").with_source(source))?;
    let file = safetensors::SafeTensors::deserialize(bytes).map_err(|source| {
        Error::new(ErrorKind::Format, "", "not a valid safetensors file").with_source(source)
    })?;
    for (name, tensor) in file.iter() {
        let ty = match tensor.dtype() {
            safetensors::Dtype::F16 => ScalarType::F16,
            safetensors::Dtype::BF16 => ScalarType::BF16,
            safetensors::Dtype::F32 => ScalarType::F32,
            safetensors::Dtype::F64 => ScalarType::F64,
            _ => continue,
        };
        if let Some((idx, value)) = ty.values(tensor.data()).enumerate().find(|(_, value)| !value.is_finite())
        {
            return Err(Error::tensor(printable(name), format!("element {idx} is {value}")));
        }
    }
    Ok(())
}

fn info(name: String, tensor: &TensorRef) -> TensorInfo {
    TensorInfo {
        name,
        dtype: tensor.ty.name().to_owned(),
        shape: tensor.shape.clone(),
        bytes: tensor.n_bytes(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, {} bytes, sha256 {}", self.file, self.format, self.bytes, self.sha256)?;
        for reason in &self.refused {
            writeln!(f, "refused: {reason}")?;
        }
        if !self.keys.is_empty() {
            writeln!(f, "keys: {}", self.keys.join(", "))?;
        }
        for (key, value) in &self.metadata {
            let shown: String = value.chars().take(160).collect();
            let more = if shown.len() < value.len() {
                format!("… ({} bytes)", value.len())
            } else {
                String::new()
            };
            writeln!(f, "  {key} = {shown}{more}")?;
        }
        if !self.globals.is_empty() {
            writeln!(f, "globals, and what Python would have done with them:")?;
            for global in &self.globals {
                let verdict = if global.allowed { "allowed" } else { "REFUSED" };
                write!(f, "  {verdict}  {} {}", global.module, global.name)?;
                for (what, n) in
                    [("REDUCE", global.reduce), ("NEWOBJ", global.newobj), ("BUILD", global.build)]
                {
                    if n > 0 {
                        write!(f, "  {what} x{n}")?;
                    }
                }
                writeln!(f)?;
            }
        }
        if !self.classes.is_empty() {
            let classes: Vec<_> =
                self.classes.iter().map(|of| format!("{} x{}", of.class, of.count)).collect();
            writeln!(f, "modules: {}", classes.join(", "))?;
        }
        if !self.tensors.is_empty() {
            writeln!(f, "{} tensors:", self.tensors.len())?;
            for tensor in &self.tensors {
                writeln!(
                    f,
                    "  {:5} {:?} {}  {} bytes",
                    tensor.dtype, tensor.shape, tensor.name, tensor.bytes
                )?;
            }
        }
        if !self.entries.is_empty() {
            let total: usize = self.entries.iter().map(|entry| entry.bytes).sum();
            writeln!(f, "{} entries, {total} bytes:", self.entries.len())?;
            for entry in &self.entries {
                writeln!(f, "  {:>10}  {}", entry.bytes, entry.name)?;
            }
        }
        Ok(())
    }
}
