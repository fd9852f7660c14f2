//! Colors of the classes.

/// Colors in an order in which neighbors differ most: hues go round by the golden angle, at four lightnesses in turn.
const COLORS: [[u8; 3]; 20] = [
    [254, 62, 85],
    [6, 225, 140],
    [134, 37, 254],
    [230, 152, 0],
    [1, 164, 185],
    [255, 151, 206],
    [95, 126, 1],
    [125, 170, 254],
    [244, 86, 3],
    [17, 220, 189],
    [169, 2, 217],
    [204, 167, 9],
    [11, 160, 210],
    [255, 157, 176],
    [1, 138, 36],
    [159, 158, 255],
    [212, 119, 2],
    [1, 216, 221],
    [190, 1, 168],
    [173, 180, 3],
];

const DARK: [u8; 3] = [16, 16, 20];
const LIGHT: [u8; 3] = [255, 255, 255];

/// A class's color, and the color of text on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tone {
    pub(super) color: [u8; 3],
    pub(super) text: [u8; 3],
}

impl Tone {
    pub(super) fn of_class(class: usize) -> Self {
        let color = COLORS[class % COLORS.len()];
        let on = |text| contrast(color, text);
        Self { color, text: if on(LIGHT) >= on(DARK) { LIGHT } else { DARK } }
    }
}

/// Contrast of two colors by WCAG 2: 1 (the same) to 21.
fn contrast(a: [u8; 3], b: [u8; 3]) -> f32 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(color: [u8; 3]) -> f32 {
    // A gamma of two in place of sRGB's curve: the same on every platform, and close enough to choose between two.
    let [r, g, b] = color.map(|value| (f32::from(value) / 255.0) * (f32::from(value) / 255.0));
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_be_read_on_every_color() {
        for class in 0..COLORS.len() {
            let Tone { color, text } = Tone::of_class(class);
            assert!(contrast(color, text) >= 4.0, "{color:?} {text:?} {}", contrast(color, text));
        }
    }

    #[test]
    fn neighbors_differ() {
        for class in 0..COLORS.len() {
            let (a, b) = (Tone::of_class(class).color, Tone::of_class(class + 1).color);
            let distance: i32 = a.iter().zip(b).map(|(&a, b)| (i32::from(a) - i32::from(b)).abs()).sum();
            assert!(distance > 120, "{a:?} {b:?}");
        }
    }
}
