//! Labels: which text fits, how large it is, and its pixels.

use ab_glyph::{Font as _, FontRef, Glyph, GlyphId, PxScale, PxScaleFont, ScaleFont as _, point};

/// Fonts become no smaller than this to make a text fit, in pixels.
const MIN_FITTED_SIZE: f32 = 9.0;

/// The most of the picture's height that a label may take.
const MAX_HEIGHT_SHARE: f32 = 1.0 / 3.0;

/// Characters of a name that are looked at; more fit in no picture.
const MAX_CHARS: usize = 1000;

/// Stands for what was left out of a name.
const ELLIPSIS: char = '…';

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
        self.shortened(&name, min_size)
    }

    /// The longest beginning of `name` that fits with an ellipsis behind it.
    fn shortened(&self, name: &str, size: f32) -> Option<Label> {
        let font = self.scaled(size)?;
        let ellipsis = font.glyph_id(ELLIPSIS);
        let mut longest = None;
        let mut rest = name.char_indices();
        walk(&font, name, self.max_width(size), |id, x| {
            let Some((start, character)) = rest.next() else { return };
            let end = start + character.len_utf8();
            let width = x + font.h_advance(id) + font.kern(id, ellipsis) + font.h_advance(ellipsis);
            if width + 2.0 * margin(size) <= self.bounds[0] as f32
                && end < name.len()
                && !character.is_whitespace()
            {
                longest = Some(end);
            }
        });
        self.fit(&format!("{}{ELLIPSIS}", &name[..longest?]), size)
    }

    /// Calls `cover` with the pixels of a label whose upper left corner is `origin`, and the share that is covered.
    pub(super) fn draw(&self, label: &Label, origin: [usize; 2], mut cover: impl FnMut(usize, usize, f32)) {
        let Some(font) = self.scaled(label.size) else { return };
        let [left, top] = origin.map(|edge| edge as f32);
        let baseline = top + font.ascent().round();
        let margin = margin(label.size);
        walk(&font, &label.text, f32::INFINITY, |id, x| {
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
        let width = walk(&font, text, self.max_width(size), |_, _| {}) + 2.0 * margin(size);
        let (width, height) =
            (width.ceil() as usize, (font.ascent().round() - font.descent()).ceil() as usize);
        let fits = !text.is_empty() && width <= self.bounds[0] && height <= self.bounds[1];
        fits.then(|| Label { text: text.to_owned(), size, width, height })
    }

    /// The picture's width without the margins of a label.
    fn max_width(&self, size: f32) -> f32 {
        self.bounds[0] as f32 - 2.0 * margin(size)
    }

    fn scaled(&self, size: f32) -> Option<PxScaleFont<&FontRef<'static>>> {
        Some(self.font.as_ref()?.as_scaled(PxScale::from(size)))
    }
}

fn margin(size: f32) -> f32 {
    (size * MARGIN_SHARE).round()
}

/// Calls `visit` with each glyph and its distance from the start; returns the length of the text.
///
/// Ends early, with a length above `max_width`, once no kerning can bring the text back below that.
fn walk(
    font: &PxScaleFont<&FontRef<'static>>,
    text: &str,
    max_width: f32,
    mut visit: impl FnMut(GlyphId, f32),
) -> f32 {
    let mut x = 0.0;
    let mut last = None;
    let most = max_width + font.scale().x;
    for character in text.chars() {
        let id = if character.is_control() { GlyphId(0) } else { font.glyph_id(character) };
        if let Some(last) = last {
            x += font.kern(last, id);
        }
        visit(id, x);
        x += font.h_advance(id);
        if x > most {
            break;
        }
        last = Some(id);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The label must be the first that fits when characters are dropped one by one.
    fn check(name: &str, width: usize) {
        let lettering = Lettering::new(12.0, [width, 100]);
        let fits = |text: &str| [12.0, 12.0 * 0.85, 9.0].iter().find_map(|&size| lettering.fit(text, size));
        let expected = fits(name).map(|label| label.text).or_else(|| {
            let ends = name.char_indices().skip(1).map(|(at, _)| at).collect::<Vec<_>>();
            let mut shorter =
                ends.into_iter().rev().map(|end| name[..end].trim_end()).filter(|n| !n.is_empty());
            shorter.find_map(|start| lettering.fit(&format!("{start}…"), 9.0)).map(|label| label.text)
        });
        let label = lettering.label(name, None);
        assert!(label.as_ref().is_none_or(|label| label.width <= width));
        assert_eq!(label.map(|label| label.text), expected, "{name:?} in {width}");
    }

    #[test]
    fn as_much_of_a_name_is_shown_as_fits() {
        for name in [
            "",
            "person",
            "traffic light",
            "AVAVAVAVAV To",
            "a    b  c",
            "émigré …",
            "汽车",
            "e\u{301}\u{301}x\n",
        ] {
            for width in 1..120 {
                check(name, width);
            }
        }
        check(&"long name ".repeat(100), 640);
    }

    #[test]
    fn a_long_name_is_not_walked_to_its_end() {
        let lettering = Lettering::new(12.0, [64, 64]);
        let font = lettering.scaled(12.0).unwrap();
        let mut n_visited = 0;
        walk(&font, &"w".repeat(MAX_CHARS), 64.0, |_, _| n_visited += 1);
        assert!(n_visited < 12, "{n_visited}");
    }
}
