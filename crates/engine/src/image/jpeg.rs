//! What the segments of a JPEG file tell before it is decoded.

/// The segments up to the first scan.
#[derive(Debug, PartialEq)]
pub(super) struct Headers {
    /// The first frame header, if there is a sound one.
    pub(super) frame: Option<Frame>,
    /// Whether the decoder keeps the coefficients of the whole picture: in progressive files, and where the first scan
    /// lacks components.
    pub(super) keeps_coefficients: bool,
    /// Whether an end-of-image marker follows the start of the first scan.
    pub(super) is_complete: bool,
}

/// A frame header.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    is_progressive: bool,
    width: u64,
    height: u64,
    /// How many samples each component has across and down for its share of the largest.
    sampling: Vec<[u64; 2]>,
}

impl Headers {
    /// Walks over the segments of `bytes`, which begin with a start-of-image marker.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut headers = Self { frame: None, keeps_coefficients: false, is_complete: false };
        let mut at = 2;
        while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
            match marker {
                0xff => at += 1,
                0x01 | 0xd0..=0xd8 => at += 2,
                _ => {
                    let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return headers };
                    let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
                    let body = bytes.get(at + 4..end).unwrap_or_default();
                    if marker == 0xda {
                        let n_in_scan = body.first().map_or(0, |&n| usize::from(n));
                        headers.keeps_coefficients = headers
                            .frame
                            .as_ref()
                            .is_some_and(|frame| frame.is_progressive || n_in_scan != frame.sampling.len());
                        headers.is_complete = bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]);
                        return headers;
                    }
                    if matches!(marker, 0xc0..=0xc2) && headers.frame.is_none() {
                        headers.frame = Frame::parse(body, marker == 0xc2);
                    }
                    at = end;
                }
            }
        }
        // Out of step before any scan: what is wrong is told better by the decoder.
        headers.is_complete = at < bytes.len();
        headers
    }
}

impl Frame {
    fn parse(body: &[u8], is_progressive: bool) -> Option<Self> {
        let &[_precision, h1, h0, w1, w0, n, ref rest @ ..] = body else { return None };
        let components = rest.as_chunks::<3>().0.get(..usize::from(n))?;
        let sampling =
            components.iter().map(|&[_, hv, _]| [u64::from(hv >> 4), u64::from(hv & 15)]).collect();
        let side = |high, low| u64::from(u16::from_be_bytes([high, low]));
        Some(Self { is_progressive, width: side(w1, w0), height: side(h1, h0), sampling })
    }

    /// Bytes of all coefficients, two for each of the samples in whole blocks.
    pub(super) fn coefficient_bytes(&self) -> u64 {
        let most = |axis: usize| self.sampling.iter().map(|share| share[axis]).max().unwrap_or(0).max(1);
        let n_units = self.width.div_ceil(8 * most(0)) * self.height.div_ceil(8 * most(1));
        self.sampling.iter().map(|[across, down]| n_units * across * down * 64 * 2).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the frame header `marker` for `sampling`, and a scan of `n_in_scan` components.
    fn file(marker: u8, [width, height]: [u16; 2], sampling: &[u8], n_in_scan: u8) -> Vec<u8> {
        let n = sampling.len() as u8;
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0xff, marker, 0, 8 + 3 * n, 8];
        bytes.extend(height.to_be_bytes().into_iter().chain(width.to_be_bytes()).chain([n]));
        bytes.extend(sampling.iter().zip(1u8..).flat_map(|(&hv, id)| [id, hv, 0]));
        bytes.extend([0xff, 0xda, 0, 6 + 2 * n_in_scan, n_in_scan]);
        bytes.extend((1..=n_in_scan).flat_map(|id| [id, 0]).chain([0, 63, 0]));
        bytes
    }

    fn check(file: &[u8], keeps_coefficients: bool, coefficient_bytes: u64) {
        let headers = Headers::read(file);
        assert_eq!(headers.keeps_coefficients, keeps_coefficients);
        assert_eq!(headers.frame.map(|frame| frame.coefficient_bytes()), Some(coefficient_bytes));
    }

    #[test]
    fn coefficients_are_counted_in_whole_blocks() {
        check(&file(0xc2, [16, 8], &[0x11; 3], 3), true, 16 * 8 * 3 * 2);
        check(&file(0xc2, [17, 1], &[0x11], 1), true, 24 * 8 * 2);
        check(&file(0xc2, [17, 16], &[0x22, 0x11, 0x11], 3), true, (32 * 16 + 2 * 16 * 8) * 2);
        check(&file(0xc0, [16, 16], &[0x11; 3], 3), false, 16 * 16 * 3 * 2);
        check(&file(0xc0, [16, 16], &[0x11; 3], 1), true, 16 * 16 * 3 * 2);
    }

    #[test]
    fn an_end_is_looked_for_behind_the_scan() {
        let mut bytes = file(0xc0, [8, 8], &[0x11], 1);
        let scan = bytes.len();
        assert!(!Headers::read(&bytes).is_complete, "the comment holds the marker, too");
        bytes.extend([1, 2, 3, 0xff, 0xd9]);
        assert!(Headers::read(&bytes).is_complete);
        for len in scan..bytes.len() {
            assert!(!Headers::read(&bytes[..len]).is_complete, "{len}");
        }
    }
}
