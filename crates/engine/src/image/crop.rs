//! Fitting a picture into a classifier's input: scaled down with antialiasing, and its middle cut out.
//!
//! The arithmetic is that of Pillow's bilinear `resize` for 8-bit samples, to the bit, across first and then down:
//! weights of a triangle as wide as the step between two samples, rounded to 22 bits.

use super::{Image, check_rows};
use crate::error::{Error, Result};

/// Bits of a weight.
const WEIGHT_BITS: u32 = 22;

/// There is a table entry for each row and column of the input.
const MAX_NET_SIDE: usize = 1 << 16;

/// How the channels of a classifier's input are spread: `(value - mean) / std`, for values of RGB from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Is subtracted from red, green and blue.
    pub mean: [f32; 3],
    /// Divides what remains.
    pub std: [f32; 3],
}

impl Default for Normalization {
    /// Values as they are.
    fn default() -> Self {
        Self { mean: [0.0; 3], std: [1.0; 3] }
    }
}

/// Scales a picture so that its middle fills the input of a network.
///
/// Sizes are `[height, width]` in pixels. For a square input the picture keeps its proportions and its shorter side
/// becomes that of the input; for another input the whole picture is stretched to it.
#[derive(Clone, Debug, PartialEq)]
pub struct CenterCrop {
    image_hw: [usize; 2],
    net_hw: [usize; 2],
    axes: [Axis; 2],
}

/// One axis: for each sample of the result the first source sample and the weights from there on.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    starts: Vec<usize>,
    /// As many for each sample.
    weights: Vec<i32>,
    n_weights: usize,
}

impl CenterCrop {
    /// Fits pictures of `image_hw` into an input of `net_hw`.
    ///
    /// Errors with `ErrorKind::Argument` if a side is zero, and with `ErrorKind::Limit` if one of the input is larger
    /// than 65536.
    pub fn new(image_hw: [usize; 2], net_hw: [usize; 2]) -> Result<Self> {
        if image_hw.contains(&0) || net_hw.contains(&0) {
            let message = format!("got picture {image_hw:?} and input {net_hw:?}, expected at least 1x1");
            return Err(Error::argument("crop", message));
        }
        if net_hw.iter().any(|&side| side > MAX_NET_SIDE) {
            return Err(Error::limit(
                "crop",
                format!("got input {net_hw:?}, expected at most {MAX_NET_SIDE}"),
            ));
        }
        let [height, width] = image_hw;
        let scaled_hw = match net_hw {
            [side, other] if side != other => net_hw,
            [side, _] if width <= height => [longer(side, height, width), side],
            [side, _] => [side, longer(side, width, height)],
        };
        let axes = [0, 1].map(|axis| {
            let rest = scaled_hw[axis] - net_hw[axis];
            // Half of the rest, rounded to even.
            let start = rest / 2 + usize::from(rest % 4 == 3);
            Axis::new(image_hw[axis], scaled_hw[axis], start, net_hw[axis])
        });
        Ok(Self { image_hw, net_hw, axes })
    }

    /// Size of the network's input.
    #[must_use]
    pub fn net_hw(&self) -> [usize; 2] {
        self.net_hw
    }

    /// Writes the scaled and cut picture as pixels of three `f32`, RGB.
    ///
    /// Row `y` of the input begins at `rows[y * row_stride]`; what lies between the rows is left as it is.
    ///
    /// Errors with `ErrorKind::Shape` if the picture is of another size than this crop is for, or if the rows overlap
    /// or do not fit into `rows`.
    pub fn write(
        &self,
        image: &Image,
        input: &Normalization,
        rows: &mut [f32],
        row_stride: usize,
    ) -> Result<()> {
        if image.shape() != self.image_hw {
            let (got, expected) = (image.shape(), self.image_hw);
            return Err(Error::shape("crop", format!("got picture {got:?}, expected {expected:?}")));
        }
        let [net_h, net_w] = self.net_hw;
        check_rows("crop", self.net_hw, rows.len(), row_stride)?;

        // Source rows that were scaled across, in a ring that is as large as one row of the result needs.
        let [down, across] = &self.axes;
        let n_lines = down.n_weights;
        let mut lines = vec![(usize::MAX, vec![0u8; net_w * 3]); n_lines];
        let mut sums = vec![0i64; net_w * 3];
        for (y, row) in rows.chunks_mut(row_stride).take(net_h).enumerate() {
            let start = down.starts[y];
            let weights = down.weights(y);
            sums.fill(1 << (WEIGHT_BITS - 1));
            for (source_y, &weight) in (start..).zip(weights) {
                let (line_y, line) = &mut lines[source_y % n_lines];
                if *line_y != source_y {
                    *line_y = source_y;
                    across.scale(
                        &image.pixels()[source_y * self.image_hw[1] * 3..][..self.image_hw[1] * 3],
                        line,
                    );
                }
                for (sum, &sample) in sums.iter_mut().zip(line.iter()) {
                    *sum += i64::from(sample) * i64::from(weight);
                }
            }
            for (pixel, sums) in
                row[..net_w * 3].as_chunks_mut::<3>().0.iter_mut().zip(sums.as_chunks::<3>().0)
            {
                let samples = sums.map(|sum| f32::from(to_sample(sum)) / 255.0);
                for (channel, to) in pixel.iter_mut().enumerate() {
                    *to = (samples[channel] - input.mean[channel]) / input.std[channel];
                }
            }
        }
        Ok(())
    }
}

/// The longer side after scaling, if the shorter one becomes `side`; rounded down.
fn longer(side: usize, longer: usize, shorter: usize) -> usize {
    (side as u128 * longer as u128 / shorter as u128).try_into().unwrap_or(usize::MAX)
}

fn to_sample(sum: i64) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

impl Axis {
    /// Scales `from` samples to `to`, of which `len` from `start` on are computed.
    fn new(from: usize, to: usize, start: usize, len: usize) -> Self {
        let step = from as f64 / to as f64;
        let reach = step.max(1.0);
        let n_weights = (reach.ceil() as usize * 2 + 1).min(from);
        let mut axis =
            Self { starts: Vec::with_capacity(len), weights: Vec::with_capacity(len * n_weights), n_weights };
        for idx in start..start + len {
            let center = (idx as f64 + 0.5) * step;
            // Casts saturate at zero.
            let first = (center - reach + 0.5) as usize;
            let end = ((center + reach + 0.5) as usize).min(from);
            let weight = |at: usize| (1.0 - ((at as f64 - center + 0.5) / reach).abs()).max(0.0);
            let sum: f64 = (first..end).map(weight).sum();
            // Those of the last samples begin earlier, so that all have the same number.
            let shifted = first.min(from - n_weights);
            axis.starts.push(shifted);
            let scale = f64::from(1 << WEIGHT_BITS);
            axis.weights.extend((shifted..shifted + n_weights).map(|at| {
                if (first..end).contains(&at) { (weight(at) / sum * scale + 0.5) as i32 } else { 0 }
            }));
        }
        axis
    }

    fn weights(&self, idx: usize) -> &[i32] {
        &self.weights[idx * self.n_weights..][..self.n_weights]
    }

    /// Scales a row of pixels.
    fn scale(&self, row: &[u8], out: &mut [u8]) {
        for (idx, to) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let mut sums = [1i64 << (WEIGHT_BITS - 1); 3];
            let pixels = row[self.starts[idx] * 3..].as_chunks::<3>().0;
            for (pixel, &weight) in pixels.iter().zip(self.weights(idx)) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i64::from(sample) * i64::from(weight);
                }
            }
            *to = sums.map(to_sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A picture whose samples follow from their index.
    fn image(width: usize, height: usize) -> Image {
        let pixels = (0..width * height * 3).map(|idx| (idx * 37 % 251) as u8).collect();
        Image::from_rgb8(width, height, pixels).unwrap()
    }

    fn written(image: &Image, net_hw: [usize; 2], input: &Normalization) -> Vec<f32> {
        let mut rows = vec![f32::NAN; net_hw[0] * net_hw[1] * 3];
        CenterCrop::new(image.shape(), net_hw)
            .unwrap()
            .write(image, input, &mut rows, net_hw[1] * 3)
            .unwrap();
        rows
    }

    /// Samples of the red channel.
    fn check(image: &Image, net_hw: [usize; 2], expected: &[u8]) {
        let red: Vec<u8> = written(image, net_hw, &Normalization::default())
            .chunks(3)
            .map(|pixel| (pixel[0] * 255.0).round() as u8)
            .collect();
        assert_eq!(red, expected, "{image:?} to {net_hw:?}");
    }

    #[test]
    fn samples_are_those_of_pillow() {
        check(
            &image(20, 11),
            [4, 4],
            &[128, 139, 128, 118, 119, 130, 135, 114, 115, 121, 129, 135, 127, 120, 128, 125],
        );
        check(
            &image(11, 20),
            [5, 5],
            &[
                120, 121, 134, 146, 138, 122, 136, 128, 105, 110, 129, 132, 149, 121, 114, 136, 126, 109,
                116, 139, 129, 138, 120, 117, 121,
            ],
        );
        check(
            &image(4, 3),
            [6, 6],
            &[
                28, 83, 139, 194, 187, 117, 61, 84, 125, 180, 173, 103, 126, 87, 96, 151, 144, 74, 159, 121,
                114, 137, 130, 92, 162, 186, 179, 140, 133, 157, 163, 218, 211, 141, 134, 189,
            ],
        );
        check(
            &image(9, 7),
            [10, 5],
            &[
                63, 157, 134, 103, 89, 130, 154, 131, 100, 86, 183, 151, 128, 97, 83, 179, 147, 124, 93, 79,
                176, 144, 121, 90, 76, 172, 140, 117, 86, 72, 169, 137, 114, 85, 74, 165, 133, 110, 115, 146,
                162, 130, 107, 123, 170, 159, 127, 104, 120, 167,
            ],
        );
        check(&image(9, 9), [3, 3], &[148, 131, 84, 150, 117, 102, 136, 103, 151]);
        check(
            &image(19, 7),
            [4, 4],
            &[92, 154, 156, 128, 123, 146, 118, 105, 129, 114, 98, 148, 93, 158, 155, 132],
        );
    }

    #[test]
    fn values_are_normalized_by_channel() {
        let image = Image::from_rgb8(1, 1, vec![51, 102, 255]).unwrap();
        let input = Normalization { mean: [0.1, 0.2, 0.5], std: [0.5, 0.25, 2.0] };
        let close = |got: &[f32], expected: [f32; 3]| {
            assert!(got.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?}");
        };
        close(&written(&image, [1, 1], &input), [0.2, 0.8, 0.25]);
    }

    #[test]
    fn sizes_at_the_limits() {
        for (width, height) in [(1, 1), (1, 20_000), (20_000, 1), (3, 2)] {
            let rows = written(&image(width, height), [8, 8], &Normalization::default());
            assert!(rows.iter().all(|value| (0.0..=1.0).contains(value)), "{width}x{height}");
        }
        let error = CenterCrop::new([0, 5], [8, 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        for net_hw in [[usize::MAX; 2], [1 << 40, 1 << 40], [8, 1 << 17]] {
            assert_eq!(CenterCrop::new([5, 5], net_hw).unwrap_err().kind(), ErrorKind::Limit);
        }
        let crop = CenterCrop::new([5, 5], [8, 8]).unwrap();
        let write = |image: &Image, len| {
            crop.write(image, &Normalization::default(), &mut vec![0.0; len], 24)
                .map_err(|error| error.kind())
        };
        assert_eq!(write(&image(5, 5), 8 * 24), Ok(()));
        assert_eq!(write(&image(5, 5), 8 * 24 - 1), Err(ErrorKind::Shape));
        assert_eq!(write(&image(5, 4), 8 * 24), Err(ErrorKind::Shape));
    }
}
