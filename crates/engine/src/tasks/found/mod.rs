//! What a graphics processor finds in the maps of a detection head: rows of words, and how they are read.
//!
//! The device looks for cells whose best class passes, and takes the mean of distributions. All else of a row is as the
//! network gives it, so that places and scores come from the same arithmetic as those of the CPU.

pub(crate) mod gpu;
pub(crate) mod masks;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use super::detect::{Decoder, Filter};
use super::nms::Candidate;
use crate::backend::gpu::FoundLayout;
use crate::modules::DetectHead;

/// Words of a row before those that come with the box, in the order of `found.wgsl`.
const CELL: usize = 0;
const CLASS: usize = 1;
const LOGIT: usize = 2;
const OBJECTNESS: usize = 3;
const SIDES: usize = 4;
const EXTRA: usize = 8;

/// Words of parameters before the bits of classes: the key that logits have to reach.
const LEAST: usize = 0;
const WANTED: usize = 1;

/// Words of rows that are read back with a run, for each picture. Most have fewer rows; others cost a second copy.
const FIRST_WORDS: usize = 12 << 10;

/// Cells of an image that `top_k.wgsl` can choose.
const MAX_K: usize = 1024;

/// Pairs of a cell and a class that one of its workgroups looks at, so that no device takes it for dead.
const MAX_PAIRS: usize = 1 << 20;

/// Which words of the buffer hold what.
///
/// First parameters and counters, which the host writes; then rows for the host, of all images; then, of a branch that
/// needs no suppression, those that the best are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    n_classes: usize,
    n_images: usize,
    n_anchors: usize,
    n_extra: usize,
    /// Boxes that are chosen of each image; absent for a branch that needs suppression.
    k: Option<usize>,
}

impl Layout {
    /// The layout for `n_images` images of `n_anchors` cells, or `None` if the device can't choose among so many.
    fn new(head: &DetectHead, is_one2one: bool, n_images: usize, n_anchors: usize) -> Option<Self> {
        let n_classes = head.n_classes;
        let k = is_one2one.then(|| head.max_det.min(n_anchors));
        let fits = k.is_none_or(|k| (1..=MAX_K).contains(&k) && k * n_classes <= MAX_PAIRS);
        let layout = Self { n_classes, n_images, n_anchors, n_extra: head.extra.len(), k };
        fits.then_some(layout)
    }

    fn counter(&self) -> usize {
        WANTED + self.n_classes.div_ceil(32)
    }

    fn row_words(&self) -> usize {
        EXTRA + self.n_extra
    }

    /// Rows for the host at most.
    fn max_rows(&self) -> usize {
        self.n_images * self.k.unwrap_or(self.n_anchors)
    }

    /// Words that the host writes before each run.
    fn n_parameters(&self) -> usize {
        // A counter for all rows, and one for those of each image that are to choose from.
        self.counter() + 1 + if self.k.is_some() { self.n_images } else { 0 }
    }

    fn staged(&self) -> usize {
        self.n_parameters() + self.max_rows() * self.row_words()
    }

    /// The buffer, for the device.
    fn buffer(&self) -> FoundLayout {
        FoundLayout { len: self.n_words(), n_read: self.n_first() }
    }

    /// Words of the buffer.
    fn n_words(&self) -> usize {
        let n_staged = if self.k.is_some() { self.n_images * self.n_anchors } else { 0 };
        self.staged() + n_staged * self.row_words()
    }

    /// Words that are read back with a run.
    pub(super) fn n_first(&self) -> usize {
        let rows = (self.n_images * FIRST_WORDS / self.row_words()).min(self.max_rows());
        self.n_parameters() + rows * self.row_words()
    }

    /// What the device has to know of a run: which cells pass.
    pub(crate) fn parameters(&self, filter: &Filter<'_>) -> Vec<u32> {
        let mut words = vec![0; self.n_parameters()];
        // Scores are held against the threshold once more by the host. The best pairs are chosen among all classes.
        words[LEAST] = match self.k {
            Some(_) => key(filter.threshold()),
            None => key(filter.threshold()).saturating_add(1),
        };
        for class in (0..self.n_classes).filter(|&class| self.k.is_some() || filter.keeps(class)) {
            words[WANTED + class / 32] |= 1 << (class % 32);
        }
        words
    }

    /// Words of the buffer up to the last row of a run, by the first of them.
    pub(crate) fn n_used(&self, words: &[u32]) -> usize {
        self.n_parameters() + self.n_rows(words) * self.row_words()
    }

    fn n_rows(&self, words: &[u32]) -> usize {
        (words[self.counter()] as usize).min(self.max_rows())
    }
}

/// What a device found in the pictures of a run.
#[derive(Debug)]
pub(crate) struct Found {
    layout: Layout,
    words: Vec<u32>,
    /// First word of each row, by cell and class.
    rows: Vec<usize>,
}

impl Found {
    /// `words`: the first of the buffer, all rows among them ([`Layout::n_used`]).
    pub(crate) fn new(layout: Layout, words: Vec<u32>) -> Self {
        let first = layout.n_parameters();
        let row_words = layout.row_words();
        let mut rows: Vec<usize> = (0..layout.n_rows(&words)).map(|idx| first + idx * row_words).collect();
        // A driver that computes wrong may give wrong results, but nothing that does not exist.
        let n_cells = layout.n_images * layout.n_anchors;
        let exists = |word: usize, n: usize| (words[word] as usize) < n;
        rows.retain(|&row| exists(row + CELL, n_cells) && exists(row + CLASS, layout.n_classes));
        rows.sort_unstable_by_key(|&row| (words[row + CELL], words[row + CLASS]));
        Self { layout, words, rows }
    }

    /// The rows of one image, by anchor and class.
    fn rows(&self, image: usize) -> impl Iterator<Item = Row<'_>> {
        let before = |image: usize| {
            let first = image * self.layout.n_anchors;
            self.rows.partition_point(|&row| (self.words[row + CELL] as usize) < first)
        };
        self.rows[before(image)..before(image + 1)].iter().map(move |&row| self.row(image, row))
    }

    fn row(&self, image: usize, row: usize) -> Row<'_> {
        let words = &self.words[row..][..self.layout.row_words()];
        let float = |at: usize| f32::from_bits(words[at]);
        Row {
            anchor: words[CELL] as usize - image * self.layout.n_anchors,
            class: words[CLASS],
            logit: float(LOGIT),
            objectness: float(OBJECTNESS),
            sides: [0, 1, 2, 3].map(|side| float(SIDES + side)),
            extra: bytemuck::cast_slice(&words[EXTRA..]),
        }
    }

    /// As [`Decoder::candidates`] for a filter that was told by [`Layout::parameters`].
    pub(crate) fn candidates(
        &self,
        decoder: &Decoder<'_>,
        image: usize,
        filter: &Filter<'_>,
        candidates: &mut Vec<Candidate>,
    ) {
        let all = self.rows(image).map(|row| decoder.candidate(&row));
        candidates.extend(all.filter(|found| found.score > filter.conf));
    }

    /// As [`Decoder::top_k`], but for boxes that don't reach the threshold.
    pub(crate) fn top_k(&self, decoder: &Decoder<'_>, image: usize, mut emit: impl FnMut(Candidate)) {
        let mut ranked: Vec<_> = self.rows(image).map(|row| (key(row.logit), 0, row)).collect();
        // The best class of a cell comes before its others, so it is among the rows if any of them is.
        for cell in ranked.chunk_by_mut(|a, b| a.2.anchor == b.2.anchor) {
            let best = cell.iter().map(|row| row.0).max().unwrap_or(0);
            cell.iter_mut().for_each(|row| row.1 = best);
        }
        ranked.sort_by_key(|&(logit, best, _)| Reverse((logit, best)));
        ranked.iter().for_each(|(_, _, row)| emit(decoder.candidate(row)));
    }

    /// As [`Decoder::extra`], of an anchor that was found. Nothing of others.
    pub(crate) fn extra(&self, decoder: &Decoder<'_>, image: usize, anchor: usize, out: &mut Vec<f32>) {
        out.clear();
        let cell = image * self.layout.n_anchors + anchor;
        let at = self.rows.partition_point(|&row| (self.words[row + CELL] as usize) < cell);
        let row = self.rows.get(at).filter(|&&row| self.words[row + CELL] as usize == cell);
        if let Some(&row) = row {
            decoder.extra_of(&self.row(image, row), out);
        }
    }
}

/// What a device tells of a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub anchor: usize,
    pub class: u32,
    pub logit: f32,
    /// A logit; of heads without it, anything.
    pub objectness: f32,
    /// What the head's regression gives, distributions as their means.
    pub sides: [f32; 4],
    /// The raw values that come with the box.
    pub extra: &'a [f32],
}

/// A number above zero that grows with the value of a logit, as `found.wgsl` has it: the same for both zeros, and for
/// NaN and negative infinity.
fn key(logit: f32) -> u32 {
    const SIGN: u32 = 1 << 31;
    let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit + 0.0 };
    let bits = logit.to_bits();
    if bits < SIGN { bits | SIGN } else { !bits }
}
