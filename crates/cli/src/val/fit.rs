//! How pictures are fitted to the network's input.
//!
//! Networks that put the picture in the middle see it as when they were trained: the longer side is scaled to the
//! input size (the shorter one rounded up), and pictures of like proportions share an input that is only as large as
//! they need, plus half a stride, to the next multiple of the stride. The border is small but not nothing, which is
//! worth a little accuracy. Networks for class maps get no border.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use ferroyolo::Image;
use ferroyolo::image::{InputSpec, Letterbox, LetterboxScratch, Placement};
use ferroyolo_val::geometry::Mask;
use image::ImageDecoder as _;

use crate::error::{Error, Result};

/// Inputs are multiples of this, whatever the network's stride.
const MIN_MULTIPLE: usize = 32;

/// How a model wants its pictures.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Size of the input, `[height, width]`.
    pub imgsz: [usize; 2],
    /// Its largest stride.
    pub stride: usize,
    /// Where the picture lies in the input.
    pub placement: Placement,
    /// Value of the border.
    pub pad_value: u8,
    /// Least border of a shared input, in strides.
    pub border: f64,
}

/// A picture as the network sees it, and the way back.
#[derive(Debug)]
pub struct Fitted {
    /// The scaled picture with its border.
    pub image: Image,
    /// Size of the picture itself, `[height, width]`.
    pub orig_hw: [usize; 2],
    /// Size of the scaled picture.
    pub scaled_hw: [usize; 2],
    /// First row and column of the scaled picture.
    pub top_left: [usize; 2],
}

impl Fitted {
    /// The picture as it is.
    pub fn untouched(image: Image) -> Self {
        let hw = image.shape();
        Self { image, orig_hw: hw, scaled_hw: hw, top_left: [0, 0] }
    }

    /// A point of the input in pixels of the picture.
    pub fn to_picture(&self, [x, y]: [f32; 2]) -> [f64; 2] {
        let [gain_y, gain_x] = self.gain_yx();
        [(f64::from(x) - self.top_left[1] as f64) / gain_x, (f64::from(y) - self.top_left[0] as f64) / gain_y]
    }

    /// A point given in shares of the picture, in pixels of the input.
    pub fn shares_to_input(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [top, left] = self.top_left;
        [x * self.scaled_hw[1] as f64 + left as f64, y * self.scaled_hw[0] as f64 + top as f64]
    }

    /// A mask of the input's size as one of the picture's, each pixel from the nearest one.
    pub fn mask_to_picture(&self, mask: &Mask) -> Mask {
        let mut scaled = Mask::new(self.orig_hw);
        let from = |at: usize, axis: usize| {
            // Doubled, so that half pixels are whole numbers.
            self.top_left[axis] + (2 * at + 1) * self.scaled_hw[axis] / (2 * self.orig_hw[axis])
        };
        let Some([left, top, right, bottom]) = mask.bounds() else { return scaled };
        let columns: Vec<usize> = (0..self.orig_hw[1]).map(|x| from(x, 1)).collect();
        let [first, end] = [left, right].map(|edge| columns.partition_point(|&column| column < edge));
        for y in 0..self.orig_hw[0] {
            let row = from(y, 0);
            if !(top..bottom).contains(&row) {
                continue;
            }
            // A run of columns that are all inside is filled at once.
            let mut x = first;
            for run in columns[first..end].chunk_by(|&a, &b| mask.get(a, row) == mask.get(b, row)) {
                if mask.get(run[0], row) {
                    scaled.fill_row(y, x, x + run.len());
                }
                x += run.len();
            }
        }
        scaled
    }

    /// Pixels of the input per pixel of the picture, down and across.
    pub fn gain_yx(&self) -> [f64; 2] {
        [0, 1].map(|axis| self.scaled_hw[axis] as f64 / self.orig_hw[axis] as f64)
    }
}

impl Fit {
    /// The input sizes of pictures of `shapes` (`[height, width]`, if known), `batch` of which share one.
    pub fn inputs(&self, shapes: &[Option<[usize; 2]>], batch: usize, is_rect: bool) -> Vec<[usize; 2]> {
        let [height, width] = self.imgsz;
        // An input that is no square was chosen with care, and networks with the picture in the corner know no other.
        if !is_rect || height != width || self.placement != Placement::Center {
            return vec![self.imgsz; shapes.len()];
        }
        let tallness = |idx: &usize| shapes[*idx].map_or(1.0, |[h, w]| h as f64 / w as f64);
        let mut order: Vec<usize> = (0..shapes.len()).collect();
        order.sort_by(|a, b| tallness(a).total_cmp(&tallness(b)));
        let mut inputs = vec![self.imgsz; shapes.len()];
        for group in order.chunks(batch.max(1)) {
            let (least, most) = (tallness(&group[0]), tallness(&group[group.len() - 1]));
            let shares = match () {
                () if most < 1.0 => [most, 1.0],
                () if least > 1.0 => [1.0, 1.0 / least],
                () => [1.0, 1.0],
            };
            let multiple = self.stride.max(MIN_MULTIPLE);
            let side = |share: f64| {
                let n_strides = (share * width as f64 / multiple as f64 + self.border).ceil();
                n_strides as usize * multiple
            };
            for &idx in group {
                inputs[idx] = shares.map(side);
            }
        }
        inputs
    }

    /// Scales a picture into an input of `net_hw`, one of [`Fit::inputs`].
    pub fn apply(&self, image: &Image, net_hw: [usize; 2], scratch: &mut LetterboxScratch) -> Result<Fitted> {
        let orig_hw = image.shape();
        let (scaled_hw, top_left) = match self.placement {
            Placement::TopLeft => (Letterbox::new(orig_hw, net_hw, self.placement)?.scaled_hw(), [0, 0]),
            _ => {
                let scaled_hw = scaled(orig_hw, self.imgsz, net_hw);
                // Of an odd rest the smaller half comes first.
                (scaled_hw, [0, 1].map(|axis| (net_hw[axis] - scaled_hw[axis]) / 2))
            }
        };
        let resized = resize(image, scaled_hw, scratch)?;
        let mut pixels = vec![self.pad_value; net_hw[0] * net_hw[1] * 3];
        let rows = pixels.chunks_exact_mut(net_hw[1] * 3).skip(top_left[0]);
        for (row, from) in rows.zip(resized.chunks_exact(scaled_hw[1] * 3)) {
            row[top_left[1] * 3..][..from.len()].copy_from_slice(from);
        }
        let image = Image::from_rgb8(net_hw[1], net_hw[0], pixels)?;
        Ok(Fitted { image, orig_hw, scaled_hw, top_left })
    }
}

/// Size of a picture with its longer side (in relation to `imgsz`) as in `imgsz`, and the other rounded up.
fn scaled(orig_hw: [usize; 2], imgsz: [usize; 2], net_hw: [usize; 2]) -> [usize; 2] {
    let gain = [0, 1].map(|axis| imgsz[axis] as f64 / orig_hw[axis] as f64);
    let gain = gain[0].min(gain[1]);
    [0, 1].map(|axis| {
        let side = (orig_hw[axis] as f64 * gain).ceil() as usize;
        side.clamp(1, imgsz[axis].min(net_hw[axis]))
    })
}

/// The picture in another size: bilinear, bytes of red, green and blue.
fn resize(image: &Image, hw: [usize; 2], scratch: &mut LetterboxScratch) -> Result<Vec<u8>> {
    let spec = InputSpec { divisor: 1.0, ..InputSpec::default() };
    let row = hw[1] * 3;
    let mut values = vec![0.0; row * hw[0]];
    Letterbox::stretch(image.shape(), hw)?.write(image, &spec, &mut values, row, scratch)?;
    Ok(values.into_iter().map(|value| value as u8).collect())
}

/// Height and width of a picture as it is shown, from its header; nothing if it can't be told.
///
/// Errors are left to those who decode the picture.
pub fn shape_of(path: &Path) -> Option<[usize; 2]> {
    use image::metadata::Orientation;
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let file = BufReader::new(fs::File::open(path).ok()?);
    let reader = image::ImageReader::new(file).with_guessed_format().ok()?;
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return None;
    }
    let shape = [height as usize, width as usize];
    Some(match decoder.orientation() {
        Ok(
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH,
        ) => [shape[1], shape[0]],
        _ => shape,
    })
}

/// What a picture is called in errors of its own.
pub fn named(path: &Path, error: impl Into<Error>) -> Error {
    Error::named(&path.display().to_string(), Box::<dyn std::error::Error + Send + Sync>::from(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(imgsz: [usize; 2], placement: Placement) -> Fit {
        Fit { imgsz, stride: 32, placement, pad_value: 114, border: 0.5 }
    }

    #[test]
    fn pictures_of_like_proportions_share_an_input() {
        let fit = fit([320, 320], Placement::Center);
        let shapes = [[480, 640], [640, 480], [218, 640], [426, 640], [600, 600]].map(Some);
        assert_eq!(
            fit.inputs(&shapes, 1, true),
            [[256, 352], [352, 256], [128, 352], [256, 352], [352, 352]]
        );
        assert_eq!(
            fit.inputs(&shapes, 2, true),
            [[352, 352], [352, 256], [256, 352], [256, 352], [352, 352]]
        );
        assert_eq!(fit.inputs(&shapes, 2, false), [[320, 320]; 5]);
        let tight = Fit { border: 0.0, ..fit };
        assert_eq!(tight.inputs(&shapes[..3], 1, true), [[256, 320], [320, 256], [128, 320]]);
        assert_eq!(fit.inputs(&[None], 1, true), [[352, 352]]);
        assert_eq!(Fit { imgsz: [320, 640], ..fit }.inputs(&shapes[..1], 1, true), [[320, 640]]);
    }

    #[test]
    fn a_picture_lies_in_the_middle() {
        let image = Image::from_rgb8(4, 2, vec![200; 24]).unwrap();
        let fit = fit([64, 64], Placement::Center);
        let fitted = fit.apply(&image, [64, 96], &mut LetterboxScratch::default()).unwrap();
        assert_eq!((fitted.scaled_hw, fitted.top_left), ([32, 64], [16, 16]));
        assert_eq!(fitted.image.shape(), [64, 96]);
        let at = |x: usize, y: usize| fitted.image.pixels()[(y * 96 + x) * 3];
        assert_eq!(
            [at(0, 0), at(15, 16), at(16, 16), at(79, 47), at(80, 47), at(79, 48)],
            [114, 114, 200, 200, 114, 114]
        );
        assert_eq!(fitted.to_picture([16.0, 16.0]), [0.0, 0.0]);
        assert_eq!(fitted.to_picture([80.0, 48.0]), [4.0, 2.0]);
        assert_eq!(fitted.shares_to_input([0.5, 1.0]), [48.0, 48.0]);
    }

    #[test]
    fn masks_lose_their_border() {
        let image = Image::from_rgb8(4, 2, vec![200; 24]).unwrap();
        let fit = fit([64, 64], Placement::Center);
        let fitted = fit.apply(&image, [64, 96], &mut LetterboxScratch::default()).unwrap();
        let mut mask = Mask::new([64, 96]);
        (0..32).for_each(|row| mask.fill_row(row, 0, 48));
        let of_picture = fitted.mask_to_picture(&mask);
        assert_eq!(
            (of_picture.hw(), of_picture.area(), of_picture.bounds()),
            ([2, 4], 2, Some([0, 0, 2, 1]))
        );
    }

    #[test]
    fn a_picture_lies_in_the_corner() {
        let image = Image::from_rgb8(3, 2, vec![200; 18]).unwrap();
        let fit = fit([64, 64], Placement::TopLeft);
        let fitted = fit.apply(&image, [64, 64], &mut LetterboxScratch::default()).unwrap();
        assert_eq!((fitted.scaled_hw, fitted.top_left), ([42, 64], [0, 0]));
    }

    #[test]
    fn thin_pictures_keep_a_pixel() {
        let image = Image::from_rgb8(5000, 1, vec![0; 15000]).unwrap();
        let fit = fit([64, 64], Placement::Center);
        let inputs = fit.inputs(&[Some([1, 5000])], 1, true);
        let fitted = fit.apply(&image, inputs[0], &mut LetterboxScratch::default()).unwrap();
        assert_eq!((fitted.scaled_hw, fitted.image.shape()), ([1, 64], [32, 96]));
    }
}
