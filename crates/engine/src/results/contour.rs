//! Outlines of masks.
//!
//! Borders are followed as S. Suzuki and K. Abe describe (Topological structural analysis of digitized binary images
//! by border following, 1985), outer borders of outermost components only. Of straight runs, only the ends are kept.

use super::nearest::nearest;

/// The eight neighbors, `[dx, dy]`, counterclockwise from the right.
const AROUND: [[isize; 2]; 8] = [[1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1]];

/// What is known of a pixel of the object: not on a border yet, on one, or on one with nothing at its right.
const PLAIN: i8 = 1;
const BORDER: i8 = 2;
const RIGHT_BORDER: i8 = -2;

/// The outer borders of the eight-connected parts of a mask of `width` pixels a row, in the order of their first
/// pixels, upper rows first.
///
/// Each begins at its first pixel, goes counterclockwise and has no point twice in succession; the last point is
/// joined to the first. Parts inside the hole of another part are not told.
pub(super) fn outer(mask: &[u8], width: usize) -> Vec<Vec<[usize; 2]>> {
    let mut field = Field::new(mask, width);
    let mut borders = Vec::new();
    for y in 1..field.n_rows() - 1 {
        // Whether the last border that the row met is one that it has entered and not left.
        let mut inside = false;
        let mut before = 0;
        for x in 1..field.stride - 1 {
            let at = y * field.stride + x;
            let mut here = field.cells[at];
            if here == PLAIN && before == 0 && !inside {
                borders.push(field.follow(at));
                here = field.cells[at];
            }
            if here == BORDER || here == RIGHT_BORDER {
                inside = here == BORDER;
            }
            before = here;
        }
    }
    borders
}

/// A mask with a margin of one pixel, so that every pixel has eight neighbors.
struct Field {
    cells: Vec<i8>,
    stride: usize,
}

impl Field {
    fn new(mask: &[u8], width: usize) -> Self {
        let stride = width + 2;
        let mut cells = vec![0; stride];
        for row in mask.chunks_exact(width) {
            cells.push(0);
            cells.extend(row.iter().map(|&pixel| if pixel == 0 { 0 } else { PLAIN }));
            cells.push(0);
        }
        cells.resize(cells.len() + stride, 0);
        Self { cells, stride }
    }

    fn n_rows(&self) -> usize {
        self.cells.len() / self.stride
    }

    fn neighbor(&self, at: usize, direction: usize) -> usize {
        let [dx, dy] = AROUND[direction];
        at.wrapping_add_signed(dy * self.stride as isize + dx)
    }

    fn point(&self, at: usize) -> [usize; 2] {
        [at % self.stride - 1, at / self.stride - 1]
    }

    /// Follows and marks the border whose uppermost and then leftmost pixel is `start`.
    fn follow(&mut self, start: usize) -> Vec<[usize; 2]> {
        // Clockwise from the left, to find where the border comes from.
        let last_direction = (1..8)
            .map(|turn| (4 + 8 - turn) % 8)
            .find(|&direction| self.cells[self.neighbor(start, direction)] != 0);
        let Some(last_direction) = last_direction else {
            self.cells[start] = RIGHT_BORDER;
            return vec![self.point(start)];
        };
        let last = self.neighbor(start, last_direction);
        let mut points = Vec::new();
        let mut at = start;
        // From `at` to the pixel before it.
        let mut back = last_direction;
        let mut came_by = None;
        loop {
            let mut right_is_free = false;
            let mut direction = back;
            loop {
                direction = (direction + 1) % 8;
                if self.cells[self.neighbor(at, direction)] != 0 {
                    break;
                }
                right_is_free |= direction == 0;
            }
            if right_is_free {
                self.cells[at] = RIGHT_BORDER;
            } else if self.cells[at] == PLAIN {
                self.cells[at] = BORDER;
            }
            if came_by != Some(direction) {
                points.push(self.point(at));
            }
            let next = self.neighbor(at, direction);
            if next == start && at == last {
                return points;
            }
            came_by = Some(direction);
            back = (direction + 4) % 8;
            at = next;
        }
    }
}

/// Joins outlines to one, by bridges there and back between the nearest points of one and the next.
pub(super) fn join(outlines: &[Vec<[usize; 2]>]) -> Vec<[usize; 2]> {
    let Some((last, others)) = outlines.split_last() else { return Vec::new() };
    let bridges: Vec<[usize; 2]> = outlines.windows(2).map(|pair| nearest(&pair[0], &pair[1])).collect();
    // Each outline is entered at one point and left for the next at another, and finished on the way back.
    let entries: Vec<usize> = std::iter::once(0).chain(bridges.iter().map(|bridge| bridge[1])).collect();
    let mut joined = Vec::new();
    for ((outline, &entry), &[exit, _]) in others.iter().zip(&entries).zip(&bridges) {
        joined.extend(arc(outline, entry, exit));
    }
    let entry = entries[others.len()];
    joined.extend(last[entry..].iter().chain(&last[..entry]).copied());
    if others.is_empty() {
        return joined;
    }
    if last.len() > 1 {
        joined.push(last[entry]);
    }
    for ((outline, &entry), &[exit, _]) in others.iter().zip(&entries).zip(&bridges).rev() {
        joined.extend(arc(outline, exit, entry));
        if exit == entry && outline.len() > 1 {
            // The way there had only the one point; all the others are left.
            joined.extend(outline[entry + 1..].iter().chain(&outline[..=entry]).copied());
        }
    }
    // The polygon closes by itself.
    joined.pop();
    joined
}

/// The points from `from` to `to`, both included.
fn arc(outline: &[[usize; 2]], from: usize, to: usize) -> Vec<[usize; 2]> {
    if from <= to {
        outline[from..=to].to_vec()
    } else {
        outline[from..].iter().chain(&outline[..=to]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(rows: &[&str]) -> (Vec<u8>, usize) {
        (rows.concat().bytes().map(|byte| u8::from(byte == b'#')).collect(), rows[0].len())
    }

    #[test]
    fn borders_are_those_of_outermost_parts() {
        let (mask, width) = mask(&[
            "..##......",
            ".####..#..",
            ".#..#.....",
            ".#..#.###.",
            ".####.#.#.",
            "......###.",
            "..........",
            "#.#.#.#.#.",
        ]);
        let expected: Vec<Vec<[usize; 2]>> = vec![
            vec![[2, 0], [1, 1], [1, 4], [4, 4], [4, 1], [3, 0]],
            vec![[7, 1]],
            vec![[6, 3], [6, 5], [8, 5], [8, 3]],
            vec![[0, 7]],
            vec![[2, 7]],
            vec![[4, 7]],
            vec![[6, 7]],
            vec![[8, 7]],
        ];
        assert_eq!(outer(&mask, width), expected);
        assert!(outer(&[0; 12], 4).is_empty());
    }

    /// All contours of 400 pseudo-random masks, as one number that was computed from OpenCV's `findContours`
    /// (`RETR_EXTERNAL`, `CHAIN_APPROX_SIMPLE`), ordered by their first points.
    #[test]
    fn borders_are_those_of_opencv() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            (state >> 16) as usize
        };
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |value: usize| hash = (hash ^ value as u64).wrapping_mul(0x100_0000_01b3);
        for _ in 0..400 {
            let (width, height) = (1 + next() % 23, 1 + next() % 19);
            let density = next() % 100;
            let mask: Vec<u8> = (0..width * height).map(|_| u8::from(next() % 100 < density)).collect();
            let contours = outer(&mask, width);
            mix(contours.len());
            for contour in contours {
                mix(contour.len());
                contour.into_iter().flatten().for_each(&mut mix);
            }
        }
        assert_eq!(hash, 0xd95a_3b2d_5b79_91de);
    }

    #[test]
    fn parts_are_joined_by_bridges() {
        let square = |x: usize| vec![[x, 0], [x, 2], [x + 2, 2], [x + 2, 0]];
        assert!(join(&[]).is_empty());
        assert_eq!(join(&[square(0)]), square(0));
        assert_eq!(join(&[vec![[5, 5]]]), [[5, 5]]);
        let joined = join(&[square(0), square(9)]);
        let expected = [[0, 0], [0, 2], [2, 2], [9, 2], [11, 2], [11, 0], [9, 0], [9, 2], [2, 2], [2, 0]];
        assert_eq!(joined, expected);
        assert_eq!(join(&[vec![[1, 1]], vec![[3, 1]], vec![[5, 1]]]), [[1, 1], [3, 1], [5, 1], [3, 1]]);
    }

    /// Twice the signed area of a polygon.
    fn area2(points: &[[usize; 2]]) -> i64 {
        let cross = |a: [usize; 2], b: [usize; 2]| (a[0] * b[1]) as i64 - (a[1] * b[0]) as i64;
        (0..points.len()).map(|idx| cross(points[idx], points[(idx + 1) % points.len()])).sum()
    }

    proptest! {
        #[test]
        fn joining_keeps_points_and_area(
            (width, pixels) in (1usize..12).prop_flat_map(|width| {
                (Just(width), (1usize..12).prop_flat_map(move |height| prop::collection::vec(0u8..2, width * height)))
            })
        ) {
            let contours = outer(&pixels, width);
            let joined = join(&contours);
            let inside = |&[x, y]: &[usize; 2]| pixels[y * width + x] == 1;
            prop_assert!(joined.iter().all(inside));
            prop_assert!(contours.iter().flatten().all(|point| joined.contains(point)));
            prop_assert_eq!(area2(&joined), contours.iter().map(|contour| area2(contour)).sum::<i64>());
            prop_assert_eq!(contours.is_empty(), pixels.iter().all(|&pixel| pixel == 0));
        }
    }
}
