//! Polygons as masks.

use super::Mask;

/// Points to which Ultralytics brings the outline of a label.
const N_POINTS: usize = 1000;

/// The pixels of a picture of `hw` whose centres lie inside the polygon, by the even-odd rule.
///
/// `corners` are `[x, y]` in pixels; the pixel in the upper left corner has its centre at `[0.5, 0.5]`. What lies
/// outside of the picture is left out.
#[must_use]
pub fn fill_polygon(corners: &[[f64; 2]], hw: [usize; 2]) -> Mask {
    let mut mask = Mask::new(hw);
    if corners.is_empty() || corners.iter().flatten().any(|value| !value.is_finite()) {
        return mask;
    }
    scan(corners, 0.5, hw[0], |row, from, to| {
        // Casts saturate, so that coordinates far outside do no harm.
        let [from, to] = [from, to].map(|x| ((x - 0.5).ceil().max(0.0) as usize).min(hw[1]));
        mask.fill_row(row, from, to);
    });
    mask
}

/// The pixels of a picture of `hw` that the outline of the polygon touches, and those inside it.
///
/// This is how Ultralytics makes masks of labels: the closed outline is walked in a thousand steps, of which each
/// marks the pixel it lies in, and what is enclosed by these pixels is filled by the even-odd rule. A mask is half a
/// pixel wider at every side than that of [`fill_polygon`].
#[must_use]
pub fn trace_polygon(corners: &[[f64; 2]], hw: [usize; 2]) -> Mask {
    let mut mask = Mask::new(hw);
    if corners.is_empty() || corners.iter().flatten().any(|value| !value.is_finite()) {
        return mask;
    }
    let limits = [hw[1] as f64, hw[0] as f64];
    let pixel = |[x, y]: [f64; 2]| [x.clamp(0.0, limits[0]).floor(), y.clamp(0.0, limits[1]).floor()];
    let mut outline: Vec<[f64; 2]> = walked(corners).into_iter().map(pixel).collect();
    outline.dedup();
    let rows = outline.iter().map(|[_, y]| *y as usize);
    let top = rows.clone().min().unwrap_or(0);
    mask.reach(top..rows.max().map_or(0, |bottom| (bottom + 1).min(hw[0])));
    for (idx, &to) in outline.iter().enumerate() {
        let from = outline[(idx + outline.len() - 1) % outline.len()];
        draw_line(&mut mask, from.map(|at| at as i64), to.map(|at| at as i64));
    }
    scan(&outline, 0.0, hw[0], |row, from, to| {
        mask.fill_row(row, from.ceil() as usize, to.floor() as usize + 1);
    });
    mask
}

/// Where lines across the polygon are inside, by the even-odd rule: calls `inside` with the row and both ends.
///
/// Line `row` is at `y = row + offset`; there are `n_rows`. Coordinates are finite. It takes time by the lines that each
/// side crosses, however many sides there are.
fn scan(corners: &[[f64; 2]], offset: f64, n_rows: usize, mut inside: impl FnMut(usize, f64, f64)) {
    let mut sides = Vec::with_capacity(corners.len());
    for (idx, &from) in corners.iter().enumerate() {
        let to = corners[(idx + 1) % corners.len()];
        if from[1] != to[1] {
            sides.push(if from[1] < to[1] { [from, to] } else { [to, from] });
        }
    }
    sides.sort_unstable_by(|[a, _], [b, _]| a[1].total_cmp(&b[1]));
    let (mut next, mut crossed, mut crossings) = (0, Vec::new(), Vec::new());
    for row in 0..n_rows {
        let y = row as f64 + offset;
        while sides.get(next).is_some_and(|[upper, _]| upper[1] <= y) {
            crossed.push(sides[next]);
            next += 1;
        }
        // Each side holds its upper end and not its lower one, so that a corner counts once.
        crossed.retain(|[_, lower]: &[[f64; 2]; 2]| lower[1] > y);
        crossings.clear();
        crossings.extend(crossed.iter().map(|&[[x1, y1], [x2, y2]]| x1 + (y - y1) * (x2 - x1) / (y2 - y1)));
        crossings.sort_unstable_by(f64::total_cmp);
        crossings.as_chunks().0.iter().for_each(|&[from, to]| inside(row, from, to));
    }
}

/// The closed outline with more points on it, evenly many on each side, and the corners themselves.
fn walked(corners: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let closed: Vec<[f64; 2]> = corners.iter().chain(&corners[..1]).copied().collect();
    let n_between = N_POINTS.saturating_sub(closed.len());
    let last = closed.len() - 1;
    // Where points lie, in sides: between corners, and the corners before what lies at the same place.
    let mut places: Vec<f64> = (0..=last).map(|idx| idx as f64).collect();
    places.extend((0..n_between).map(|idx| idx as f64 * last as f64 / (n_between.max(2) - 1) as f64));
    places.sort_by(f64::total_cmp);
    let at = |place: f64| {
        let side = (place as usize).min(last - 1);
        let (share, from, to) = (place - side as f64, closed[side], closed[side + 1]);
        [0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis]))
    };
    places.into_iter().map(at).collect()
}

/// Adds a pixel for each step along the longer axis of the line, the nearest one across.
fn draw_line(mask: &mut Mask, from: [i64; 2], to: [i64; 2]) {
    let [from, to] = if from[0] <= to[0] { [from, to] } else { [to, from] };
    let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    let n = dx.max(dy.abs());
    for step in 0..=n {
        // Halfway between two pixels the one nearer to the start is taken.
        let moved = |delta: i64| {
            if n == 0 { 0 } else { delta.signum() * ((2 * step * delta.abs() + n - 1) / (2 * n)) }
        };
        let [x, y] = [from[0] + moved(dx), from[1] + moved(dy)];
        if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) {
            mask.fill_row(y, x, x + 1);
        }
    }
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

    #[test]
    fn traced_shapes() {
        let triangle = trace_polygon(&[[1.2, 1.2], [6.9, 1.7], [3.1, 5.6]], [7, 9]);
        let expected =
            [".........", ".######..", ".######..", ".#####...", "..###....", "..##.....", "........."];
        assert_eq!(rows(&triangle), expected);
        // What has no area has an outline all the same.
        assert_eq!(rows(&trace_polygon(&[[2.0, 1.0], [2.0, 1.4], [2.3, 1.0]], [2, 4])), ["....", "..#."]);
        for corners in [&[][..], &[[f64::NAN; 2]; 3], &[[0.0, f64::INFINITY]; 3]] {
            assert_eq!(trace_polygon(corners, [4, 4]).area(), 0);
        }
    }

    /// Numbers of pixels and FNV hashes of masks, and of a quarter of them, that OpenCV 5 draws (`fillPoly` of 1000
    /// points cut to whole numbers, then `resize`).
    #[test]
    fn traced_masks_are_those_of_the_reference() {
        let star = [[53.883, 27.91], [6.335, 28.449], [44.407, 5.655], [30.354, 41.998], [15.02, 5.988]];
        let beyond = [[-20.0, 5.5], [90.0, 10.25], [40.5, 70.0]];
        for (corners, whole, small) in [
            (&star[..], (514, 0x29aa_9656_35a0_1b99), (32, 0x3382_c2af_626a_87cf)),
            (&beyond[..], (2406, 0x2fdb_1431_67b1_ef1b), (153, 0x30c6_2fe4_4eed_81ea)),
        ] {
            let mask = trace_polygon(corners, [48, 64]);
            assert_eq!((digest(&mask), digest(&mask.shrunk(4))), (whole, small), "{corners:?}");
        }
    }

    fn digest(mask: &Mask) -> (usize, u64) {
        let pixels = rows(mask).concat().into_bytes();
        let step = |hash: u64, pixel: u8| (hash ^ u64::from(pixel == b'#')).wrapping_mul(0x100_0000_01b3);
        (mask.area(), pixels.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
    }

    proptest! {
        /// What is filled is traced too, or lies beside it.
        #[test]
        fn traces_hold_what_is_filled(corners in prop::array::uniform4(prop::array::uniform2(0.0..40.0f64))) {
            let filled = fill_polygon(&corners, [40, 40]);
            let traced = trace_polygon(&corners, [40, 40]);
            let near = |x: usize, y: usize| {
                (y.saturating_sub(1)..=y + 1).any(|v| (x.saturating_sub(1)..=x + 1).any(|u| traced.get(u, v)))
            };
            for (x, y) in (0..40).flat_map(|y| (0..40).map(move |x| (x, y))) {
                prop_assert!(!filled.get(x, y) || near(x, y), "{} {}", x, y);
            }
        }

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
