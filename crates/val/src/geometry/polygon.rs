//! Polygons as masks.

use super::Mask;

/// The pixels of a picture of `hw` whose centres lie inside the polygon, by the even-odd rule.
///
/// `corners` are `[x, y]` in pixels; the pixel in the upper left corner has its centre at `[0.5, 0.5]`. What lies
/// outside of the picture is left out.
#[must_use]
pub fn fill_polygon(corners: &[[f64; 2]], hw: [usize; 2]) -> Mask {
    let mut mask = Mask::new(hw);
    let (low, high) = corners
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), [_, y]| (low.min(*y), high.max(*y)));
    if !(low.is_finite() && high.is_finite()) {
        return mask;
    }
    // Casts saturate, so that coordinates far outside do no harm.
    let rows = (low - 0.5).max(0.0) as usize..((high + 0.5).max(0.0) as usize).min(hw[0]);
    let mut crossings = Vec::new();
    for row in rows {
        let y = row as f64 + 0.5;
        crossings.clear();
        for (idx, &[x1, y1]) in corners.iter().enumerate() {
            let [x2, y2] = corners[(idx + 1) % corners.len()];
            // Each edge holds its upper end and not its lower one, so that a corner counts once.
            if (y1 <= y) != (y2 <= y) {
                crossings.push(x1 + (y - y1) / (y2 - y1) * (x2 - x1));
            }
        }
        crossings.sort_unstable_by(f64::total_cmp);
        for &[from, to] in crossings.as_chunks().0 {
            let [from, to] = [from, to].map(|x: f64| ((x - 0.5).ceil().max(0.0) as usize).min(hw[1]));
            mask.fill_row(row, from, to);
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(mask: &Mask) -> Vec<String> {
        let [h, w] = mask.hw();
        (0..h).map(|y| (0..w).map(|x| if mask.get(x, y) { '#' } else { '.' }).collect()).collect()
    }

    #[test]
    fn known_shapes() {
        let square = fill_polygon(&[[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]], [4, 5]);
        assert_eq!(rows(&square), [".....", ".###.", ".###.", "....."]);
        let triangle = fill_polygon(&[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [4, 4]);
        assert_eq!(rows(&triangle), ["###.", "##..", "#...", "...."]);
        let hourglass = fill_polygon(&[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]], [4, 4]);
        assert_eq!(rows(&hourglass), ["###.", ".#..", ".#..", "###."]);
        let outside = fill_polygon(&[[-9.0, -9.0], [99.0, -9.0], [99.0, 2.0], [-9.0, 2.0]], [3, 2]);
        assert_eq!(rows(&outside), ["##", "##", ".."]);
        for corners in [&[][..], &[[1.0, 1.0]], &[[0.0, 0.0], [4.0, 4.0]], &[[f64::NAN; 2]; 3]] {
            assert_eq!(fill_polygon(corners, [4, 4]).area(), 0);
        }
    }

    proptest! {
        /// The area is that of the shoelace formula, but for the pixels along the border.
        #[test]
        fn area_is_that_of_the_polygon(corners in prop::array::uniform3(prop::array::uniform2(0.0..64.0f64))) {
            let [a, b, c] = corners;
            let area = ((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])).abs() / 2.0;
            let border: f64 = [(a, b), (b, c), (c, a)].iter().map(|(p, q)| (p[0] - q[0]).hypot(p[1] - q[1])).sum();
            let filled = fill_polygon(&corners, [64, 64]).area() as f64;
            prop_assert!((filled - area).abs() <= border + 1.0, "{} {}", filled, area);
        }
    }
}
