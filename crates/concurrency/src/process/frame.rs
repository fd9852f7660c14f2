//! Messages between a pool and its workers: a header of fixed size, then a payload.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | the magic number |
//! | 4..8 | version of the protocol |
//! | 8..12 | kind of the message |
//! | 12..16 | CRC-32 of the header without this field, and of the payload |
//! | 16..24 | length of the payload |
//! | 24..32 | number of the job |
//! | 32..40 | generation of the job: grows with each attempt |
//!
//! Integers are little-endian. Magic number and version keep their places in every version, so that a worker of another
//! version is told from garbage. A length is compared with the cap before anything is allocated, and memory then grows
//! only as bytes arrive.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// The version of the protocol that this build speaks.
pub const VERSION: u32 = 1;

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 40;

const MAGIC: [u8; 4] = *b"fYw\x1a";

/// Memory grows by at least this many bytes while a payload arrives.
const GROWTH: usize = 256 << 10;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the worker, first: how to behave.
    Init = 1,
    /// From the worker, first: who it is.
    Hello = 2,
    /// From the worker: it takes jobs.
    Ready = 3,
    /// From the worker: it can't take jobs, and why.
    NotReady = 4,
    /// From the worker: it is alive.
    Heartbeat = 5,
    /// To the worker: a job.
    Request = 6,
    /// From the worker: the job's result.
    Reply = 7,
    /// From the worker: the error that the handler returned.
    AppError = 8,
    /// From the worker: the message of the handler's panic. The worker exits.
    Panicked = 9,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Init,
        Kind::Hello,
        Kind::Ready,
        Kind::NotReady,
        Kind::Heartbeat,
        Kind::Request,
        Kind::Reply,
        Kind::AppError,
        Kind::Panicked,
    ];
}

/// One attempt at one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) job: u64,
    pub(crate) generation: u64,
}

/// A message without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) tag: Tag,
    /// Bytes of the payload.
    pub(crate) len: usize,
}

/// Why no message could be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    Io(io::Error),
    /// The stream ended inside a message.
    Truncated,
    Magic([u8; 4]),
    Version(u32),
    Kind(u32),
    TooLong {
        len: u64,
        max: usize,
    },
    Checksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Io(error) => write!(f, "the channel failed: {error}"),
            FrameError::Truncated => f.write_str("the channel ended inside a message"),
            FrameError::Magic(got) => {
                write!(f, "got {got:02x?} where a message begins, expected {MAGIC:02x?}")
            }
            FrameError::Version(got) => write!(f, "got version {got} of the protocol, expected {VERSION}"),
            FrameError::Kind(got) => write!(f, "got a message of the unknown kind {got}"),
            FrameError::TooLong { len, max } => {
                write!(f, "got a message of {len} bytes, at most {max} are allowed")
            }
            FrameError::Checksum => f.write_str("a message does not match its checksum"),
        }
    }
}

impl std::error::Error for FrameError {}

fn checksum(header: &[u8; HEADER_LEN], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(&header[16..]);
    crc.update(payload);
    crc.finalize()
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The header's bytes.
pub(crate) fn encode(version: u32, kind: Kind, tag: Tag, payload: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&version.to_le_bytes());
    header[8..12].copy_from_slice(&(kind as u32).to_le_bytes());
    header[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&tag.job.to_le_bytes());
    header[32..40].copy_from_slice(&tag.generation.to_le_bytes());
    let crc = checksum(&header, payload);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Writes a message: header and payload together, without copying the payload.
pub(crate) fn write(to: &mut impl Write, kind: Kind, tag: Tag, payload: &[u8]) -> io::Result<()> {
    write_all(to, &encode(VERSION, kind, tag, payload), payload)
}

pub(crate) fn write_all(to: &mut impl Write, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut both = [IoSlice::new(header), IoSlice::new(payload)];
    let mut left = &mut both[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match to.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut left, n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    to.flush()
}

/// Fills `bytes`; returns how many came before the stream ended.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < bytes.len() {
        match from.read(&mut bytes[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// Reads a message into `payload`, whose first `len` bytes are the payload then; `None` if the stream ended before it.
///
/// `payload` is never shortened, so that a buffer that is used again is not cleared again.
pub(crate) fn read(
    from: &mut impl Read,
    max_len: usize,
    payload: &mut Vec<u8>,
) -> Result<Option<Header>, FrameError> {
    let mut bytes = [0; HEADER_LEN];
    match fill(from, &mut bytes).map_err(FrameError::Io)? {
        HEADER_LEN => {}
        0 => return Ok(None),
        _ => return Err(FrameError::Truncated),
    }
    let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    let version = u32_at(&bytes, 4);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = u32_at(&bytes, 8);
    let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind).ok_or(FrameError::Kind(kind))?;
    let claimed = u64_at(&bytes, 16);
    let len = usize::try_from(claimed)
        .ok()
        .filter(|len| *len <= max_len)
        .ok_or(FrameError::TooLong { len: claimed, max: max_len })?;
    let mut n = 0;
    while n < len {
        // What has come already vouches for as much again.
        let end = len.min(n + n.max(GROWTH));
        if payload.len() < end {
            payload.resize(end, 0);
        }
        if fill(from, &mut payload[n..end]).map_err(FrameError::Io)? < end - n {
            return Err(FrameError::Truncated);
        }
        n = end;
    }
    if checksum(&bytes, &payload[..len]) != u32_at(&bytes, 12) {
        return Err(FrameError::Checksum);
    }
    let tag = Tag { job: u64_at(&bytes, 24), generation: u64_at(&bytes, 32) };
    Ok(Some(Header { kind, tag, len }))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4 << 20;

    /// Gives and takes a few bytes at a time, and is interrupted now and then, as the law of streams allows.
    pub(crate) struct Choppy<T> {
        pub(crate) inner: T,
        pub(crate) state: u64,
    }

    impl<T> Choppy<T> {
        fn chunk(&mut self, len: usize) -> io::Result<usize> {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = (self.state >> 33) as usize;
            if draw.is_multiple_of(5) {
                return Err(ErrorKind::Interrupted.into());
            }
            Ok((draw % 97 + 1).min(len))
        }
    }

    impl<T: Read> Read for Choppy<T> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.chunk(buf.len())?;
            self.inner.read(&mut buf[..n])
        }
    }

    impl<T: Write> Write for Choppy<T> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let n = self.chunk(buf.len())?;
            self.inner.write(&buf[..n])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }

    fn message(kind: Kind, tag: Tag, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, kind, tag, payload).unwrap();
        bytes
    }

    fn read_one(mut bytes: &[u8]) -> Result<Option<(Header, Vec<u8>)>, FrameError> {
        let mut payload = Vec::new();
        let header = read(&mut bytes, MAX, &mut payload)?;
        Ok(header.map(|header| (header, payload[..header.len].to_vec())))
    }

    proptest! {
        #[test]
        fn messages_survive_short_reads_and_writes_and_interruptions(
            kind in 0..Kind::ALL.len(), job: u64, generation: u64, seed: u64,
            payload in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let (kind, tag) = (Kind::ALL[kind], Tag { job, generation });
            let mut wire = Choppy { inner: Vec::new(), state: seed };
            write(&mut wire, kind, tag, &payload).unwrap();
            write(&mut wire, Kind::Heartbeat, Tag::default(), &[]).unwrap();
            let mut wire = Choppy { inner: wire.inner.as_slice(), state: !seed };
            let mut got = Vec::new();
            let header = read(&mut wire, MAX, &mut got).unwrap().unwrap();
            prop_assert_eq!(header, Header { kind, tag, len: payload.len() });
            prop_assert_eq!(&got[..header.len], &payload);
            prop_assert_eq!(read(&mut wire, MAX, &mut got).unwrap().unwrap().kind, Kind::Heartbeat);
            prop_assert!(read(&mut wire, MAX, &mut got).unwrap().is_none());
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            prop_assert!(read_one(&bytes).is_err());
        }

        #[test]
        fn a_changed_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..300), at: usize, bit in 0..8) {
            let mut bytes = message(Kind::Reply, Tag { job: 7, generation: 9 }, &payload);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(read_one(&bytes).is_err());
        }

        #[test]
        fn a_cut_message_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..300), at: usize) {
            let bytes = message(Kind::Request, Tag::default(), &payload);
            let cut = &bytes[..1 + at % (bytes.len() - 1)];
            prop_assert!(matches!(read_one(cut), Err(FrameError::Truncated)));
        }
    }

    #[test]
    fn a_length_above_the_cap_allocates_nothing() {
        let mut bytes = message(Kind::Reply, Tag::default(), &[]);
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut payload = Vec::new();
        let error = read(&mut bytes.as_slice(), MAX, &mut payload).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { len: u64::MAX, max: MAX }), "{error}");
        assert_eq!(payload.capacity(), 0);
    }

    #[test]
    fn a_length_below_the_cap_allocates_only_as_bytes_arrive() {
        let mut bytes = message(Kind::Reply, Tag::default(), &[1; 1000]);
        bytes[16..24].copy_from_slice(&(MAX as u64).to_le_bytes());
        let mut payload = Vec::new();
        let error = read(&mut bytes.as_slice(), MAX, &mut payload).unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{error}");
        assert!(payload.capacity() <= GROWTH, "{}", payload.capacity());
    }

    #[test]
    fn a_changed_payload_is_noticed() {
        let mut bytes = message(Kind::Reply, Tag { job: 7, generation: 9 }, b"a picture");
        bytes[HEADER_LEN + 2] ^= 1;
        assert!(matches!(read_one(&bytes), Err(FrameError::Checksum)));
    }

    #[test]
    fn another_version_is_told_from_garbage() {
        let header = encode(VERSION + 1, Kind::Hello, Tag::default(), &[]);
        assert!(matches!(read_one(&header), Err(FrameError::Version(got)) if got == VERSION + 1));
    }

    #[test]
    fn errors_say_got_and_expected() {
        let error = FrameError::TooLong { len: 9, max: 8 };
        assert_eq!(error.to_string(), "got a message of 9 bytes, at most 8 are allowed");
        assert!(FrameError::Magic(*b"abcd").to_string().contains("[61, 62, 63, 64]"));
    }
}
