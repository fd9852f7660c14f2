//! Drawing of results into a picture.

use std::cmp::Reverse;

use super::canvas::{Area, Canvas};
use super::label::{Label, Lettering};
use super::palette::{Tone, depth_color};
use super::{DepthMap, DepthRange, Results, overlay, skeleton};
use crate::image::Image;

/// Line width and font size as shares of the mean of the picture's sides.
const LINE_SHARE: f32 = 0.003;
const FONT_SHARE: f32 = 0.024;

/// Width of the line around a mask as a share of other lines' width.
const MASK_LINE_SHARE: f32 = 0.75;

/// Classes listed for a picture as a whole.
const N_LISTED: usize = 5;

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
    /// Draws what was found into a copy of `image`, in the manner of [`PlotOptions::default`].
    #[must_use]
    pub fn plot(&self, image: &Image) -> Image {
        self.plot_with(image, &PlotOptions::default())
    }

    /// Draws what was found into a copy of `image`.
    ///
    /// Each class has its color. Masks are translucent with a line around them; keypoints that are probably visible
    /// are points, joined by limbs if there are COCO's seventeen. Better boxes lie over worse ones, labels over all
    /// boxes and within the picture; in a picture too small for it a label is shortened or left out. Of a
    /// classification the five likeliest classes stand in the corner. Class maps are blended with the picture, and
    /// depth maps take its place: near is bright, far is dark. Maps of another size than the picture are not drawn.
    ///
    /// The same input gives the same pixels everywhere. Characters that the font (DejaVu Sans) lacks appear as boxes.
    #[must_use]
    pub fn plot_with(&self, image: &Image, options: &PlotOptions) -> Image {
        let mut canvas = Canvas { image: image.clone() };
        let mean_side = (image.width() + image.height()) as f32 / 2.0;
        let line_width = options.line_width.unwrap_or((mean_side * LINE_SHARE).round() as usize).max(1);
        let bounds = canvas.bounds();

        if let Some(map) = &self.class_map {
            overlay::classes(&mut canvas, map, self.names.len());
        }
        if let Some(map) = &self.depth {
            overlay::depth(&mut canvas, map);
        }
        self.draw_objects(&mut canvas, line_width);
        if !options.labels {
            return canvas.image;
        }

        let default_size = (mean_side * FONT_SHARE).max(MIN_FONT_SIZE);
        let lettering = Lettering::new(options.font_size.unwrap_or(default_size), bounds);
        let mut placed: Vec<(Area, Label, Tone)> = Vec::new();
        for (xyxy, confidence, class) in self.labeled() {
            let Some(area) = Area::from_box(xyxy, line_width, bounds) else { continue };
            let conf = options.conf.then_some(confidence);
            let Some(label) = lettering.label(&self.name(class), conf) else { continue };
            let places = area.places_for([label.width, label.height], bounds);
            let is_free = |place: &&Area| {
                placed.len() >= MAX_ARRANGED || !placed.iter().any(|(other, ..)| other.meets(place))
            };
            let place = places.iter().find(is_free).copied().unwrap_or(places[0]);
            placed.push((place, label, Tone::of_class(class)));
        }
        self.list(&lettering, options.conf, bounds, &mut placed);
        for (place, label, tone) in placed.iter().rev() {
            canvas.fill(*place, tone.color);
            lettering.draw(label, [place.x1, place.y1], |x, y, share| canvas.mix(x, y, tone.text, share));
        }
        canvas.image
    }

    /// Masks, boxes and keypoints, the best last.
    fn draw_objects(&self, canvas: &mut Canvas, line_width: usize) {
        let bounds = canvas.bounds();
        let width = line_width as f32;
        if let Some(masks) = &self.masks {
            for (found, mask) in self.boxes.iter().zip(masks).collect::<Vec<_>>().into_iter().rev() {
                overlay::mask(
                    canvas,
                    masks,
                    mask,
                    width * MASK_LINE_SHARE,
                    Tone::of_class(found.class).color,
                );
            }
        }
        for found in self.boxes.iter().rev() {
            if let Some(area) = Area::from_box(found.xyxy, line_width, bounds) {
                canvas.frame(area, line_width, Tone::of_class(found.class).color);
            }
        }
        for found in self.obb.iter().flatten().rev() {
            canvas.polygon(&found.corners(), width, Tone::of_class(found.class).color);
        }
        if let Some(keypoints) = &self.keypoints {
            for (found, points) in
                self.boxes.iter().zip(keypoints.iter()).collect::<Vec<_>>().into_iter().rev()
            {
                skeleton::draw(canvas, points, width, Tone::of_class(found.class).color);
            }
        }
    }

    /// The upright rectangle, confidence and class of everything that has a label, the best first.
    fn labeled(&self) -> Vec<([f32; 4], f32, usize)> {
        let boxes = self.boxes.iter().map(|found| (found.xyxy, found.confidence, found.class));
        let obb = self.obb.iter().flatten().map(|found| (found.xyxy(), found.confidence, found.class));
        boxes.chain(obb).collect()
    }

    /// Labels in the upper left corner, one below the other: what is true of the picture as a whole.
    fn list(
        &self,
        lettering: &Lettering,
        conf: bool,
        bounds: [usize; 2],
        placed: &mut Vec<(Area, Label, Tone)>,
    ) {
        let mut top = 0;
        let mut put = |label: Option<Label>, tone: Tone| {
            let Some(label) = label.filter(|label| top + label.height <= bounds[1]) else { return };
            let place = Area { x1: 0, y1: top, x2: label.width, y2: top + label.height };
            top += label.height;
            placed.push((place, label, tone));
        };
        for (class, value) in self.probs.iter().flat_map(|probs| probs.top(N_LISTED)) {
            put(lettering.label(&self.name(class), conf.then_some(value)), Tone::of_class(class));
        }
        if let Some(map) = &self.class_map {
            let mut counts = self.class_counts(map);
            counts.sort_by_key(|&(class, count)| (Reverse(count), class));
            for (class, _) in counts.into_iter().take(N_LISTED) {
                put(lettering.label(&self.name(class), None), Tone::of_class(class));
            }
        }
        if let Some(DepthRange { min, max, .. }) = self.depth.as_ref().and_then(DepthMap::range) {
            for (meters, share) in [(min, 0.0), (max, 1.0)] {
                put(lettering.label(&format!("{meters:.2} m"), None), Tone::of_color(depth_color(share)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{
        Boxes, ClassMap, Keypoint, Keypoints, Mask, Masks, Probs, RotatedBoxes, RotatedDetection,
    };

    const GRAY: u8 = 100;

    fn image(width: usize, height: usize) -> Image {
        Image::from_rgb8(width, height, vec![GRAY; width * height * 3]).unwrap()
    }

    /// The pixels that the drawing changes, as a picture of `#` and `.`.
    fn changed(results: &Results, width: usize, height: usize) -> Vec<String> {
        let options = PlotOptions { labels: false, line_width: Some(1), ..PlotOptions::default() };
        let drawn = results.plot_with(&image(width, height), &options);
        let pixel = |pixel: &[u8]| if pixel == [GRAY; 3] { '.' } else { '#' };
        drawn.pixels().chunks(width * 3).map(|row| row.chunks(3).map(pixel).collect()).collect()
    }

    fn names() -> std::sync::Arc<[String]> {
        ["person", "bus"].map(str::to_owned).into()
    }

    #[test]
    fn masks_are_colored_inside() {
        let mut boxes = Boxes::new([6, 8]);
        boxes.push([20.0, 20.0, 30.0, 30.0], 0.5, 0);
        let mut masks = Masks::new([6, 8]);
        masks.push(Mask::new([2, 1], 4, [[1; 4]; 4].concat()).unwrap());
        let results = Results::segment(names(), [6, 8], boxes, masks);
        let inside = changed(&results, 8, 6);
        assert!(inside[3][3..5].chars().all(|pixel| pixel == '#'), "{inside:?}");
        assert!(inside[0].chars().chain(inside[3][..1].chars()).all(|pixel| pixel == '.'), "{inside:?}");
    }

    #[test]
    fn rotated_boxes_are_outlined() {
        let mut obb = RotatedBoxes::new([9, 9]);
        obb.push(RotatedDetection { xywhr: [4.5, 4.5, 6.0, 4.0, 0.0], confidence: 0.5, class: 1 });
        let rows = changed(&Results::obb(names(), [9, 9], obb), 9, 9);
        assert_eq!(rows[4], ".#.....#.", "{rows:?}");
        assert_eq!(rows[0], ".........", "{rows:?}");
    }

    #[test]
    fn only_visible_keypoints_are_drawn() {
        let point = |x: f32, visible| Keypoint { xy: [x, 4.5], visible };
        let mut boxes = Boxes::new([9, 20]);
        boxes.push([50.0, 50.0, 60.0, 60.0], 0.5, 0);
        let mut keypoints = Keypoints::new([9, 20], 2);
        keypoints.push(&[point(4.5, Some(0.9)), point(15.5, Some(0.1))]).unwrap();
        let rows = changed(&Results::pose(names(), [9, 20], boxes, keypoints), 20, 9);
        assert!(rows[4][3..6].contains('#') && !rows[4][9..].contains('#'), "{rows:?}");
    }

    #[test]
    fn maps_cover_the_picture_and_lists_stand_in_the_corner() {
        let map = ClassMap::new([2, 3], vec![0, 0, 1, 1, 1, 1]).unwrap();
        assert_eq!(changed(&Results::semantic(names(), map.clone()), 3, 2), ["###", "###"]);
        let one = [String::from("road")].into();
        assert_eq!(changed(&Results::semantic(one, map), 3, 2), ["..#", "###"]);
        let depth = DepthMap::new([1, 3], vec![1.0, 2.0, f32::NAN]).unwrap();
        let drawn = Results::depth(names(), depth).plot(&image(3, 1));
        assert_eq!(drawn.pixels(), [depth_color(0.0), depth_color(1.0), [0; 3]].concat());
        let listed = Results::classify(names(), [90, 300], Probs::new(vec![0.2, 0.8])).plot(&image(300, 90));
        assert_eq!(listed.pixels()[..3], Tone::of_class(1).color);
        assert_eq!(listed.pixels()[listed.pixels().len() - 3..], [GRAY; 3]);
    }

    #[test]
    fn maps_of_another_size_are_left_out() {
        let map = ClassMap::new([1, 1], vec![1]).unwrap();
        assert_eq!(changed(&Results::semantic(names(), map), 2, 2), ["..", ".."]);
    }
}
