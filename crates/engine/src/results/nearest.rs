//! Where two outlines come nearest to each other.
//!
//! Outlines of large masks have points by the hundred thousand, far too many to compare each with each. So those of one
//! are sorted into a tree of boxes, halves of halves, of which most are passed over: J. L. Bentley (Multidimensional
//! binary search trees used for associative searching, 1975).

/// Points in a box that is not divided any more.
const LEAF: usize = 8;

/// Indices of the points of `a` and `b` that are nearest to each other, the first such pair.
pub(super) fn nearest(a: &[[usize; 2]], b: &[[usize; 2]]) -> [usize; 2] {
    search_all(a, b).0
}

/// The same, and how often the distance of two points was calculated.
fn search_all(a: &[[usize; 2]], b: &[[usize; 2]]) -> ([usize; 2], usize) {
    let tree = Tree::new(b);
    let mut best = [0, 0];
    let mut search = Search { at: [0, 0], distance: usize::MAX, idx: 0, n_compared: 0 };
    for (idx, &at) in a.iter().enumerate() {
        let before = search.distance;
        // No point of `b` comes before the first, so none that is only as near as what was found counts.
        search = Search { at, idx: 0, ..search };
        tree.visit(0, 0..b.len(), &mut search);
        if search.distance < before {
            best = [idx, search.idx];
        }
    }
    (best, search.n_compared)
}

/// Points with their indices. A box holds a range of them; its halves are those of the range.
struct Tree {
    points: Vec<([usize; 2], usize)>,
    /// The halves of box `n` are the boxes `2 n + 1` and `2 n + 2`.
    boxes: Vec<Bounds>,
}

#[derive(Clone, Copy, Default)]
struct Bounds {
    low: [usize; 2],
    high: [usize; 2],
    /// The least index of a point in it.
    first: usize,
}

/// What is looked for, and the nearest point so far: of several as near, the first.
struct Search {
    at: [usize; 2],
    distance: usize,
    idx: usize,
    n_compared: usize,
}

impl Tree {
    fn new(points: &[[usize; 2]]) -> Self {
        let points = points.iter().copied().zip(0..).collect();
        let mut tree = Self { points, boxes: Vec::new() };
        tree.divide(0, 0..tree.points.len());
        tree
    }

    fn divide(&mut self, number: usize, range: std::ops::Range<usize>) {
        let points = &mut self.points[range.clone()];
        let Some(bounds) = Bounds::of(points) else { return };
        if self.boxes.len() <= number {
            self.boxes.resize(number + 1, Bounds::default());
        }
        self.boxes[number] = bounds;
        if range.len() > LEAF {
            let [width, height] = [0, 1].map(|axis| bounds.high[axis] - bounds.low[axis]);
            let axis = usize::from(height > width);
            points.select_nth_unstable_by_key(range.len() / 2, |(point, _)| point[axis]);
            let middle = range.start + range.len() / 2;
            self.divide(2 * number + 1, range.start..middle);
            self.divide(2 * number + 2, middle..range.end);
        }
    }

    fn visit(&self, number: usize, range: std::ops::Range<usize>, search: &mut Search) {
        if range.is_empty() || !search.may_find(&self.boxes[number]) {
            return;
        }
        if range.len() <= LEAF {
            self.points[range].iter().for_each(|&(point, idx)| search.compare(point, idx));
            return;
        }
        let middle = range.start + range.len() / 2;
        let mut halves = [(2 * number + 1, range.start..middle), (2 * number + 2, middle..range.end)];
        // What is found in the nearer one may spare the other.
        halves.sort_by_key(|(number, _)| self.boxes[*number].distance(search.at));
        for (number, range) in halves {
            self.visit(number, range, search);
        }
    }
}

impl Bounds {
    fn of(points: &[([usize; 2], usize)]) -> Option<Self> {
        let &(point, first) = points.first()?;
        let mut bounds = Self { low: point, high: point, first };
        for &(point, idx) in points {
            for axis in [0, 1] {
                bounds.low[axis] = bounds.low[axis].min(point[axis]);
                bounds.high[axis] = bounds.high[axis].max(point[axis]);
            }
            bounds.first = bounds.first.min(idx);
        }
        Some(bounds)
    }

    /// The square of the distance between a point and what of the box is nearest to it.
    fn distance(&self, at: [usize; 2]) -> usize {
        squared(at, [0, 1].map(|axis| at[axis].clamp(self.low[axis], self.high[axis])))
    }
}

impl Search {
    fn may_find(&self, bounds: &Bounds) -> bool {
        (bounds.distance(self.at), bounds.first) < (self.distance, self.idx)
    }

    fn compare(&mut self, point: [usize; 2], idx: usize) {
        self.n_compared += 1;
        let distance = squared(self.at, point);
        if (distance, idx) < (self.distance, self.idx) {
            (self.distance, self.idx) = (distance, idx);
        }
    }
}

/// The square of the distance of two points.
fn squared([ax, ay]: [usize; 2], [bx, by]: [usize; 2]) -> usize {
    let (dx, dy) = (ax.abs_diff(bx), ay.abs_diff(by));
    dx * dx + dy * dy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each point compared with each.
    fn plain(a: &[[usize; 2]], b: &[[usize; 2]]) -> [usize; 2] {
        let mut best = (usize::MAX, [0, 0]);
        for (i, &from) in a.iter().enumerate() {
            for (j, &to) in b.iter().enumerate() {
                if squared(from, to) < best.0 {
                    best = (squared(from, to), [i, j]);
                }
            }
        }
        best.1
    }

    #[test]
    fn the_first_of_several_pairs_is_taken() {
        let square = |x: usize| [[x, 0], [x, 2], [x + 2, 2], [x + 2, 0]];
        assert_eq!(nearest(&square(0), &square(9)), [2, 1]);
        assert_eq!(nearest(&square(9), &square(0)), [0, 3]);
        assert_eq!(nearest(&[], &[]), [0, 0]);
    }

    /// Outlines for which a search could have to look at all points: far apart, side by side, interlocked, round. Each
    /// with each would be 400 million.
    #[test]
    fn few_points_are_compared() {
        const N: usize = 20_000;
        let line = |x: usize| (0..N).map(|y| [x, 2 * y]).collect::<Vec<_>>();
        let teeth = |x: usize| (0..N).map(|n| [x + n % 2 * 50, n / 2 * 4 + x]).collect::<Vec<_>>();
        let ring = |radius: f64| {
            let angle = |n: usize| n as f64 * std::f64::consts::TAU / N as f64;
            let at = |value: f64| (1e6 + radius * value) as usize;
            (0..N).map(|n| [at(angle(n).cos()), at(angle(n).sin())]).collect::<Vec<_>>()
        };
        let falling = |x: usize| (0..N).map(|n| [x, N * N - n * n]).collect::<Vec<_>>();
        for (name, a, b) in [
            ("lines", line(0), line(7)),
            ("far lines", line(0), line(1 << 20)),
            ("teeth", teeth(0), teeth(2)),
            ("rings", ring(1e5), ring(3e5)),
            ("point in a ring", vec![[1_000_000; 2]], ring(3e5)),
            ("nearer and nearer", falling(0), falling(40)),
        ] {
            for (a, b) in [(&a, &b), (&b, &a)] {
                let n_compared = search_all(a, b).1;
                assert!(n_compared <= 200 * (a.len() + b.len()), "{name}: {n_compared}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_pair_is_that_of_the_definition(
            (a, b) in (1usize..60, 1usize..60).prop_flat_map(|(width, height)| {
                let points = || prop::collection::vec([0..width, 0..height], 1..80);
                (points(), points())
            })
        ) {
            prop_assert_eq!(nearest(&a, &b), plain(&a, &b));
        }
    }
}
