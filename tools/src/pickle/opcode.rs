//! The instruction set of pickles: every opcode's name and the form of its argument.
//!
//! The whole set is known so that refusals can name what they refuse and so that a scan can walk
//! through any pickle. What may be executed is decided in [`machine`](super::machine). Source: PEP 307, PEP 3154, PEP
//! 574 and the format's public description in CPython's `pickletools`.

use std::ops::Range;

use crate::error::{Error, Result};

/// How an opcode's argument is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    None,
    U8,
    U16,
    U32,
    U64,
    I32,
    /// Big-endian double.
    F64,
    /// Text up to a line feed.
    Line,
    /// Two such lines.
    TwoLines,
    /// As many bytes as the number of this width in front of them says.
    Counted8,
    Counted32,
    Counted64,
}

/// An opcode's argument; ranges are positions in the pickle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    None,
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bytes(Range<usize>),
    TwoLines(Range<usize>, Range<usize>),
}

/// One decoded instruction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) name: &'static str,
    pub(crate) arg: Arg,
    /// Where the instruction begins.
    pub(crate) at: usize,
    /// Where the next one begins.
    pub(crate) next: usize,
}

impl Instruction {
    /// `opcode GLOBAL at byte 12`, for messages.
    pub(crate) fn place(&self) -> String {
        format!("opcode {} at byte {}", self.name, self.at)
    }
}

/// Decodes the instruction at `at`.
///
/// Errors with `ErrorKind::Corrupt` at the end of `bytes`, and where an argument reaches past it.
pub(crate) fn decode(bytes: &[u8], at: usize) -> Result<Instruction> {
    let Some(&code) = bytes.get(at) else {
        return Err(Error::corrupt(format!("byte {at}"), "pickle is cut short: it ends without STOP"));
    };
    let Some((name, form)) = lookup(code) else {
        return Err(Error::refused(format!("byte {at}"), format!("{code:#04x} is not a pickle opcode")));
    };
    let mut instruction = Instruction { code, name, arg: Arg::None, at, next: at + 1 };
    instruction.arg =
        read_arg(bytes, &mut instruction.next, form).map_err(|e| e.within(&instruction.place()))?;
    Ok(instruction)
}

fn read_arg(bytes: &[u8], at: &mut usize, form: Form) -> Result<Arg> {
    Ok(match form {
        Form::None => Arg::None,
        Form::U8 => Arg::Unsigned(u64::from(take::<1>(bytes, at)?[0])),
        Form::U16 => Arg::Unsigned(u64::from(u16::from_le_bytes(take(bytes, at)?))),
        Form::U32 => Arg::Unsigned(u64::from(u32::from_le_bytes(take(bytes, at)?))),
        Form::U64 => Arg::Unsigned(u64::from_le_bytes(take(bytes, at)?)),
        Form::I32 => Arg::Signed(i64::from(i32::from_le_bytes(take(bytes, at)?))),
        Form::F64 => Arg::Float(f64::from_be_bytes(take(bytes, at)?)),
        Form::Line => Arg::Bytes(line(bytes, at)?),
        Form::TwoLines => {
            let first = line(bytes, at)?;
            Arg::TwoLines(first, line(bytes, at)?)
        }
        Form::Counted8 => {
            let n = u64::from(take::<1>(bytes, at)?[0]);
            Arg::Bytes(counted(bytes, at, n)?)
        }
        Form::Counted32 => {
            let n = u64::from(u32::from_le_bytes(take(bytes, at)?));
            Arg::Bytes(counted(bytes, at, n)?)
        }
        Form::Counted64 => {
            let n = u64::from_le_bytes(take(bytes, at)?);
            Arg::Bytes(counted(bytes, at, n)?)
        }
    })
}

fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Result<[u8; N]> {
    let range = counted(bytes, at, N as u64)?;
    let mut out = [0; N];
    out.copy_from_slice(&bytes[range]);
    Ok(out)
}

fn counted(bytes: &[u8], at: &mut usize, n: u64) -> Result<Range<usize>> {
    let left = bytes.len() - *at;
    if n > left as u64 {
        return Err(Error::corrupt("", format!("needs {n} bytes, {left} are left in the pickle")));
    }
    let range = *at..*at + n as usize;
    *at = range.end;
    Ok(range)
}

fn line(bytes: &[u8], at: &mut usize) -> Result<Range<usize>> {
    let Some(len) = bytes[*at..].iter().position(|&byte| byte == b'\n') else {
        return Err(Error::corrupt("", "line has no end"));
    };
    let range = *at..*at + len;
    *at = range.end + 1;
    Ok(range)
}

/// Names and argument forms of all opcodes of protocols 0 to 5.
fn lookup(code: u8) -> Option<(&'static str, Form)> {
    Some(match code {
        b'(' => ("MARK", Form::None),
        b'.' => ("STOP", Form::None),
        b'0' => ("POP", Form::None),
        b'1' => ("POP_MARK", Form::None),
        b'2' => ("DUP", Form::None),
        b'F' => ("FLOAT", Form::Line),
        b'I' => ("INT", Form::Line),
        b'J' => ("BININT", Form::I32),
        b'K' => ("BININT1", Form::U8),
        b'L' => ("LONG", Form::Line),
        b'M' => ("BININT2", Form::U16),
        b'N' => ("NONE", Form::None),
        b'P' => ("PERSID", Form::Line),
        b'Q' => ("BINPERSID", Form::None),
        b'R' => ("REDUCE", Form::None),
        b'S' => ("STRING", Form::Line),
        b'T' => ("BINSTRING", Form::Counted32),
        b'U' => ("SHORT_BINSTRING", Form::Counted8),
        b'V' => ("UNICODE", Form::Line),
        b'X' => ("BINUNICODE", Form::Counted32),
        b'a' => ("APPEND", Form::None),
        b'b' => ("BUILD", Form::None),
        b'c' => ("GLOBAL", Form::TwoLines),
        b'd' => ("DICT", Form::None),
        b'}' => ("EMPTY_DICT", Form::None),
        b'e' => ("APPENDS", Form::None),
        b'g' => ("GET", Form::Line),
        b'h' => ("BINGET", Form::U8),
        b'i' => ("INST", Form::TwoLines),
        b'j' => ("LONG_BINGET", Form::U32),
        b'l' => ("LIST", Form::None),
        b']' => ("EMPTY_LIST", Form::None),
        b'o' => ("OBJ", Form::None),
        b'p' => ("PUT", Form::Line),
        b'q' => ("BINPUT", Form::U8),
        b'r' => ("LONG_BINPUT", Form::U32),
        b's' => ("SETITEM", Form::None),
        b't' => ("TUPLE", Form::None),
        b')' => ("EMPTY_TUPLE", Form::None),
        b'u' => ("SETITEMS", Form::None),
        b'G' => ("BINFLOAT", Form::F64),
        0x80 => ("PROTO", Form::U8),
        0x81 => ("NEWOBJ", Form::None),
        0x82 => ("EXT1", Form::U8),
        0x83 => ("EXT2", Form::U16),
        0x84 => ("EXT4", Form::U32),
        0x85 => ("TUPLE1", Form::None),
        0x86 => ("TUPLE2", Form::None),
        0x87 => ("TUPLE3", Form::None),
        0x88 => ("NEWTRUE", Form::None),
        0x89 => ("NEWFALSE", Form::None),
        0x8a => ("LONG1", Form::Counted8),
        0x8b => ("LONG4", Form::Counted32),
        b'B' => ("BINBYTES", Form::Counted32),
        b'C' => ("SHORT_BINBYTES", Form::Counted8),
        0x8c => ("SHORT_BINUNICODE", Form::Counted8),
        0x8d => ("BINUNICODE8", Form::Counted64),
        0x8e => ("BINBYTES8", Form::Counted64),
        0x8f => ("EMPTY_SET", Form::None),
        0x90 => ("ADDITEMS", Form::None),
        0x91 => ("FROZENSET", Form::None),
        0x92 => ("NEWOBJ_EX", Form::None),
        0x93 => ("STACK_GLOBAL", Form::None),
        0x94 => ("MEMOIZE", Form::None),
        0x95 => ("FRAME", Form::U64),
        0x96 => ("BYTEARRAY8", Form::Counted64),
        0x97 => ("NEXT_BUFFER", Form::None),
        0x98 => ("READONLY_BUFFER", Form::None),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_their_own_form() {
        assert_eq!(decode(b"K\x07", 0).unwrap().arg, Arg::Unsigned(7));
        assert_eq!(decode(b"J\xff\xff\xff\xff", 0).unwrap().arg, Arg::Signed(-1));
        assert_eq!(decode(b"G\x3f\xf8\0\0\0\0\0\0", 0).unwrap().arg, Arg::Float(1.5));
        let global = decode(b"..cos\nsystem\n", 2).unwrap();
        assert_eq!(global.arg, Arg::TwoLines(3..5, 6..12));
        assert_eq!((global.at, global.next, global.name), (2, 13, "GLOBAL"));
    }

    #[test]
    fn a_string_longer_than_the_pickle_is_refused() {
        let error = decode(b"X\xff\xff\xff\xffab", 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "opcode BINUNICODE at byte 0: needs 4294967295 bytes, 2 are left in the pickle"
        );
        assert!(decode(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", 0).is_err());
    }

    #[test]
    fn every_opcode_decodes_or_says_why_not() {
        for code in 0..=u8::MAX {
            let bytes = [&[code][..], &[0; 16], b"\n\n"].concat();
            assert_eq!(decode(&bytes, 0).is_ok(), lookup(code).is_some(), "{code:#04x}");
            let message = decode(&[code], 0).err().map(|error| error.to_string());
            assert!(message.is_none_or(|message| message.contains("byte 0")));
        }
    }
}
