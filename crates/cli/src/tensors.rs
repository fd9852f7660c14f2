//! Tensors in safetensors files, for `forward`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ferroyolo::{Tensor, TensorView};
use safetensors::tensor::TensorView as RawView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// Reads the tensor `images`, `[N, 3, H, W]`, from a safetensors file.
///
/// F16 and BF16 are widened. A file without that tensor, another type or shape, and values that are not finite are
/// errors that name the file and what is wrong.
pub fn read_images(path: &Path) -> Result<Tensor> {
    check_header(path)?;
    let bytes = fs::read(path).map_err(|error| Error::at(path, error))?;
    images_from(&bytes).map_err(|message| Error::failed(format!("{}: {message}", path.display())))
}

/// Errors unless `path` is a regular file that can begin with the header of a safetensors file.
///
/// It comes before the whole file is read, which may be large.
pub fn check_header(path: &Path) -> Result<()> {
    let fail = |message: &str| Err(Error::failed(format!("{}: {message}", path.display())));
    let meta = fs::metadata(path).map_err(|error| Error::at(path, error))?;
    if !meta.is_file() {
        return fail(if meta.is_dir() { "is a directory" } else { "is not a regular file" });
    }
    let mut start = [0; 9];
    let file = File::open(path).map_err(|error| Error::at(path, error))?;
    let n_read = file.take(9).read(&mut start).map_err(|error| Error::at(path, error))?;
    let [len @ .., brace] = start;
    let len = u64::from_le_bytes(len);
    if n_read < start.len() || brace != b'{' {
        return fail("not a valid safetensors file: has no header");
    }
    if len > meta.len() - 8 {
        return fail(&format!(
            "not a valid safetensors file: says its header has {len} bytes, the file has {}",
            meta.len()
        ));
    }
    Ok(())
}

fn images_from(bytes: &[u8]) -> std::result::Result<Tensor, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| format!("not a valid safetensors file: {error}"))?;
    let Ok(images) = file.tensor("images") else {
        let mut names: Vec<_> = file.names().into_iter().map(|name| format!("{name:?}")).collect();
        names.sort();
        names.truncate(8);
        let found = if names.is_empty() { "none".into() } else { names.join(", ") };
        return Err(format!("has no tensor \"images\"; found {found}"));
    };
    let shape = images.shape().to_vec();
    if !matches!(shape[..], [n, 3, h, w] if n > 0 && h > 0 && w > 0) {
        return Err(format!("images: got shape {shape:?}, expected [N, 3, H, W]"));
    }
    let data = widen(&images)?;
    if let Some(idx) = data.iter().position(|value| !value.is_finite()) {
        return Err(format!("images: value {} at index {idx} is not finite", data[idx]));
    }
    Tensor::new(shape, data).map_err(|error| error.to_string())
}

fn widen(tensor: &RawView<'_>) -> std::result::Result<Vec<f32>, String> {
    let bytes = tensor.data();
    let half = |widen: fn(u16) -> f32| {
        bytes.as_chunks::<2>().0.iter().map(|&bytes| widen(u16::from_le_bytes(bytes))).collect()
    };
    match tensor.dtype() {
        Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Ok(half(|bits| half::f16::from_bits(bits).to_f32())),
        Dtype::BF16 => Ok(half(|bits| half::bf16::from_bits(bits).to_f32())),
        other => Err(format!("images: got dtype {other:?}, expected F32, F16 or BF16")),
    }
}

/// The tensors as the bytes of a safetensors file, F32.
pub fn to_safetensors(tensors: &[(&str, TensorView<'_>)]) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, tensor)| tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, tensor), bytes)| Ok((*name, RawView::new(Dtype::F32, tensor.shape.to_vec(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    views
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|error| Error::named("can't write the outputs", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
        safetensors::serialize([(name, RawView::new(dtype, shape.to_vec(), bytes).unwrap())], None).unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn images_are_read_in_each_float_type() {
        let values = [0.0, 0.25, 1.0];
        let f16: Vec<u8> = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        let bf16: Vec<u8> = values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
        for (dtype, bytes) in [(Dtype::F32, f32s(&values)), (Dtype::F16, f16), (Dtype::BF16, bf16)] {
            let images = images_from(&file("images", dtype, &[1, 3, 1, 1], &bytes)).unwrap();
            assert_eq!((images.shape(), images.data()), (&[1, 3, 1, 1][..], &values[..]), "{dtype:?}");
        }
    }

    #[test]
    fn bad_images_are_told() {
        let check = |bytes: Vec<u8>, expected: &str| {
            let error = images_from(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let one = f32s(&[0.0; 3]);
        check(file("image", Dtype::F32, &[1, 3, 1, 1], &one), "found \"image\"");
        check(file("images", Dtype::F32, &[3, 1, 1], &one), "got shape [3, 1, 1]");
        check(file("images", Dtype::F32, &[3, 1, 1, 1], &one), "expected [N, 3, H, W]");
        check(file("images", Dtype::F32, &[0, 3, 1, 1], &[]), "expected [N, 3, H, W]");
        check(file("images", Dtype::U8, &[1, 3, 1, 1], &[0; 3]), "got dtype U8");
        check(file("images", Dtype::F32, &[1, 3, 1, 1], &f32s(&[0.0, f32::NAN, 0.0])), "NaN at index 1");
        check(b"text".to_vec(), "not a valid safetensors file");
        check(Vec::new(), "not a valid safetensors file");
    }

    #[test]
    fn what_can_not_be_tensors_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let check = |bytes: &[u8], len: u64, expected: &str| {
            fs::write(&path, bytes).unwrap();
            File::options().append(true).open(&path).unwrap().set_len(len).unwrap();
            let error = read_images(&path).unwrap_err().chain();
            assert!(error.contains(expected), "{error}");
        };
        // The lengths are far above any memory; the files have holes.
        check(b"", 0, "has no header");
        check(b"", 1 << 42, "has no header");
        check(b"text, and long enough", 1 << 42, "has no header");
        check(b"\0\0\0\0\0\0\x10\0{\"images\":", 1 << 42, "has 4503599627370496 bytes");
        assert!(read_images(dir.path()).unwrap_err().chain().contains("is a directory"));
        if cfg!(unix) {
            let error = read_images(Path::new("/dev/zero")).unwrap_err().chain();
            assert!(error.contains("is not a regular file"), "{error}");
        }
    }

    #[test]
    fn written_tensors_are_read_again() {
        let tensor = Tensor::new(vec![1, 2], vec![1.5, -2.0]).unwrap();
        let bytes = to_safetensors(&[("output0", tensor.view())]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = file.tensor("output0").unwrap();
        assert_eq!((read.shape(), read.data()), (&[1, 2][..], &f32s(&[1.5, -2.0])[..]));
    }
}
