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

/// Colors of distances from near to far: lightness falls evenly in Oklab while the hue turns from yellow by way of red
/// to blue, with as much chroma as a screen can show up to a limit.
const DEPTHS: [[u8; 3]; 17] = [
    [251, 241, 174],
    [255, 219, 147],
    [254, 198, 135],
    [254, 175, 124],
    [254, 150, 118],
    [254, 121, 121],
    [244, 95, 136],
    [221, 81, 156],
    [193, 73, 172],
    [160, 69, 182],
    [126, 67, 184],
    [90, 66, 177],
    [53, 65, 161],
    [0, 63, 136],
    [2, 59, 91],
    [2, 50, 65],
    [1, 39, 45],
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
        Self::of_color(COLORS[class % COLORS.len()])
    }

    pub(super) fn of_color(color: [u8; 3]) -> Self {
        let on = |text| contrast(color, text);
        Self { color, text: if on(LIGHT) >= on(DARK) { LIGHT } else { DARK } }
    }
}

/// The color of a distance from 0, the nearest, to 1, the farthest.
pub(super) fn depth_color(share: f32) -> [u8; 3] {
    let at = share.clamp(0.0, 1.0) * (DEPTHS.len() - 1) as f32;
    // What is not a number becomes 0.
    let low = (at as usize).min(DEPTHS.len() - 2);
    let fraction = at - low as f32;
    let (near, far) = (DEPTHS[low], DEPTHS[low + 1]);
    [0, 1, 2].map(|channel| {
        let (near, far) = (f32::from(near[channel]), f32::from(far[channel]));
        (near + (far - near) * fraction).round() as u8
    })
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
    fn far_is_darker_than_near() {
        let lightness = |step: u8| luminance(depth_color(f32::from(step) / 100.0));
        assert!((1..=100).all(|step| lightness(step) < lightness(step - 1)));
        assert_eq!((depth_color(-1.0), depth_color(2.0)), (DEPTHS[0], DEPTHS[16]));
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
