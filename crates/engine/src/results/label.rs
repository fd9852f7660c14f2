//! Labels: which text fits, how large it is, and its pixels.

use ab_glyph::{Font as _, FontRef, Glyph, GlyphId, PxScale, PxScaleFont, ScaleFont as _, point};

/// Fonts become no smaller than this to make a text fit, in pixels.
const MIN_FITTED_SIZE: f32 = 9.0;

/// The most of the picture's height that a label may take.
const MAX_HEIGHT_SHARE: f32 = 1.0 / 3.0;

/// Characters of a name that are looked at; more fit in no picture.
const MAX_CHARS: usize = 1000;

/// Space at either side of a text, as a share of the font size.
const MARGIN_SHARE: f32 = 0.2;

/// The font for one picture.
pub(super) struct Lettering {
    font: Option<FontRef<'static>>,
    size: f32,
    bounds: [usize; 2],
}

/// A text of known size.
#[derive(Clone, Debug)]
pub(super) struct Label {
    text: String,
    size: f32,
    /// Width in pixels, margins included.
    pub(super) width: usize,
    /// Height in pixels.
    pub(super) height: usize,
}

impl Lettering {
    /// Letters about `size` pixels high for a picture of `bounds` (width, height).
    pub(super) fn new(size: f32, bounds: [usize; 2]) -> Self {
        let size = if size.is_finite() { size.clamp(4.0, 512.0) } else { MIN_FITTED_SIZE };
        let max_size = (bounds[1] as f32 * MAX_HEIGHT_SHARE).floor();
        // A test reads the font, so it is there.
        let font = FontRef::try_from_slice(dejavu::sans::bold()).ok();
        Self { font, size: size.min(max_size), bounds }
    }

    /// The fullest label that fits the picture's width: with the confidence, in smaller letters, without the
    /// confidence, or shortened; none if nothing fits.
    pub(super) fn label(&self, name: &str, confidence: Option<f32>) -> Option<Label> {
        let min_size = MIN_FITTED_SIZE.min(self.size);
        if self.size < 4.0 {
            return None;
        }
        let name: String = name.chars().take(MAX_CHARS).collect();
        let full = confidence.map(|confidence| format!("{name} {confidence:.2}"));
        let sizes = [self.size, (self.size * 0.85).max(min_size), (self.size * 0.7).max(min_size), min_size];
        for text in full.into_iter().chain([name.clone()]) {
            let fits = sizes.iter().find_map(|&size| self.fit(&text, size));
            if fits.is_some() {
                return fits;
            }
        }
        let mut short = name;
        while short.pop().is_some() && !short.is_empty() {
            let fits = self.fit(&format!("{}…", short.trim_end()), min_size);
            if fits.is_some() {
                return fits;
            }
        }
        None
    }

    /// Calls `cover` with the pixels of a label whose upper left corner is `origin`, and the share that is covered.
    pub(super) fn draw(&self, label: &Label, origin: [usize; 2], mut cover: impl FnMut(usize, usize, f32)) {
        let Some(font) = self.scaled(label.size) else { return };
        let [left, top] = origin.map(|edge| edge as f32);
        let baseline = top + font.ascent().round();
        let margin = margin(label.size);
        walk(&font, &label.text, |id, x| {
            let glyph = Glyph { id, scale: font.scale(), position: point(left + margin + x, baseline) };
            let Some(outline) = font.outline_glyph(glyph) else { return };
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, share| {
                let (x, y) = (corner.x + x as f32, corner.y + y as f32);
                // Accents may rise above the label.
                let inside =
                    x >= left && y >= top && x < left + label.width as f32 && y < top + label.height as f32;
                if inside {
                    cover(x as usize, y as usize, share);
                }
            });
        });
    }

    fn fit(&self, text: &str, size: f32) -> Option<Label> {
        let font = self.scaled(size)?;
        let width = walk(&font, text, |_, _| {}) + 2.0 * margin(size);
        let (width, height) =
            (width.ceil() as usize, (font.ascent().round() - font.descent()).ceil() as usize);
        let fits = !text.is_empty() && width <= self.bounds[0] && height <= self.bounds[1];
        fits.then(|| Label { text: text.to_owned(), size, width, height })
    }

    fn scaled(&self, size: f32) -> Option<PxScaleFont<&FontRef<'static>>> {
        Some(self.font.as_ref()?.as_scaled(PxScale::from(size)))
    }
}

fn margin(size: f32) -> f32 {
    (size * MARGIN_SHARE).round()
}

/// Calls `visit` with each glyph and its distance from the start; returns the length of the text.
fn walk(font: &PxScaleFont<&FontRef<'static>>, text: &str, mut visit: impl FnMut(GlyphId, f32)) -> f32 {
    let mut x = 0.0;
    let mut last = None;
    for character in text.chars() {
        let id = if character.is_control() { GlyphId(0) } else { font.glyph_id(character) };
        if let Some(last) = last {
            x += font.kern(last, id);
        }
        visit(id, x);
        x += font.h_advance(id);
        last = Some(id);
    }
    x
}
