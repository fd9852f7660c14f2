//! Masks of one bit a pixel.

use std::ops::Range;

/// Which pixels of a picture belong to an object.
///
/// It takes memory for the rows from the first to the last one that has pixels, not for those of the whole picture:
/// large pictures with many small objects are no rarity.
#[derive(Clone, Debug)]
pub struct Mask {
    hw: [usize; 2],
    words_per_row: usize,
    /// The row that `words` begin with.
    first_row: usize,
    /// Rows downwards, each begins a new word; the first pixel is the lowest bit. Other rows have no pixels.
    words: Vec<u64>,
    area: usize,
}

impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        self.hw == other.hw && self.area == other.area && self.overlap(other) == self.area
    }
}

impl Eq for Mask {}

impl Mask {
    /// A mask of `[height, width]` without pixels.
    #[must_use]
    pub fn new(hw: [usize; 2]) -> Self {
        let words_per_row = hw[1].div_ceil(64);
        Self { hw, words_per_row, first_row: 0, words: Vec::new(), area: 0 }
    }

    /// A mask of `[height, width]` with the pixels for which `is_inside` holds, rows from the top.
    ///
    /// Values beyond the last pixel are left out; pixels without a value are outside.
    #[must_use]
    pub fn from_values<T>(hw: [usize; 2], values: &[T], is_inside: impl Fn(&T) -> bool) -> Self {
        let mut mask = Self::new(hw);
        for (row, values) in values.chunks(hw[1].max(1)).take(hw[0]).enumerate() {
            for (word_idx, values) in values.chunks(64).take(mask.words_per_row).enumerate() {
                let bits = values.iter().enumerate().map(|(bit, value)| u64::from(is_inside(value)) << bit);
                let word = bits.fold(0, |all, bit| all | bit);
                if word != 0 {
                    mask.row_mut(row)[word_idx] = word;
                }
            }
        }
        mask.count();
        mask
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn hw(&self) -> [usize; 2] {
        self.hw
    }

    /// Number of pixels inside.
    #[must_use]
    pub fn area(&self) -> usize {
        self.area
    }

    /// Whether the pixel at column `x` of row `y` is inside; false beyond the borders.
    #[must_use]
    pub fn get(&self, x: usize, y: usize) -> bool {
        let is_on = x < self.hw[1] && y < self.hw[0];
        is_on && self.row(y).get(x / 64).is_some_and(|word| word >> (x % 64) & 1 == 1)
    }

    /// Adds the pixels `from..to` of a row; what lies beyond the borders is left out.
    pub fn fill_row(&mut self, row: usize, from: usize, to: usize) {
        let to = to.min(self.hw[1]);
        if row >= self.hw[0] || from >= to {
            return;
        }
        let words = self.row_mut(row);
        let (mut at, mut n_new) = (from, 0);
        while at < to {
            let end = to.min((at / 64 + 1) * 64);
            let bits = (u64::MAX >> (64 - (end - at))) << (at % 64);
            let word = &mut words[at / 64];
            n_new += (bits & !*word).count_ones() as usize;
            *word |= bits;
            at = end;
        }
        self.area += n_new;
    }

    /// Intersection over union of two masks of one size; 0 if both are empty or their sizes differ.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f64 {
        if self.hw != other.hw {
            return 0.0;
        }
        let overlap = self.overlap(other);
        let union = self.area + other.area - overlap;
        if union == 0 { 0.0 } else { overlap as f64 / union as f64 }
    }

    /// Takes the pixels of another mask of the same size away; a mask of another size changes nothing.
    pub fn subtract(&mut self, other: &Self) {
        if self.hw == other.hw {
            for row in self.shared_rows(other) {
                self.row_mut(row).iter_mut().zip(other.row(row)).for_each(|(word, other)| *word &= !other);
            }
            self.count();
        }
    }

    /// Adds the pixels of another mask of the same size; a mask of another size changes nothing.
    pub fn add(&mut self, other: &Self) {
        if self.hw == other.hw {
            self.reach(other.rows());
            for row in other.rows() {
                self.row_mut(row).iter_mut().zip(other.row(row)).for_each(|(word, other)| *word |= other);
            }
            self.count();
        }
    }

    /// The mask with `factor` times fewer pixels down and across, as bilinear scaling makes it; `factor` is at least 1.
    ///
    /// A pixel is inside if two of the four in the middle of those it stands for are. Of an odd number of rows and
    /// columns the one in the middle counts alone.
    #[must_use]
    pub fn shrunk(&self, factor: usize) -> Self {
        let mut small = Self::new(self.hw.map(|side| side / factor));
        let Some([x1, y1, x2, y2]) = self.bounds() else { return small };
        let middle = [(factor - 1) / 2, factor / 2];
        for y in y1 / factor..y2.div_ceil(factor).min(small.hw[0]) {
            for x in x1 / factor..x2.div_ceil(factor).min(small.hw[1]) {
                let is_inside = |u: usize, v: usize| self.get(factor * x + u, factor * y + v);
                let n_inside = middle.map(|v| middle.map(|u| usize::from(is_inside(u, v))));
                if n_inside.as_flattened().iter().sum::<usize>() >= 2 {
                    small.fill_row(y, x, x + 1);
                }
            }
        }
        small
    }

    /// The bounding box `[x1, y1, x2, y2]` in whole pixels, if there is a pixel inside.
    #[must_use]
    pub fn bounds(&self) -> Option<[usize; 4]> {
        let mut bounds = None::<[usize; 4]>;
        for y in self.rows() {
            let row = self.row(y);
            let Some(first) = row.iter().position(|&word| word != 0) else { continue };
            let last = row.iter().rposition(|&word| word != 0).unwrap_or(first);
            let x1 = first * 64 + row[first].trailing_zeros() as usize;
            let x2 = last * 64 + 64 - row[last].leading_zeros() as usize;
            bounds = Some(bounds.map_or([x1, y, x2, y + 1], |[l, t, r, _]| [l.min(x1), t, r.max(x2), y + 1]));
        }
        bounds
    }

    /// Lengths of runs down the columns, outside and inside in turn, beginning outside: COCO's uncompressed RLE.
    #[must_use]
    pub fn run_lengths(&self) -> Vec<usize> {
        let [height, width] = self.hw;
        let (mut runs, mut is_inside, mut run) = (Vec::new(), false, 0);
        for x in 0..width {
            for y in 0..height {
                if self.get(x, y) != is_inside {
                    runs.push(run);
                    (is_inside, run) = (!is_inside, 0);
                }
                run += 1;
            }
        }
        runs.push(run);
        runs
    }

    /// The run lengths as the text that COCO's tools read.
    ///
    /// Each length from the fourth on is written as its difference from the one two before; numbers are cut into groups
    /// of five bits, lowest first, each with a bit that says whether more follow, as characters from `0` on.
    #[must_use]
    pub fn coco_rle(&self) -> String {
        let runs = self.run_lengths();
        let mut text = String::new();
        for (idx, &run) in runs.iter().enumerate() {
            let before = if idx > 2 { runs[idx - 2] as i64 } else { 0 };
            let mut rest = run as i64 - before;
            loop {
                let group = (rest & 31) as u8;
                rest >>= 5;
                // The sign is the highest bit of the last group.
                let is_last = if group & 16 == 0 { rest == 0 } else { rest == -1 };
                text.push(char::from(48 + group + if is_last { 0 } else { 32 }));
                if is_last {
                    break;
                }
            }
        }
        text
    }

    /// Makes room for all of these rows at once.
    pub(super) fn reach(&mut self, rows: Range<usize>) {
        if !rows.is_empty() {
            self.row_mut(rows.start);
            self.row_mut(rows.end - 1);
        }
    }

    /// The rows that there is room for.
    fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.words.len() / self.words_per_row.max(1)
    }

    fn shared_rows(&self, other: &Self) -> Range<usize> {
        let (a, b) = (self.rows(), other.rows());
        a.start.max(b.start)..a.end.min(b.end)
    }

    /// The words of a row; none if it has no pixels for sure.
    fn row(&self, y: usize) -> &[u64] {
        if !self.rows().contains(&y) {
            return &[];
        }
        &self.words[(y - self.first_row) * self.words_per_row..][..self.words_per_row]
    }

    /// The words of a row, for which room is made.
    fn row_mut(&mut self, y: usize) -> &mut [u64] {
        let width = self.words_per_row;
        if self.words.is_empty() {
            self.first_row = y;
        }
        if y < self.first_row {
            let n_new = (self.first_row - y) * width;
            self.words.splice(..0, std::iter::repeat_n(0, n_new));
            self.first_row = y;
        }
        let start = (y - self.first_row) * width;
        if self.words.len() < start + width {
            self.words.resize(start + width, 0);
        }
        &mut self.words[start..start + width]
    }

    /// Number of pixels in both masks, which are of one size.
    fn overlap(&self, other: &Self) -> usize {
        let of_row = |row: usize| {
            let pairs = self.row(row).iter().zip(other.row(row));
            pairs.map(|(a, b)| (a & b).count_ones() as usize).sum::<usize>()
        };
        self.shared_rows(other).map(of_row).sum()
    }

    fn count(&mut self) {
        self.area = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(hw: [usize; 2], text: &str) -> Mask {
        let values: Vec<char> = text.chars().collect();
        Mask::from_values(hw, &values, |value| *value == '#')
    }

    #[test]
    fn overlaps() {
        let (a, b) = (mask([2, 3], "##.##."), mask([2, 3], ".##.##"));
        assert_eq!((a.area(), a.iou(&a), a.iou(&b)), (4, 1.0, 2.0 / 6.0));
        assert_eq!(a.iou(&Mask::new([2, 3])), 0.0);
        assert_eq!(Mask::new([2, 3]).iou(&Mask::new([2, 3])), 0.0);
        assert_eq!(a.iou(&Mask::new([3, 2])), 0.0);
        assert_eq!((a.bounds(), b.bounds()), (Some([0, 0, 2, 2]), Some([1, 0, 3, 2])));
        assert_eq!(Mask::new([2, 3]).bounds(), None);
        assert!(!a.get(3, 0) && !a.get(0, 2) && a.get(1, 1));
        assert_eq!(Mask::new([0, 0]).area(), 0);
        assert_eq!(Mask::from_values([1, 0], &[true], |inside| *inside).area(), 0);
    }

    #[test]
    fn sums_and_differences() {
        let (mut a, b) = (mask([2, 3], "##.##."), mask([2, 3], ".##.##"));
        a.subtract(&b);
        assert_eq!(a, mask([2, 3], "#..#.."));
        a.add(&b);
        assert_eq!((a.area(), a.clone()), (6, mask([2, 3], "######")));
        a.subtract(&Mask::new([9, 9]));
        a.add(&Mask::new([9, 9]));
        assert_eq!(a.area(), 6);
    }

    #[test]
    fn only_rows_with_pixels_take_memory() {
        let mut mask = Mask::new([100_000, 100]);
        for row in [500, 502, 499, 502] {
            mask.fill_row(row, 10, 12);
        }
        mask.fill_row(7, 12, 12);
        assert_eq!((mask.words.len(), mask.area(), mask.bounds()), (8, 6, Some([10, 499, 12, 503])));
        let values: Vec<bool> = (0..100 * 600).map(|at| at / 100 == 500 && at % 100 == 10).collect();
        let one = Mask::from_values([100_000, 100], &values, |on| *on);
        assert_eq!((one.words.len(), mask.iou(&one)), (2, 1.0 / 6.0));
        assert!(mask != one && Mask::new([2, 2]) != Mask::new([2, 3]));
    }

    #[test]
    fn small_masks_look_at_the_middle() {
        let mut whole = Mask::new([9, 12]);
        (0..4).for_each(|row| whole.fill_row(row, 2, 9));
        whole.fill_row(5, 5, 6);
        let small = whole.shrunk(4);
        // Half of the first pixel's middle is inside, all of the second's, none of the third's; one below is too few.
        assert_eq!((small.hw(), small.area(), small.bounds()), ([2, 3], 2, Some([0, 0, 2, 1])));
        assert_eq!(Mask::new([9, 12]).shrunk(4).area(), 0);
        assert_eq!((whole.shrunk(1), whole.shrunk(3).area()), (whole.clone(), 2));
    }

    #[test]
    fn run_lengths_go_down_the_columns() {
        assert_eq!(mask([2, 3], ".#..##").run_lengths(), [2, 2, 1, 1]);
        assert_eq!(mask([2, 2], "####").run_lengths(), [0, 4]);
        assert_eq!(Mask::new([2, 2]).run_lengths(), [4]);
        assert_eq!(mask([2, 3], ".#..##").coco_rle(), "221O");
    }

    proptest! {
        #[test]
        fn rows_are_filled_as_pixels_are(
            width in 1..200usize,
            spans in prop::collection::vec((0..3usize, 0..220usize, 0..220usize), 0..6),
        ) {
            let hw = [2, width];
            let mut filled = Mask::new(hw);
            let mut pixels = vec![false; 2 * width];
            for (row, from, to) in spans {
                filled.fill_row(row, from, to);
                if row < 2 {
                    (from..to.min(width)).for_each(|x| pixels[row * width + x] = true);
                }
            }
            prop_assert_eq!(filled, Mask::from_values(hw, &pixels, |pixel| *pixel));
        }

        /// Masks whose rows begin and end anywhere are joined and cut as their pixels are.
        #[test]
        fn masks_are_sets_of_pixels(
            spans in prop::array::uniform2(prop::collection::vec((0..9usize, 0..80usize, 0..80usize), 0..5)),
        ) {
            let hw = [9, 70];
            let [a, b] = spans.map(|spans| {
                let mut mask = Mask::new(hw);
                spans.into_iter().for_each(|(row, from, to)| mask.fill_row(row, from, to));
                mask
            });
            let pixels = |is_inside: &dyn Fn(usize, usize) -> bool| {
                let values: Vec<bool> = (0..9 * 70).map(|at| is_inside(at % 70, at / 70)).collect();
                Mask::from_values(hw, &values, |inside| *inside)
            };
            let both = pixels(&|x, y| a.get(x, y) && b.get(x, y));
            let (mut sum, mut rest) = (a.clone(), a.clone());
            sum.add(&b);
            rest.subtract(&b);
            prop_assert_eq!(&sum, &pixels(&|x, y| a.get(x, y) || b.get(x, y)));
            prop_assert_eq!(&rest, &pixels(&|x, y| a.get(x, y) && !b.get(x, y)));
            prop_assert_eq!(sum.area(), a.area() + b.area() - both.area());
            prop_assert_eq!(a.iou(&b), both.area() as f64 / sum.area().max(1) as f64);
            prop_assert_eq!(a == b, rest.area() == 0 && a.area() == b.area());
        }

        #[test]
        fn text_gives_the_runs_back(pixels in prop::collection::vec(any::<bool>(), 1..400)) {
            let mask = Mask::from_values([pixels.len(), 1], &pixels, |pixel| *pixel);
            prop_assert_eq!(decoded(&mask.coco_rle()), mask.run_lengths());
        }
    }

    /// The run lengths of COCO's text.
    fn decoded(text: &str) -> Vec<usize> {
        let mut runs: Vec<i64> = Vec::new();
        let (mut value, mut shift) = (0i64, 0);
        for byte in text.bytes() {
            let group = i64::from(byte - 48);
            value |= (group & 31) << shift;
            shift += 5;
            if group & 32 == 0 {
                if group & 16 != 0 {
                    value |= -1 << shift;
                }
                let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
                runs.push(value + before);
                (value, shift) = (0, 0);
            }
        }
        runs.iter().map(|&run| run as usize).collect()
    }
}
