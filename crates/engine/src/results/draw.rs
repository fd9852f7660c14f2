//! Drawing of results into a picture.

use super::Results;
use super::label::{Label, Lettering};
use super::palette::Tone;
use crate::image::Image;

/// Line width and font size as shares of the mean of the picture's sides.
const LINE_SHARE: f32 = 0.003;
const FONT_SHARE: f32 = 0.024;

/// Smallest font that is chosen without being asked for, in pixels.
const MIN_FONT_SIZE: f32 = 12.0;

/// Up to this number of labels they make way for each other.
const MAX_ARRANGED: usize = 1000;

/// How results are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct PlotOptions {
    /// Width of lines in pixels; fits the size of the picture if absent.
    pub line_width: Option<usize>,
    /// Height of the font in pixels, from 4 to 512; fits the size of the picture if absent.
    pub font_size: Option<f32>,
    /// Write the name of the class at each box.
    pub labels: bool,
    /// Write the confidence behind the name.
    pub conf: bool,
}

impl Default for PlotOptions {
    fn default() -> Self {
        Self { line_width: None, font_size: None, labels: true, conf: true }
    }
}

impl Results {
    /// Draws boxes and labels into a copy of `image`, in the manner of [`PlotOptions::default`].
    #[must_use]
    pub fn plot(&self, image: &Image) -> Image {
        self.plot_with(image, &PlotOptions::default())
    }

    /// Draws boxes and labels into a copy of `image`.
    ///
    /// Each class has its color. Better boxes lie over worse ones, labels over all boxes and within the picture; in a
    /// picture too small for it a label is shortened or left out. The same input gives the same pixels everywhere.
    /// Characters that the font (DejaVu Sans) lacks appear as boxes.
    #[must_use]
    pub fn plot_with(&self, image: &Image, options: &PlotOptions) -> Image {
        let mut canvas = Canvas { image: image.clone() };
        let mean_side = (image.width() + image.height()) as f32 / 2.0;
        let line_width = options.line_width.unwrap_or((mean_side * LINE_SHARE).round() as usize).max(1);
        let bounds = canvas.bounds();
        let drawn = |xyxy: &[f32; 4]| Area::from_box(*xyxy, line_width, bounds);

        for found in self.boxes.iter().rev() {
            if let Some(area) = drawn(&found.xyxy) {
                canvas.frame(area, line_width, Tone::of_class(found.class).color);
            }
        }
        if !options.labels {
            return canvas.image;
        }

        let default_size = (mean_side * FONT_SHARE).max(MIN_FONT_SIZE);
        let lettering = Lettering::new(options.font_size.unwrap_or(default_size), bounds);
        let mut placed: Vec<(Area, Label, Tone)> = Vec::new();
        for found in self.boxes.iter() {
            let Some(area) = drawn(&found.xyxy) else { continue };
            let name = self.name(found.class);
            let conf = options.conf.then_some(found.confidence);
            let Some(label) = lettering.label(&name, conf) else { continue };
            let places = area.places_for([label.width, label.height], bounds);
            let is_free = |place: &&Area| {
                placed.len() >= MAX_ARRANGED || !placed.iter().any(|(other, ..)| other.meets(place))
            };
            let place = places.iter().find(is_free).copied().unwrap_or(places[0]);
            placed.push((place, label, Tone::of_class(found.class)));
        }
        for (place, label, tone) in placed.iter().rev() {
            canvas.fill(*place, tone.color);
            lettering.draw(label, [place.x1, place.y1], |x, y, share| canvas.mix(x, y, tone.text, share));
        }
        canvas.image
    }
}

/// A rectangle of whole pixels; the right and lower edge are not part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    x1: usize,
    y1: usize,
    x2: usize,
    y2: usize,
}

impl Area {
    /// The outer edge of a frame around a box, moved into the picture; nothing if the box can't be drawn.
    fn from_box(xyxy: [f32; 4], line_width: usize, [width, height]: [usize; 2]) -> Option<Self> {
        if !xyxy.iter().all(|edge| edge.is_finite()) {
            return None;
        }
        let [x1, y1, x2, y2] = xyxy.map(f32::round);
        let half = (line_width / 2) as f32;
        let other_half = (line_width - line_width / 2) as f32;
        // Casts saturate, so what lies left of or above the picture ends at its edge.
        let [x1, y1] = [x1 - half, y1 - half].map(|edge| edge as usize);
        let [x2, y2] = [x2 + other_half, y2 + other_half].map(|edge| edge as usize);
        let area = Self { x1, y1, x2: x2.min(width), y2: y2.min(height) };
        (area.x1 < area.x2 && area.y1 < area.y2).then_some(area)
    }

    fn meets(&self, other: &Self) -> bool {
        self.x1 < other.x2 && other.x1 < self.x2 && self.y1 < other.y2 && other.y1 < self.y2
    }

    /// Where a label of the given size may go, from the best place on; all lie in the picture if the label fits it.
    fn places_for(&self, [w, h]: [usize; 2], [width, height]: [usize; 2]) -> [Self; 5] {
        let at = |x: usize, y: usize| {
            let (x, y) = (x.min(width.saturating_sub(w)), y.min(height.saturating_sub(h)));
            Self { x1: x, y1: y, x2: x + w, y2: y + h }
        };
        let (right, bottom) = (self.x2.saturating_sub(w), self.y2.saturating_sub(h));
        let inside = at(self.x1, self.y1);
        let above = if self.y1 >= h { at(self.x1, self.y1 - h) } else { inside };
        let above_right = if self.y1 >= h { at(right, self.y1 - h) } else { at(right, self.y1) };
        [above, inside, above_right, at(self.x1, self.y2), at(self.x1, bottom)]
    }
}

struct Canvas {
    image: Image,
}

impl Canvas {
    fn bounds(&self) -> [usize; 2] {
        [self.image.width(), self.image.height()]
    }

    /// Fills an area, as far as it lies in the picture.
    fn fill(&mut self, area: Area, color: [u8; 3]) {
        let [width, height] = self.bounds();
        let columns = area.x1.min(width)..area.x2.min(width);
        let pixels = self.image.pixels_mut().as_chunks_mut::<3>().0;
        for row in pixels.chunks_exact_mut(width).take(area.y2.min(height)).skip(area.y1) {
            row[columns.clone()].fill(color);
        }
    }

    /// Draws the border of an area, inwards from its edges.
    fn frame(&mut self, area: Area, line_width: usize, color: [u8; 3]) {
        let Area { x1, y1, x2, y2 } = area;
        self.fill(Area { y2: y2.min(y1 + line_width), ..area }, color);
        self.fill(Area { y1: y1.max(y2.saturating_sub(line_width)), ..area }, color);
        self.fill(Area { x2: x2.min(x1 + line_width), ..area }, color);
        self.fill(Area { x1: x1.max(x2.saturating_sub(line_width)), ..area }, color);
    }

    /// Covers a share of a pixel, if it lies in the picture.
    fn mix(&mut self, x: usize, y: usize, color: [u8; 3], share: f32) {
        let [width, height] = self.bounds();
        if x >= width || y >= height {
            return;
        }
        let pixel = &mut self.image.pixels_mut()[(y * width + x) * 3..][..3];
        for (to, over) in pixel.iter_mut().zip(color) {
            let under = f32::from(*to);
            *to = (under + (f32::from(over) - under) * share.clamp(0.0, 1.0)).round() as u8;
        }
    }
}
