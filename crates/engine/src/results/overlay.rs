//! Masks and maps over a picture.

use super::canvas::Canvas;
use super::masks::{Mask, Masks};
use super::palette::{Tone, depth_color};
use super::{ClassMap, DepthMap};

/// How much a mask or class covers the picture.
const MASK_SHARE: f32 = 0.45;
const CLASS_SHARE: f32 = 0.5;

/// Colors the inside of a mask and draws a line around it.
pub(super) fn mask(canvas: &mut Canvas, masks: &Masks, mask: &Mask, line_width: f32, color: [u8; 3]) {
    let [width, height] = canvas.bounds();
    let [left, top] = mask.origin();
    let [rows, columns] = mask.shape();
    // One pixel more at each side, where the mask fades out.
    let corner = |x: usize, y: usize, by: f32| masks.picture_from_frame([x as f32 + by, y as f32 + by]);
    let [x1, y1] = corner(left, top, -1.0);
    let [x2, y2] = corner(left + columns, top + rows, 1.0);
    // Casts saturate at zero.
    let xs: Vec<usize> = (x1.floor() as usize..(x2.ceil() as usize).min(width)).collect();
    let taps: Vec<(isize, f32)> =
        xs.iter().map(|&x| split(masks.frame_from_picture([x as f32 + 0.5, 0.0])[0], left)).collect();
    for y in y1.floor() as usize..(y2.ceil() as usize).min(height) {
        let (row, below) = split(masks.frame_from_picture([0.0, y as f32 + 0.5])[1], top);
        for (&x, &(column, right)) in xs.iter().zip(&taps) {
            let at = |dx: isize, dy: isize| value(mask, column + dx, row + dy);
            let upper = at(0, 0) + (at(1, 0) - at(0, 0)) * right;
            let lower = at(0, 1) + (at(1, 1) - at(0, 1)) * right;
            let share = upper + (lower - upper) * below;
            if share > 0.0 {
                canvas.mix(x, y, color, share * MASK_SHARE);
            }
        }
    }
    for contour in mask.contours() {
        let center = |&[x, y]: &[usize; 2]| masks.picture_from_frame([x as f32 + 0.5, y as f32 + 0.5]);
        let points: Vec<[f32; 2]> = contour.iter().map(center).collect();
        canvas.polygon(&points, line_width, color);
    }
}

/// The pixel of the mask whose center lies left of or above a position of the frame, and the share of the next one.
fn split(at: f32, origin: usize) -> (isize, f32) {
    let at = at - 0.5 - origin as f32;
    (at.floor() as isize, at - at.floor())
}

fn value(mask: &Mask, x: isize, y: isize) -> f32 {
    let [height, width] = mask.shape();
    match (usize::try_from(x), usize::try_from(y)) {
        (Ok(x), Ok(y)) if x < width && y < height => f32::from(mask.pixels()[y * width + x]),
        _ => 0.0,
    }
}

/// Colors each pixel by its class, or, if there is one class only, those where it is.
pub(super) fn classes(canvas: &mut Canvas, map: &ClassMap, n_classes: usize) {
    let [width, height] = canvas.bounds();
    if map.shape() != [height, width] {
        return;
    }
    let pixels = canvas.image.pixels_mut().as_chunks_mut::<3>().0;
    for (pixels, classes) in pixels.chunks_exact_mut(width).zip(map.classes().chunks_exact(width)) {
        let mut start = 0;
        for run in classes.chunk_by(|a, b| a == b) {
            let class = if n_classes == 1 { run[0].checked_sub(1) } else { Some(run[0]) };
            let colored = class.map_or(0, |_| run.len());
            let color = Tone::of_class(usize::from(class.unwrap_or_default())).color;
            for pixel in &mut pixels[start..start + colored] {
                for (to, over) in pixel.iter_mut().zip(color) {
                    let under = f32::from(*to);
                    *to = (under + (f32::from(over) - under) * CLASS_SHARE).round() as u8;
                }
            }
            start += run.len();
        }
    }
}

/// Puts the distance of each pixel in place of the picture: near is bright, far is dark, unknown is black.
pub(super) fn depth(canvas: &mut Canvas, map: &DepthMap) {
    let [width, height] = canvas.bounds();
    if map.shape() != [height, width] {
        return;
    }
    let range = map.range();
    let pixels = canvas.image.pixels_mut().as_chunks_mut::<3>().0;
    for (pixel, &meters) in pixels.iter_mut().zip(map.meters()) {
        *pixel = match range {
            Some(range) if meters.is_finite() => {
                let span = range.max - range.min;
                depth_color(if span > 0.0 { (meters - range.min) / span } else { 0.0 })
            }
            _ => [0; 3],
        };
    }
}
