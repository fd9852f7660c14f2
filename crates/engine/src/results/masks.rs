//! The masks of objects.

use serde::{Deserialize, Serialize};

use super::contour;
use crate::error::{Error, Result};
use crate::image::{Letterbox, gray};

/// Which pixels belong to one object.
///
/// Only the pixels of a rectangle are kept; outside of it there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MaskParts")]
pub struct Mask {
    origin: [usize; 2],
    width: usize,
    /// One byte a pixel, 0 or 1.
    pixels: Vec<u8>,
}

/// A mask that has not been checked yet.
#[derive(Deserialize)]
struct MaskParts {
    origin: [usize; 2],
    width: usize,
    pixels: Vec<u8>,
}

impl TryFrom<MaskParts> for Mask {
    type Error = Error;

    fn try_from(parts: MaskParts) -> Result<Self> {
        Self::new(parts.origin, parts.width, parts.pixels)
    }
}

impl Mask {
    /// A mask with `width` pixels a row whose upper left corner is at `origin` (`[x, y]`): the object is where
    /// `pixels` are not 0.
    ///
    /// Errors with `ErrorKind::Shape` unless the rows are whole and there is at least one pixel.
    pub fn new(origin: [usize; 2], width: usize, mut pixels: Vec<u8>) -> Result<Self> {
        if width == 0 || pixels.is_empty() || !pixels.len().is_multiple_of(width) {
            return Err(Error::shape("mask", format!("got {} pixels in rows of {width}", pixels.len())));
        }
        pixels.iter_mut().for_each(|pixel| *pixel = u8::from(*pixel != 0));
        Ok(Self { origin, width, pixels })
    }

    /// Left and upper edge of the rectangle, `[x, y]`.
    #[must_use]
    pub fn origin(&self) -> [usize; 2] {
        self.origin
    }

    /// Height and width of the rectangle.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.pixels.len() / self.width, self.width]
    }

    /// The pixels of the rectangle row after row, 1 where the object is and 0 elsewhere.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Whether the object is at a pixel; outside of the rectangle it is not.
    #[must_use]
    pub fn contains(&self, x: usize, y: usize) -> bool {
        let [left, top] = self.origin;
        let [height, width] = self.shape();
        match (x.checked_sub(left), y.checked_sub(top)) {
            (Some(x), Some(y)) if x < width && y < height => self.pixels[y * width + x] == 1,
            _ => false,
        }
    }

    /// Number of pixels that belong to the object.
    #[must_use]
    pub fn area(&self) -> usize {
        self.pixels
            .chunks(self.width)
            .map(|row| row.iter().map(|&pixel| usize::from(pixel)).sum::<usize>())
            .sum()
    }

    /// Outer borders of the connected parts as `[x, y]` in pixels of the mask's frame; holes are passed over.
    #[must_use]
    pub fn contours(&self) -> Vec<Vec<[usize; 2]>> {
        let [left, top] = self.origin;
        let mut contours = contour::outer(&self.pixels, self.width);
        contours.iter_mut().flatten().for_each(|[x, y]| (*x, *y) = (*x + left, *y + top));
        contours
    }
}

/// The masks of the objects of a picture, in the order of the boxes.
///
/// They all have the size of one frame: that of the network's input with the picture somewhere in it, or, if asked
/// for with [`PredictOptions::retina_masks`](crate::PredictOptions::retina_masks), that of the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masks {
    shape: [usize; 2],
    orig_shape: [usize; 2],
    /// Of the picture's upper left corner in the frame, `[x, y]`.
    offset: [f32; 2],
    /// Pixels of the frame per pixel of the picture, `[x, y]`.
    gain: [f32; 2],
    masks: Vec<Mask>,
    /// Masks in the prototypes' size, if they were asked for, and that size.
    coarse: Vec<Mask>,
    coarse_shape: [usize; 2],
}

impl Masks {
    /// No masks yet, of the size of a picture of `orig_shape` (height, width).
    #[must_use]
    pub fn new(orig_shape: [usize; 2]) -> Self {
        Self { shape: orig_shape, orig_shape, offset: [0.0; 2], gain: [1.0; 2], ..Self::empty() }
    }

    /// No masks yet, of the size of the network's input.
    pub(crate) fn in_input(letterbox: &Letterbox) -> Self {
        let [top, left] = letterbox.window().top_left.map(|edge| edge as f32);
        let [gain_y, gain_x] = letterbox.gain_yx().map(|gain| gain as f32);
        Self {
            shape: letterbox.net_hw(),
            orig_shape: letterbox.image_hw(),
            offset: [left, top],
            gain: [gain_x, gain_y],
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Self {
            shape: [0; 2],
            orig_shape: [0; 2],
            offset: [0.0; 2],
            gain: [1.0; 2],
            masks: Vec::new(),
            coarse: Vec::new(),
            coarse_shape: [0; 2],
        }
    }

    /// Adds the masks of an object, which may have no pixel, in both sizes.
    pub(crate) fn push_whole(
        &mut self,
        mask: Option<Mask>,
        coarse: Option<Mask>,
        coarse_shape: [usize; 2],
    ) -> Result<()> {
        let or_none = |mask: Option<Mask>| mask.map_or_else(|| Mask::new([0, 0], 1, vec![0]), Ok);
        self.masks.push(or_none(mask)?);
        self.coarse.push(or_none(coarse)?);
        self.coarse_shape = coarse_shape;
        Ok(())
    }

    /// Adds a mask behind the others.
    pub fn push(&mut self, mask: Mask) {
        self.masks.push(mask);
    }

    /// Number of masks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.masks.len()
    }

    /// Whether there is no mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Height and width of the frame in pixels.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Height and width of the picture in pixels.
    #[must_use]
    pub fn orig_shape(&self) -> [usize; 2] {
        self.orig_shape
    }

    /// The mask of object `idx`.
    #[must_use]
    pub fn get(&self, idx: usize) -> Option<&Mask> {
        self.masks.get(idx)
    }

    /// The mask of object `idx` in the size of the network's prototypes, and that size (height, width); only in results
    /// of [`Session::predict_whole`](crate::Session::predict_whole).
    #[must_use]
    pub fn coarse(&self, idx: usize) -> Option<(&Mask, [usize; 2])> {
        self.coarse.get(idx).map(|mask| (mask, self.coarse_shape))
    }

    /// The masks one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Mask> {
        self.masks.iter()
    }

    /// One mask as a full frame of bytes, row after row: 1 where the object is, 0 elsewhere.
    #[must_use]
    pub fn bitmap(&self, idx: usize) -> Option<Vec<u8>> {
        let mask = self.get(idx)?;
        let ([height, width], [left, top]) = (self.shape, mask.origin);
        let mut bitmap = vec![0; height * width];
        let rows = bitmap.chunks_exact_mut(width.max(1)).skip(top);
        for (to, from) in rows.zip(mask.pixels.chunks(mask.width)) {
            // What reaches out of the frame is cut off.
            to.iter_mut().skip(left).zip(from).for_each(|(to, from)| *to = *from);
        }
        Some(bitmap)
    }

    /// One mask as a full frame in a gray PNG of 8 bits: white where the object is, black elsewhere.
    ///
    /// Errors with `ErrorKind::Argument` if there is no mask `idx`, with `ErrorKind::Image` if a PNG can't hold it.
    pub fn to_png(&self, idx: usize) -> Result<Vec<u8>> {
        let bitmap = self
            .bitmap(idx)
            .ok_or_else(|| Error::argument("mask", format!("got {idx}, there are {}", self.len())))?;
        gray::encode_png(
            self.shape,
            &bitmap.into_iter().map(|pixel| u16::from(pixel) * 255).collect::<Vec<_>>(),
        )
    }

    /// The outline of each object as one polygon of `[x, y]` in pixels of the picture.
    ///
    /// Parts that do not touch are joined by bridges of no width, there and back between the nearest points of one
    /// part and the next. Filled, the polygon covers the parts with their holes.
    #[must_use]
    pub fn xy(&self) -> Vec<Vec<[f32; 2]>> {
        self.masks.iter().map(|mask| self.outline(mask)).collect()
    }

    /// As [`Masks::xy`], in shares of the picture's width and height.
    #[must_use]
    pub fn xyn(&self) -> Vec<Vec<[f32; 2]>> {
        let [height, width] = self.orig_shape.map(|side| side as f32);
        let mut outlines = self.xy();
        outlines.iter_mut().flatten().for_each(|[x, y]| (*x, *y) = (*x / width, *y / height));
        outlines
    }

    fn outline(&self, mask: &Mask) -> Vec<[f32; 2]> {
        let [height, width] = self.orig_shape.map(|side| side as f32);
        let clipped = |[x, y]: [usize; 2]| {
            let [x, y] = self.picture_from_frame([x as f32, y as f32]);
            [x.clamp(0.0, width), y.clamp(0.0, height)]
        };
        contour::join(&mask.contours()).into_iter().map(clipped).collect()
    }

    /// Position in the picture of a point `[x, y]` of the frame, both measured from the upper left corner.
    pub(super) fn picture_from_frame(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [(x - self.offset[0]) / self.gain[0], (y - self.offset[1]) / self.gain[1]]
    }

    /// Position in the frame of a point `[x, y]` of the picture, both measured from the upper left corner.
    pub(super) fn frame_from_picture(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [x * self.gain[0] + self.offset[0], y * self.gain[1] + self.offset[1]]
    }
}

impl<'a> IntoIterator for &'a Masks {
    type Item = &'a Mask;
    type IntoIter = std::slice::Iter<'a, Mask>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Placement;

    #[test]
    fn a_mask_is_a_part_of_its_frame() {
        let mask = Mask::new([2, 1], 2, vec![1, 0, 9, 1]).unwrap();
        assert_eq!((mask.area(), mask.shape()), (3, [2, 2]));
        assert!(mask.contains(2, 1) && !mask.contains(3, 1) && !mask.contains(0, 0) && !mask.contains(9, 9));
        let mut masks = Masks::new([4, 5]);
        masks.push(mask);
        masks.push(Mask::new([4, 3], 2, vec![1; 4]).unwrap());
        assert_eq!(masks.bitmap(0).unwrap(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(masks.bitmap(1).unwrap().iter().map(|&pixel| usize::from(pixel)).sum::<usize>(), 1);
        assert!(masks.bitmap(2).is_none() && masks.to_png(2).is_err());
        let png = image::load_from_memory(&masks.to_png(0).unwrap()).unwrap();
        assert_eq!(png.as_luma8().unwrap().as_raw()[6..9], [0, 255, 0]);
        for (width, len) in [(0, 4), (3, 4), (2, 0)] {
            assert!(Mask::new([0, 0], width, vec![1; len]).is_err());
        }
    }

    #[test]
    fn outlines_are_in_pixels_of_the_picture() {
        let letterbox = Letterbox::new([120, 160], [80, 80], Placement::Center).unwrap();
        let mut masks = Masks::in_input(&letterbox);
        masks.push(Mask::new([5, 15], 10, vec![1; 100]).unwrap());
        assert_eq!(masks.shape(), [80, 80]);
        assert_eq!(masks.xy(), [[[10.0, 10.0], [10.0, 28.0], [28.0, 28.0], [28.0, 10.0]]]);
        assert_eq!(masks.xyn()[0][2], [28.0 / 160.0, 28.0 / 120.0]);
    }
}
