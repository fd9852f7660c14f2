//! Reads the zip archives that PyTorch writes, and nothing else.
//!
//! Entries are stored, never compressed, so nothing can expand. Everything that would let two readers see two
//! different archives in one file is an error: comments, gaps, overlaps, duplicate names, and a local header that
//! disagrees with the central directory. Source: PKWARE's APPNOTE 6.3.9.

use std::ops::Range;

use crate::error::{Error, Result, printable};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const DATA_DESCRIPTOR: u32 = 0x0807_4b50;
const END: u32 = 0x0605_4b50;
const END_ZIP64: u32 = 0x0606_4b50;
const LOCATOR_ZIP64: u32 = 0x0706_4b50;

const LOCAL_HEADER_LEN: usize = 30;
const CENTRAL_HEADER_LEN: usize = 46;
const END_LEN: usize = 22;
const END_ZIP64_LEN: usize = 56;
const LOCATOR_ZIP64_LEN: usize = 20;

/// Sizes and checksum follow the data.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// The name is UTF-8.
const FLAG_UTF8: u16 = 1 << 11;

/// Whether `bytes` begin as a zip archive does.
pub(crate) fn looks_like_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK")
}

/// The table of contents of an archive whose every entry has been checked.
#[derive(Debug)]
pub struct Archive {
    /// Sorted by name.
    entries: Vec<Entry>,
}

/// One stored file: where its name and its data lie in the archive's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    name: Range<usize>,
    data: Range<usize>,
    local_offset: usize,
    crc: u32,
    flags: u16,
}

impl Archive {
    /// Reads and checks the whole archive, checksums included.
    ///
    /// Errors with `ErrorKind::Corrupt` or `ErrorKind::Refused`, naming the entry.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let archive = Self::parse_unverified(bytes)?;
        archive.verify(bytes)?;
        Ok(archive)
    }

    /// Reads and checks everything but the checksums.
    pub(crate) fn parse_unverified(bytes: &[u8]) -> Result<Self> {
        let directory = find_directory(bytes)?;
        let mut entries = read_directory(bytes, &directory)?;
        entries.sort_unstable_by_key(|entry| entry.local_offset);
        check_local_headers(bytes, &mut entries, directory.range.start)?;
        entries.sort_unstable_by(|a, b| bytes[a.name.clone()].cmp(&bytes[b.name.clone()]));
        for pair in entries.windows(2) {
            if bytes[pair[0].name.clone()] == bytes[pair[1].name.clone()] {
                return Err(Error::corrupt(shown(bytes, &pair[0].name), "zip entry is there twice"));
            }
        }
        Ok(Self { entries })
    }

    /// Checks the checksums.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<()> {
        for entry in &self.entries {
            let got = crc32fast::hash(&bytes[entry.data.clone()]);
            if got != entry.crc {
                let message = format!("checksum is {got:08x}, the archive says {:08x}", entry.crc);
                return Err(Error::corrupt(shown(bytes, &entry.name), message));
            }
        }
        Ok(())
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the archive has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and data ranges, sorted by name; `bytes` are those that the archive was parsed from.
    pub fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a str, Range<usize>)> {
        self.entries.iter().map(|entry| (text(bytes, &entry.name), entry.data.clone()))
    }

    /// Where the data of `name` lies; `bytes` are those that the archive was parsed from.
    pub fn find(&self, bytes: &[u8], name: &str) -> Option<Range<usize>> {
        let name_of = |entry: &Entry| bytes.get(entry.name.clone()).unwrap_or_default();
        let found = self.entries.binary_search_by(|entry| name_of(entry).cmp(name.as_bytes()));
        found.ok().map(|idx| self.entries[idx].data.clone())
    }
}

struct Directory {
    range: Range<usize>,
    n_entries: u64,
}

fn find_directory(bytes: &[u8]) -> Result<Directory> {
    let cut = || {
        Error::corrupt(
            "",
            "zip archive has no end record at its end: it is cut short, or something follows it",
        )
    };
    let end_at = bytes.len().checked_sub(END_LEN).ok_or_else(cut)?;
    let mut end = Fields { bytes, at: end_at };
    if end.u32()? != END {
        return Err(cut());
    }
    let (disk, first_disk) = (end.u16()?, end.u16()?);
    let (n_here, n_total) = (end.u16()?, end.u16()?);
    let (len, offset) = (end.u32()?, end.u32()?);
    if disk != 0 || first_disk != 0 || n_here != n_total || end.u16()? != 0 {
        return Err(Error::refused("", "zip archive in several parts, or with a comment"));
    }
    let mut directory_end = end_at;
    let (mut n, mut len, mut offset) = (u64::from(n_total), u64::from(len), u64::from(offset));

    let locator_at = end_at.checked_sub(LOCATOR_ZIP64_LEN);
    if let Some(at) = locator_at.filter(|&at| bytes[at..].starts_with(&LOCATOR_ZIP64.to_le_bytes())) {
        let mut locator = Fields { bytes, at: at + 4 };
        let (disk, end64_at, n_disks) = (locator.u32()?, locator.u64()?, locator.u32()?);
        let want = at.checked_sub(END_ZIP64_LEN);
        let mut end64 = match want {
            Some(want) if disk == 0 && n_disks <= 1 && end64_at == want as u64 => Fields { bytes, at: want },
            _ => return Err(Error::corrupt("", "zip64 locator does not point at the record before it")),
        };
        if end64.u32()? != END_ZIP64 || end64.u64()? != (END_ZIP64_LEN - 12) as u64 {
            return Err(Error::corrupt("", "zip64 end record is malformed"));
        }
        end64.at += 4; // versions
        let (disk, first_disk) = (end64.u32()?, end64.u32()?);
        let (n_here, n_total) = (end64.u64()?, end64.u64()?);
        let (len64, offset64) = (end64.u64()?, end64.u64()?);
        let agree = |small: u64, large: u64, all_ones: u64| small == large || small == all_ones;
        if disk != 0
            || first_disk != 0
            || n_here != n_total
            || !agree(n, n_total, u64::from(u16::MAX))
            || !agree(len, len64, u64::from(u32::MAX))
            || !agree(offset, offset64, u64::from(u32::MAX))
        {
            return Err(Error::corrupt("", "zip64 end record and end record disagree"));
        }
        (n, len, offset) = (n_total, len64, offset64);
        directory_end = end64_at as usize;
    }

    if offset.checked_add(len) != Some(directory_end as u64) {
        let message = format!(
            "zip central directory is said to lie at {offset}, {len} bytes, but ends at {directory_end}"
        );
        return Err(Error::corrupt("", message));
    }
    Ok(Directory { range: offset as usize..directory_end, n_entries: n })
}

fn read_directory(bytes: &[u8], directory: &Directory) -> Result<Vec<Entry>> {
    let bytes = &bytes[..directory.range.end];
    // An entry takes a central and a local header, so a count that the file can't hold is caught before it is believed.
    let most = bytes.len() / (CENTRAL_HEADER_LEN + LOCAL_HEADER_LEN);
    if directory.n_entries > most as u64 {
        let message = format!(
            "zip archive declares {} entries, {most} are the most it could hold",
            directory.n_entries
        );
        return Err(Error::corrupt("", message));
    }
    let mut entries = Vec::with_capacity(directory.n_entries as usize);
    let mut fields = Fields { bytes, at: directory.range.start };
    for idx in 0..directory.n_entries {
        let entry =
            read_central_header(&mut fields).map_err(|error| error.within(&format!("zip entry {idx}")))?;
        entries.push(entry);
    }
    if fields.at != directory.range.end {
        return Err(Error::corrupt("", "zip central directory holds more than its entries"));
    }
    Ok(entries)
}

fn read_central_header(fields: &mut Fields<'_>) -> Result<Entry> {
    if fields.u32()? != CENTRAL_HEADER {
        return Err(Error::corrupt("", "no central header where one should be"));
    }
    fields.at += 4; // versions
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.at += 4; // time and date
    let crc = fields.u32()?;
    let (stored, size) = (fields.u32()?, fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let disk = fields.u16()?;
    fields.at += 6; // attributes
    let offset = fields.u32()?;
    let name = fields.range(name_len.into())?;
    let place = shown(fields.bytes, &name);
    check_name(&fields.bytes[name.clone()], &place)?;
    if flags & !(FLAG_DESCRIPTOR | FLAG_UTF8) != 0 {
        return Err(Error::refused(place, format!("zip entry has flags {flags:#06x}: encrypted or patched")));
    }
    if method != 0 {
        return Err(Error::refused(
            place,
            format!("zip entry is compressed (method {method}), it has to be stored"),
        ));
    }
    if comment_len != 0 || disk != 0 {
        return Err(Error::refused(place, "zip entry has a comment or lies on another disk"));
    }
    let extra = fields.range(extra_len.into())?;
    let wide = [size, stored, offset].map(|v| v == u32::MAX);
    let [size, stored, offset] =
        widen(&fields.bytes[extra], [size, stored, offset], wide).map_err(|e| e.within(&place))?;
    if stored != size {
        return Err(Error::corrupt(
            place,
            format!("stored entry of {size} bytes takes {stored} in the archive"),
        ));
    }
    let len = fields.bytes.len() as u64;
    if offset.checked_add(size).is_none_or(|end| end > len) {
        return Err(Error::corrupt(
            place,
            format!("zip entry of {size} bytes at {offset} reaches past the file's {len}"),
        ));
    }
    // The data range is completed when the local header has been read; until then it carries the size.
    Ok(Entry { name, data: 0..size as usize, local_offset: offset as usize, crc, flags })
}

/// Replaces the fields that are all ones by their 64-bit values in the zip64 extra field.
fn widen(extra: &[u8], small: [u32; 3], wide: [bool; 3]) -> Result<[u64; 3]> {
    let mut out = small.map(u64::from);
    if wide.contains(&true) {
        let mut fields = Fields { bytes: extra, at: 0 };
        loop {
            let (id, len) = (fields.u16()?, fields.u16()?);
            let body = fields.range(len.into())?;
            if id == 1 {
                let mut body = Fields { bytes: &extra[..body.end], at: body.start };
                for (value, wide) in out.iter_mut().zip(wide) {
                    if wide {
                        *value = body.u64()?;
                    }
                }
                break;
            }
        }
    }
    Ok(out)
}

fn check_name(name: &[u8], place: &str) -> Result<()> {
    let plain = std::str::from_utf8(name).is_ok_and(|name| {
        !name.is_empty()
            && !name.contains(['\0', '\\'])
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    if plain { Ok(()) } else { Err(Error::refused(place, "zip entry's name is not a plain relative path")) }
}

/// Checks that the local headers say what the directory says, and that header, data and descriptor of each entry
/// follow upon those of the one before without gap or overlap. `entries` are in the order of their offsets.
fn check_local_headers(bytes: &[u8], entries: &mut [Entry], directory_start: usize) -> Result<()> {
    let mut end = 0;
    for entry in entries {
        let place = shown(bytes, &entry.name);
        if entry.local_offset != end {
            let how = if entry.local_offset < end {
                "overlaps the entry before it"
            } else {
                "leaves a gap before it"
            };
            let message = format!("zip entry at byte {} {how}, which ends at {end}", entry.local_offset);
            return Err(Error::corrupt(place, message));
        }
        let mut fields = Fields { bytes: &bytes[..directory_start], at: end };
        entry.data = read_local_header(bytes, &mut fields, entry).map_err(|error| error.within(&place))?;
        end = fields.at;
    }
    if end != directory_start {
        let message =
            format!("zip entries end at byte {end}, the central directory begins at {directory_start}");
        return Err(Error::corrupt("", message));
    }
    Ok(())
}

/// Returns where the data lies; `fields` then stands behind the data and its descriptor.
fn read_local_header(bytes: &[u8], fields: &mut Fields<'_>, entry: &Entry) -> Result<Range<usize>> {
    let size = entry.data.len() as u64;
    if fields.u32()? != LOCAL_HEADER {
        return Err(Error::corrupt("", "no local header where the central directory says one is"));
    }
    fields.at += 2; // version
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.at += 4; // time and date
    let crc = fields.u32()?;
    let (stored, plain) = (fields.u32()?, fields.u32()?);
    let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
    let name = fields.range(name_len.into())?;
    let extra = fields.range(extra_len.into())?;
    let later = flags & FLAG_DESCRIPTOR != 0;
    let wide = [plain, stored].map(|v| v == u32::MAX);
    let [plain, stored, _] = widen(&bytes[extra], [plain, stored, 0], [wide[0], wide[1], false])?;
    let given = (crc, stored, plain);
    let agrees = given == (entry.crc, size, size) || (later && given == (0, 0, 0));
    if flags != entry.flags || method != 0 || bytes[name] != bytes[entry.name.clone()] || !agrees {
        return Err(Error::corrupt("", "local header and central directory disagree"));
    }
    let data = fields.range(size as usize)?;
    if later {
        if fields.u32()? != DATA_DESCRIPTOR || fields.u32()? != entry.crc {
            return Err(Error::corrupt(
                "",
                "data descriptor is missing or disagrees with the central directory",
            ));
        }
        // Sizes are 32 or 64 bits wide; which of them can be told only by what fits.
        let narrow = fields.bytes.get(fields.at..fields.at + 8).is_some_and(|sizes| {
            sizes[..4] == sizes[4..] && u32::try_from(size).is_ok_and(|size| sizes[..4] == size.to_le_bytes())
        });
        let wide = fields
            .bytes
            .get(fields.at..fields.at + 16)
            .is_some_and(|sizes| sizes[..8] == size.to_le_bytes() && sizes[8..] == size.to_le_bytes());
        // An empty entry's wide descriptor looks like a narrow one followed by zeros.
        fields.at += match (narrow, wide) {
            (_, true) => 16,
            (true, false) => 8,
            (false, false) => {
                return Err(Error::corrupt("", "data descriptor and central directory disagree on the size"));
            }
        };
    }
    Ok(data)
}

/// Little-endian fields, read one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn range(&mut self, len: usize) -> Result<Range<usize>> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end =
            end.ok_or_else(|| Error::corrupt("", format!("zip record at byte {} is cut short", self.at)))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.range(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[range]);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

fn text<'a>(bytes: &'a [u8], name: &Range<usize>) -> &'a str {
    bytes.get(name.clone()).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
}

fn shown(bytes: &[u8], name: &Range<usize>) -> String {
    printable(&String::from_utf8_lossy(&bytes[name.clone()]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ZipStyle, zip};

    const STYLES: [ZipStyle; 2] = [ZipStyle::Torch, ZipStyle::Plain];

    fn sample(style: ZipStyle) -> Vec<u8> {
        zip(style, &[("x/data.pkl", b"first"), ("x/data/0", b""), ("x/data/1", &[7; 100])])
    }

    fn refusal(bytes: &[u8]) -> String {
        Archive::parse(bytes).unwrap_err().to_string()
    }

    /// Where `what` stands for the `n`th time.
    fn find(bytes: &[u8], what: &[u8], n: usize) -> usize {
        bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).nth(n).unwrap().0
    }

    #[test]
    fn entries_are_found_by_name() {
        for style in STYLES {
            let bytes = sample(style);
            let archive = Archive::parse(&bytes).unwrap();
            assert_eq!(archive.len(), 3);
            assert_eq!(&bytes[archive.find(&bytes, "x/data.pkl").unwrap()], b"first");
            assert_eq!(archive.find(&bytes, "x/data/0").unwrap().len(), 0);
            assert_eq!(&bytes[archive.find(&bytes, "x/data/1").unwrap()], [7; 100]);
            assert!(archive.find(&bytes, "x/data").is_none());
        }
        assert!(Archive::parse(&zip(ZipStyle::Plain, &[])).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_an_error() {
        for style in STYLES {
            let bytes = sample(style);
            for len in 0..bytes.len() {
                assert!(Archive::parse(&bytes[..len]).is_err(), "{style:?} cut to {len}");
            }
        }
    }

    #[test]
    fn damaged_data_is_told_by_its_checksum() {
        for style in STYLES {
            let mut bytes = sample(style);
            let at = find(&bytes, b"first", 0);
            bytes[at] ^= 1;
            let message = refusal(&bytes);
            assert!(message.starts_with("x/data.pkl: checksum is "), "{message}");
        }
    }

    #[test]
    fn something_before_or_behind_is_refused() {
        for style in STYLES {
            let bytes = sample(style);
            assert!(refusal(&[&bytes[..], b"x"].concat()).contains("no end record"));
            assert!(Archive::parse(&[b"x", &bytes[..]].concat()).is_err());
        }
    }

    #[test]
    fn headers_that_disagree_are_refused() {
        // Offsets of fields in the local header: flags 6, method 8, checksum 14, sizes 18 and 22, name 30.
        for field in [6, 8, 14, 18, 22, 30] {
            let mut bytes = sample(ZipStyle::Plain);
            let at = find(&bytes, b"PK\x03\x04", 2);
            bytes[at + field] ^= 1;
            let message = refusal(&bytes);
            assert!(message.contains("x/data/1") && message.contains("disagree"), "{field}: {message}");
        }
    }

    #[test]
    fn compressed_and_encrypted_entries_are_refused() {
        // Offsets of fields in the central header: flags 8, method 10.
        for (field, value, want) in [(8, 1, "flags"), (10, 8, "compressed (method 8)")] {
            let mut bytes = sample(ZipStyle::Plain);
            let at = find(&bytes, b"PK\x01\x02", 1);
            bytes[at + field] = value;
            let message = refusal(&bytes);
            assert!(message.contains("x/data/0") && message.contains(want), "{message}");
        }
    }

    #[test]
    fn overlaps_and_gaps_are_refused() {
        let mut bytes = sample(ZipStyle::Plain);
        let (first, second) = (find(&bytes, b"PK\x01\x02", 0), find(&bytes, b"PK\x01\x02", 1));
        let offset: Vec<u8> = bytes[first + 42..first + 46].to_vec();
        bytes[second + 42..second + 46].copy_from_slice(&offset);
        assert!(refusal(&bytes).contains("overlaps"), "{}", refusal(&bytes));

        let mut bytes = sample(ZipStyle::Plain);
        let at = find(&bytes, b"PK\x01\x02", 0);
        bytes[at + 42] += 4;
        assert!(refusal(&bytes).contains("gap"), "{}", refusal(&bytes));
    }

    #[test]
    fn names_have_to_be_plain_and_unique() {
        for name in ["../x", "/x", "x//y", "x/./y", "x\\y", "x\0", ""] {
            let message = refusal(&zip(ZipStyle::Plain, &[(name, b"")]));
            assert!(message.contains("plain relative path"), "{name:?}: {message}");
        }
        let message = refusal(&zip(ZipStyle::Plain, &[("x", b"1"), ("x", b"2")]));
        assert_eq!(message, "x: zip entry is there twice");
    }

    #[test]
    fn a_count_that_the_file_cant_hold_is_not_believed() {
        let mut bytes = sample(ZipStyle::Torch);
        let at = find(&bytes, b"PK\x06\x06", 0);
        for field in [24, 32] {
            bytes[at + field..at + field + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        }
        let end = bytes.len() - 22;
        bytes[end + 8..end + 12].fill(0xff);
        assert!(refusal(&bytes).contains("entries"), "{}", refusal(&bytes));
    }

    #[test]
    fn records_of_64_bits_are_read_and_have_to_agree() {
        let mut bytes = sample(ZipStyle::Torch);
        let end = bytes.len() - 22;
        bytes[end + 8..end + 20].fill(0xff);
        assert_eq!(Archive::parse(&bytes).unwrap().len(), 3);
        bytes[end + 8..end + 12].fill(9);
        assert!(refusal(&bytes).contains("disagree"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            for style in STYLES {
                let names: Vec<String> = (0..contents.len()).map(|idx| format!("x/data/{idx}")).collect();
                let entries: Vec<(&str, &[u8])> =
                    names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
                let bytes = zip(style, &entries);
                let archive = Archive::parse(&bytes).unwrap();
                prop_assert_eq!(archive.len(), entries.len());
                for (name, content) in entries {
                    prop_assert_eq!(&bytes[archive.find(&bytes, name).unwrap()], content);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Archive::parse(&bytes);
        }

        #[test]
        fn a_changed_byte_never_panics_nor_changes_data(at in any::<prop::sample::Index>(), with in 1..=255u8) {
            for style in STYLES {
                let sound = sample(style);
                let mut bytes = sound.clone();
                let at = at.index(bytes.len());
                bytes[at] ^= with;
                // Times, versions and padding may change unnoticed, data and names may not.
                if let Ok(archive) = Archive::parse(&bytes) {
                    let data = archive.find(&bytes, "x/data/1").map(|range| bytes[range].to_vec());
                    prop_assert_eq!(data, Some(vec![7; 100]));
                }
            }
        }
    }
}
