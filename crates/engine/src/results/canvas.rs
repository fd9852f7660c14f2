//! A picture that is drawn on.

use crate::image::Image;

/// A rectangle of whole pixels; the right and lower edge are not part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x1: usize,
    pub(super) y1: usize,
    pub(super) x2: usize,
    pub(super) y2: usize,
}

impl Area {
    /// The outer edge of a frame around a box, moved into the picture; nothing if the box can't be drawn.
    pub(super) fn from_box(xyxy: [f32; 4], line_width: usize, [width, height]: [usize; 2]) -> Option<Self> {
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

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.x1 < other.x2 && other.x1 < self.x2 && self.y1 < other.y2 && other.y1 < self.y2
    }

    /// Where a label of the given size may go, from the best place on; all lie in the picture if the label fits it.
    pub(super) fn places_for(&self, [w, h]: [usize; 2], [width, height]: [usize; 2]) -> [Self; 5] {
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

/// A copy of a picture in the course of being drawn on.
pub(super) struct Canvas {
    pub(super) image: Image,
}

impl Canvas {
    /// Width and height.
    pub(super) fn bounds(&self) -> [usize; 2] {
        [self.image.width(), self.image.height()]
    }

    /// Fills an area, as far as it lies in the picture.
    pub(super) fn fill(&mut self, area: Area, color: [u8; 3]) {
        let [width, height] = self.bounds();
        let columns = area.x1.min(width)..area.x2.min(width);
        let pixels = self.image.pixels_mut().as_chunks_mut::<3>().0;
        for row in pixels.chunks_exact_mut(width).take(area.y2.min(height)).skip(area.y1) {
            row[columns.clone()].fill(color);
        }
    }

    /// Draws the border of an area, inwards from its edges.
    pub(super) fn frame(&mut self, area: Area, line_width: usize, color: [u8; 3]) {
        let Area { x1, y1, x2, y2 } = area;
        self.fill(Area { y2: y2.min(y1.saturating_add(line_width)), ..area }, color);
        self.fill(Area { y1: y1.max(y2.saturating_sub(line_width)), ..area }, color);
        self.fill(Area { x2: x2.min(x1.saturating_add(line_width)), ..area }, color);
        self.fill(Area { x1: x1.max(x2.saturating_sub(line_width)), ..area }, color);
    }

    /// Draws a line with round ends and smooth edges; positions are measured from the upper left corner.
    ///
    /// Nothing is drawn if an end is not finite.
    pub(super) fn line(&mut self, [from, to]: [[f32; 2]; 2], line_width: f32, color: [u8; 3]) {
        if !from.iter().chain(&to).all(|value| value.is_finite()) {
            return;
        }
        let [width, height] = self.bounds();
        let reach = line_width / 2.0 + 0.5;
        // Casts saturate at zero.
        let range = |axis: usize, side: usize| {
            let low = from[axis].min(to[axis]) - reach;
            let high = from[axis].max(to[axis]) + reach;
            low.floor() as usize..(high.ceil() as usize).min(side)
        };
        let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
        let length2 = dx * dx + dy * dy;
        let (columns, rows) = (range(0, width), range(1, height));
        for y in rows {
            let py = y as f32 + 0.5 - from[1];
            for x in self.near(columns.clone(), py, [from, to], reach) {
                let px = x as f32 + 0.5 - from[0];
                let along = if length2 > 0.0 { ((px * dx + py * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
                let (ox, oy) = (px - along * dx, py - along * dy);
                let share = reach - (ox * ox + oy * oy).sqrt();
                if share > 0.0 {
                    self.mix(x, y, color, share);
                }
            }
        }
    }

    /// The columns of one row that may be within `reach` of a line, so that a long slanted one need not be looked for
    /// in the whole rectangle around it. `py` is the row's distance below the line's beginning.
    fn near(
        &self,
        columns: std::ops::Range<usize>,
        py: f32,
        [from, to]: [[f32; 2]; 2],
        reach: f32,
    ) -> std::ops::Range<usize> {
        let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
        if dy.abs() < 1.0 {
            return columns;
        }
        let center = from[0] + (py / dy).clamp(0.0, 1.0) * dx;
        let spread = reach * (1.0 + (dx / dy).abs()) + 1.0;
        let start = ((center - spread) as usize).max(columns.start);
        start..((center + spread).ceil() as usize).clamp(start, columns.end.max(start))
    }

    /// Draws lines from point to point and back to the first.
    pub(super) fn polygon(&mut self, points: &[[f32; 2]], line_width: f32, color: [u8; 3]) {
        let nexts = points.iter().cycle().skip(1);
        for (&from, &to) in points.iter().zip(nexts) {
            self.line([from, to], line_width, color);
        }
    }

    /// Covers a share of a pixel, if it lies in the picture.
    pub(super) fn mix(&mut self, x: usize, y: usize, color: [u8; 3], share: f32) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: usize, height: usize, draw: impl FnOnce(&mut Canvas)) -> Vec<u8> {
        let image = Image::from_rgb8(width, height, vec![0; width * height * 3]).unwrap();
        let mut canvas = Canvas { image };
        draw(&mut canvas);
        canvas.image.pixels().chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn lines_cover_what_they_touch() {
        let across = drawn(5, 3, |canvas| canvas.line([[1.5, 1.5], [3.5, 1.5]], 1.0, [200; 3]));
        assert_eq!(across, [0, 0, 0, 0, 0, 0, 200, 200, 200, 0, 0, 0, 0, 0, 0]);
        let down = drawn(3, 4, |canvas| canvas.line([[1.5, 3.5], [1.5, 0.5]], 1.0, [9; 3]));
        assert_eq!(down, [0, 9, 0, 0, 9, 0, 0, 9, 0, 0, 9, 0]);
        let point = drawn(3, 3, |canvas| canvas.line([[1.5, 1.5]; 2], 3.0, [100; 3]));
        assert_eq!(point, [59, 100, 59, 100, 100, 100, 59, 100, 59]);
    }

    /// Looking near the line only must not leave anything out.
    #[test]
    fn slanted_lines_are_whole() {
        let (width, height) = (40, 30);
        for from in [[-9.0, 3.0], [2.0, 2.0], [39.0, 0.0], [20.0, 35.0]] {
            for to in [[38.0, 28.0], [30.0, 3.5], [2.0, 29.0], [60.0, 1.0]] {
                let got = drawn(width, height, |canvas| canvas.line([from, to], 3.0, [255; 3]));
                for (idx, &got) in got.iter().enumerate() {
                    let p = [(idx % width) as f32 + 0.5, (idx / width) as f32 + 0.5];
                    let (d, v) = ([to[0] - from[0], to[1] - from[1]], [p[0] - from[0], p[1] - from[1]]);
                    let along = ((v[0] * d[0] + v[1] * d[1]) / (d[0] * d[0] + d[1] * d[1])).clamp(0.0, 1.0);
                    let distance = (v[0] - along * d[0]).hypot(v[1] - along * d[1]);
                    let expected = (2.0 - distance).clamp(0.0, 1.0) * 255.0;
                    assert!((f32::from(got) - expected).abs() <= 1.0, "{from:?} to {to:?} at {p:?}: {got}");
                }
            }
        }
    }

    #[test]
    fn a_frame_is_no_wider_than_its_area() {
        for line_width in [2, 3, usize::MAX] {
            let area = Area { x1: 1, y1: 1, x2: 4, y2: 3 };
            let pixels = drawn(5, 4, |canvas| canvas.frame(area, line_width, [9; 3]));
            assert_eq!(pixels, [0, 0, 0, 0, 0, 0, 9, 9, 9, 0, 0, 9, 9, 9, 0, 0, 0, 0, 0, 0], "{line_width}");
        }
    }

    #[test]
    fn what_lies_outside_is_not_drawn() {
        for end in [f32::NAN, f32::INFINITY, 1e30, -1e30] {
            let pixels = drawn(4, 4, |canvas| canvas.line([[end, 2.0], [end, 1.0]], 2.0, [255; 3]));
            assert_eq!(pixels, [0; 16], "{end}");
        }
        let pixels = drawn(2, 2, |canvas| canvas.polygon(&[], 2.0, [255; 3]));
        assert_eq!(pixels, [0; 4]);
    }
}
