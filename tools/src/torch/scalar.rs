//! Element types of storages, and their values as `f64`.

use half::{bf16, f16};

/// Element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarType {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    Bool,
}

impl ScalarType {
    /// The type whose storage class in the module `torch` has this name.
    pub(crate) fn from_storage_name(name: &str) -> Option<Self> {
        Some(match name {
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "CharStorage" => Self::I8,
            "ShortStorage" => Self::I16,
            "IntStorage" => Self::I32,
            "LongStorage" => Self::I64,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// The name that safetensors gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// The values of `bytes`, which hold whole little-endian elements.
    pub(crate) fn values(self, bytes: &[u8]) -> impl Iterator<Item = f64> {
        bytes.chunks_exact(self.size()).map(move |element| self.value(element))
    }

    /// The value of one little-endian element. 64-bit integers beyond 2^53 are rounded.
    fn value(self, element: &[u8]) -> f64 {
        let mut raw = [0; 8];
        raw[..element.len()].copy_from_slice(element);
        let bits = u64::from_le_bytes(raw);
        match self {
            Self::F16 => f16::from_bits(bits as u16).to_f64(),
            Self::BF16 => bf16::from_bits(bits as u16).to_f64(),
            Self::F32 => f32::from_bits(bits as u32).into(),
            Self::F64 => f64::from_bits(bits),
            Self::I8 => (bits as i8).into(),
            Self::I16 => (bits as i16).into(),
            Self::I32 => (bits as i32).into(),
            Self::I64 => bits as i64 as f64,
            Self::U8 | Self::Bool => bits as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type() {
        let check = |ty: ScalarType, bytes: &[u8], want: &[f64]| {
            assert_eq!(ty.values(bytes).collect::<Vec<_>>(), want, "{ty:?}");
        };
        check(ScalarType::F16, &[0x00, 0x3c, 0x00, 0xc0], &[1.0, -2.0]);
        check(ScalarType::BF16, &[0x80, 0x3f], &[1.0]);
        check(ScalarType::F32, &1.5f32.to_le_bytes(), &[1.5]);
        check(ScalarType::F64, &(-0.25f64).to_le_bytes(), &[-0.25]);
        check(ScalarType::I8, &[0xff], &[-1.0]);
        check(ScalarType::I16, &[0xfe, 0xff], &[-2.0]);
        check(ScalarType::I32, &(-7i32).to_le_bytes(), &[-7.0]);
        check(ScalarType::I64, &(-9i64).to_le_bytes(), &[-9.0]);
        check(ScalarType::U8, &[200], &[200.0]);
        check(ScalarType::Bool, &[1, 0], &[1.0, 0.0]);
    }
}
