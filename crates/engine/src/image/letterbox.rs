//! Fitting a picture into a network's input, and the way back.

#[cfg(feature = "gpu")]
use super::resize;
use super::resize::Resizer;
use super::{Image, check_rows};
use crate::error::{Error, Result};

/// Smallest multiple to which `rect` inputs are padded, whatever the network's stride.
const MIN_RECT_MULTIPLE: usize = 32;

/// Where the scaled picture lies in the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// In the middle, with padding on two sides; sizes are rounded to the nearest, half to even.
    Center,
    /// In the top left corner, with padding at the right or below; sizes are rounded down.
    TopLeft,
}

/// Order of the channels in the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Color {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// The values a network wants to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputSpec {
    /// Order of the channels.
    pub color: Color,
    /// 8-bit values are divided by this: 255 or 1.
    pub divisor: f32,
    /// 8-bit value of the padding in each channel.
    pub pad_value: u8,
}

impl Default for InputSpec {
    /// RGB from 0 to 1 with padding 114, what most networks take.
    fn default() -> Self {
        Self { color: Color::Rgb, divisor: 255.0, pad_value: 114 }
    }
}

/// Scales a picture, keeping its proportions, into the input of a network, and maps boxes back.
///
/// Sizes are `[height, width]` in pixels. The picture is scaled up or down by one factor so that it just fits; what
/// remains of the input is padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Letterbox {
    image_hw: [usize; 2],
    net_hw: [usize; 2],
    scaled_hw: [usize; 2],
    top: usize,
    left: usize,
    gain_yx: [f64; 2],
    pad_yx: [usize; 2],
    back_hw: [usize; 2],
}

/// What of a network's input is picture, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// First row and column.
    pub top_left: [usize; 2],
    /// Height and width.
    pub hw: [usize; 2],
}

impl Letterbox {
    /// Fits pictures of `image_hw` into an input of exactly `net_hw`.
    ///
    /// Errors with `ErrorKind::Argument` if a side is zero.
    pub fn new(image_hw: [usize; 2], net_hw: [usize; 2], placement: Placement) -> Result<Self> {
        check_sizes(image_hw, net_hw)?;
        let scaled_hw = scaled(image_hw, net_hw, placement);
        Ok(Self::placed(image_hw, net_hw, scaled_hw, placement))
    }

    /// As [`Letterbox::new`], but without needless padding: each side of [`Letterbox::net_hw`] is as much smaller
    /// than that of `max_hw` as multiples of `stride` (of 32, if that is more) fit into the padding.
    ///
    /// Errors with `ErrorKind::Argument` if a side is zero.
    pub fn rect(
        image_hw: [usize; 2],
        max_hw: [usize; 2],
        placement: Placement,
        stride: usize,
    ) -> Result<Self> {
        check_sizes(image_hw, max_hw)?;
        let multiple = stride.max(MIN_RECT_MULTIPLE);
        let scaled_hw = scaled(image_hw, max_hw, placement);
        let net_hw = [0, 1].map(|axis| scaled_hw[axis] + (max_hw[axis] - scaled_hw[axis]) % multiple);
        Ok(Self::placed(image_hw, net_hw, scaled_hw, placement))
    }

    fn placed(image_hw: [usize; 2], net_hw: [usize; 2], scaled_hw: [usize; 2], placement: Placement) -> Self {
        let gain = fit(image_hw, net_hw);
        let (top_left, pad_yx, gain_yx, back_hw) = match placement {
            Placement::TopLeft => ([0, 0], [0, 0], [gain; 2], scaled_hw),
            Placement::Center => {
                // The way back sees only the two sizes, and takes the gain that rounding to whole pixels has left in
                // each direction. Where that made the scaled picture a little smaller than `rect` promised, both differ
                // from the way there; boxes are published this way.
                let back_hw = image_hw.map(|side| round(side as f64 * gain).max(1));
                let gain_yx = [0, 1].map(|axis| back_hw[axis] as f64 / image_hw[axis] as f64);
                (half_of_rest(net_hw, scaled_hw), half_of_rest(net_hw, back_hw), gain_yx, back_hw)
            }
        };
        Self { image_hw, net_hw, scaled_hw, top: top_left[0], left: top_left[1], gain_yx, pad_yx, back_hw }
    }

    /// Scales pictures of `image_hw` to exactly `net_hw`, without keeping their proportions.
    ///
    /// Errors with `ErrorKind::Argument` if a side is zero.
    pub fn stretch(image_hw: [usize; 2], net_hw: [usize; 2]) -> Result<Self> {
        check_sizes(image_hw, net_hw)?;
        let gain_yx = [0, 1].map(|axis| net_hw[axis] as f64 / image_hw[axis] as f64);
        Ok(Self {
            image_hw,
            net_hw,
            scaled_hw: net_hw,
            top: 0,
            left: 0,
            gain_yx,
            pad_yx: [0, 0],
            back_hw: net_hw,
        })
    }

    /// Size of the picture.
    #[must_use]
    pub fn image_hw(&self) -> [usize; 2] {
        self.image_hw
    }

    /// Size of the network's input.
    #[must_use]
    pub fn net_hw(&self) -> [usize; 2] {
        self.net_hw
    }

    /// Size of the scaled picture within the input.
    #[must_use]
    pub fn scaled_hw(&self) -> [usize; 2] {
        self.scaled_hw
    }

    /// First row and column of the scaled picture within the input.
    #[must_use]
    pub fn top_left(&self) -> [usize; 2] {
        [self.top, self.left]
    }

    /// Pixels of the input per pixel of the picture, down and across.
    #[must_use]
    pub fn gain_yx(&self) -> [f64; 2] {
        self.gain_yx
    }

    /// What of the input is picture, for the way back.
    pub(crate) fn window(&self) -> Window {
        Window { top_left: self.pad_yx, hw: self.back_hw }
    }

    /// For each row of the scaled picture: the two rows of the picture that it is made of, and their weights.
    #[cfg(feature = "gpu")]
    pub(crate) fn rows(&self) -> impl Iterator<Item = ([usize; 2], [i16; 2])> {
        resize::rows(self.image_hw[0], self.scaled_hw[0])
    }

    /// For each column of the scaled picture: the left one of the two of the picture that it is made of, and their
    /// weights.
    #[cfg(feature = "gpu")]
    pub(crate) fn columns(&self) -> impl Iterator<Item = (usize, [i16; 2])> {
        resize::columns(self.image_hw[1], self.scaled_hw[1])
    }

    /// Maps a point `[x, y]` of the input to the picture, where it may fall outside.
    #[must_use]
    pub fn map_point(&self, xy_net: [f32; 2]) -> [f32; 2] {
        let [pad_y, pad_x] = self.pad_yx.map(|pad| pad as f32);
        let [gain_y, gain_x] = self.gain_yx.map(|gain| gain as f32);
        [(xy_net[0] - pad_x) / gain_x, (xy_net[1] - pad_y) / gain_y]
    }

    /// Maps a box `[x1, y1, x2, y2]` of the input to the picture and clips it there.
    #[must_use]
    pub fn map_box(&self, xyxy_net: [f32; 4]) -> [f32; 4] {
        let [x1, y1, x2, y2] = xyxy_net;
        let ([x1, y1], [x2, y2]) = (self.map_point_clipped([x1, y1]), self.map_point_clipped([x2, y2]));
        [x1, y1, x2, y2]
    }

    /// Maps a point `[x, y]` of the input to the picture and clips it there.
    #[must_use]
    pub fn map_point_clipped(&self, xy_net: [f32; 2]) -> [f32; 2] {
        let [height, width] = self.image_hw.map(|side| side as f32);
        let [x, y] = self.map_point(xy_net);
        [x.clamp(0.0, width), y.clamp(0.0, height)]
    }

    /// Maps a rotated box `[x, y, w, h, angle]` of the input to the picture, where it may reach outside.
    #[must_use]
    pub fn map_rotated(&self, [x, y, w, h, angle]: [f32; 5]) -> [f32; 5] {
        let [x, y] = self.map_point([x, y]);
        let [gain_y, gain_x] = self.gain_yx.map(|gain| gain as f32);
        [x, y, w / gain_x, h / gain_y, angle]
    }

    /// Writes the scaled and padded picture as pixels of three `f32`.
    ///
    /// Row `y` of the input begins at `rows[y * row_stride]`; what lies between the rows is left as it is. Scaling
    /// is bilinear on 8-bit values with half-pixel centers and without antialiasing, to the bit as OpenCV's
    /// `INTER_LINEAR`; then values are divided by `input.divisor`.
    ///
    /// Errors with `ErrorKind::Shape` if the picture is of another size than this letterbox is for, or if the rows
    /// overlap or do not fit into `rows`.
    pub fn write(
        &self,
        image: &Image,
        input: &InputSpec,
        rows: &mut [f32],
        row_stride: usize,
        scratch: &mut LetterboxScratch,
    ) -> Result<()> {
        if image.shape() != self.image_hw {
            let (got, expected) = (image.shape(), self.image_hw);
            return Err(Error::shape("letterbox", format!("got picture {got:?}, expected {expected:?}")));
        }
        let [net_h, net_w] = self.net_hw;
        check_rows("letterbox", self.net_hw, rows.len(), row_stride)?;

        let [scaled_h, scaled_w] = self.scaled_hw;
        let picture = self.left * 3..(self.left + scaled_w) * 3;
        let pad = f32::from(input.pad_value) / input.divisor;
        let mut resizer = scratch.0.start(image, self.scaled_hw);
        for (y, row) in rows.chunks_mut(row_stride).take(net_h).enumerate() {
            let row = &mut row[..net_w * 3];
            if y < self.top || y >= self.top + scaled_h {
                row.fill(pad);
                continue;
            }
            row[..picture.start].fill(pad);
            row[picture.end..].fill(pad);
            resizer.row(y - self.top, input.divisor, &mut row[picture.clone()]);
            if input.color == Color::Bgr {
                for pixel in row[picture.clone()].as_chunks_mut::<3>().0 {
                    pixel.swap(0, 2);
                }
            }
        }
        Ok(())
    }
}

/// Tables and rows that [`Letterbox::write`] reuses from one picture to the next.
#[derive(Clone, Debug, Default)]
pub struct LetterboxScratch(Resizer);

fn check_sizes(image_hw: [usize; 2], net_hw: [usize; 2]) -> Result<()> {
    if image_hw.contains(&0) || net_hw.contains(&0) {
        let message = format!("got picture {image_hw:?} and input {net_hw:?}, expected at least 1x1");
        return Err(Error::argument("letterbox", message));
    }
    Ok(())
}

/// The largest factor at which the picture fits.
fn fit(image_hw: [usize; 2], net_hw: [usize; 2]) -> f64 {
    let [y, x] = [0, 1].map(|axis| net_hw[axis] as f64 / image_hw[axis] as f64);
    y.min(x)
}

fn scaled(image_hw: [usize; 2], net_hw: [usize; 2], placement: Placement) -> [usize; 2] {
    let gain = fit(image_hw, net_hw);
    [0, 1].map(|axis| {
        let side = image_hw[axis] as f64 * gain;
        let side = match placement {
            Placement::Center => round(side),
            Placement::TopLeft => side as usize,
        };
        side.clamp(1, net_hw[axis])
    })
}

fn round(side: f64) -> usize {
    side.round_ties_even() as usize
}

/// Half of what `part_hw` leaves free of `net_hw`; an odd pixel goes to the bottom or right.
fn half_of_rest(net_hw: [usize; 2], part_hw: [usize; 2]) -> [usize; 2] {
    [0, 1].map(|axis| net_hw[axis].saturating_sub(part_hw[axis]) / 2)
}
