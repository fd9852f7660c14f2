//! How far raw outputs are from PyTorch's.

use std::collections::BTreeMap;
use std::fmt;

use ferroyolo::{Isa, Model, ModelOptions, Tensor, TensorView};

use crate::{BOX_TOLERANCE_PX, OTHER_TOLERANCE, SCORE_TOLERANCE};

/// The largest differences of all raw outputs of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Coordinates of boxes and keypoints, in pixels of the input.
    pub pixels: Option<f32>,
    /// Scores and visibilities.
    pub scores: Option<f32>,
    /// Prototypes, mask coefficients, angles, logits of cells, metres.
    pub others: Option<f32>,
    /// Rows of the one-to-one head that have no counterpart.
    pub n_unmatched: usize,
}

/// What sort of number an output is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Pixels,
    Score,
    Other,
}

impl Kind {
    fn tolerance(self) -> f32 {
        match self {
            Self::Pixels => BOX_TOLERANCE_PX,
            Self::Score => SCORE_TOLERANCE,
            Self::Other => OTHER_TOLERANCE,
        }
    }
}

impl Agreement {
    /// The larger of each difference.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        let larger = |a: Option<f32>, b: Option<f32>| if a > b { a } else { b };
        Self {
            pixels: larger(self.pixels, other.pixels),
            scores: larger(self.scores, other.scores),
            others: larger(self.others, other.others),
            n_unmatched: self.n_unmatched.max(other.n_unmatched),
        }
    }

    /// Whether every difference is within its tolerance.
    #[must_use]
    pub fn is_close(&self) -> bool {
        let within = |difference: Option<f32>, tolerance| difference.is_none_or(|got| got <= tolerance);
        within(self.pixels, BOX_TOLERANCE_PX)
            && within(self.scores, SCORE_TOLERANCE)
            && within(self.others, OTHER_TOLERANCE)
            && self.n_unmatched == 0
    }

    fn add(&mut self, kind: Kind, got: f32, want: f32) {
        let difference = (got - want).abs();
        let difference = if difference.is_nan() { f32::INFINITY } else { difference };
        let slot = match kind {
            Kind::Pixels => &mut self.pixels,
            Kind::Score => &mut self.scores,
            Kind::Other => &mut self.others,
        };
        *slot = Some(slot.map_or(difference, |largest| largest.max(difference)));
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f32>| value.map_or("none".to_owned(), |value| format!("{value:.1e}"));
        let (pixels, scores, others) = (number(self.pixels), number(self.scores), number(self.others));
        write!(f, "{pixels} px, scores {scores}, others {others}, {} rows unmatched", self.n_unmatched)
    }
}

/// Every instruction set with one and with three threads.
pub fn configurations() -> impl Iterator<Item = ModelOptions> {
    Isa::available().into_iter().flat_map(|isa| {
        [1, 3].map(|threads| ModelOptions {
            isa: Some(isa),
            threads: Some(threads),
            ..ModelOptions::default()
        })
    })
}

/// Runs a model on the golden's `images` and compares all that it gives with the golden's other tensors.
///
/// Panics if it can't be run, or if an output is missing, not expected, or of another shape.
#[must_use]
pub fn agreement(model: &Model, golden: &BTreeMap<String, Tensor>) -> Agreement {
    let mut session = model.session();
    let outputs = session.run(&golden["images"]).unwrap_or_else(|error| panic!("{error}"));
    let mut differences = Agreement::default();
    let given = [("output0", outputs.output0()), ("one2one", outputs.one2one()), ("proto", outputs.proto())];
    for (name, got) in given {
        let (got, want) = match (got, golden.get(name)) {
            (Some(got), Some(want)) => (got, want),
            (None, None) => continue,
            (got, _) => panic!("{name}: {} be there", if got.is_some() { "should not" } else { "should" }),
        };
        assert_eq!(got.shape, want.shape(), "{name}");
        match (name, got.shape) {
            ("one2one", _) => compare_rows(model, got, want, &mut differences),
            ("output0", &[_, channels, anchors]) => {
                for (idx, (&got, &want)) in got.data.iter().zip(want.data()).enumerate() {
                    differences.add(output0_kind(model, idx / anchors % channels), got, want);
                }
            }
            (_, shape) => {
                let kind = if name == "output0" && shape.len() == 2 { Kind::Score } else { Kind::Other };
                got.data.iter().zip(want.data()).for_each(|(&got, &want)| differences.add(kind, got, want));
            }
        }
    }
    differences
}

/// What a channel of the raw output of a head with anchors is.
fn output0_kind(model: &Model, channel: usize) -> Kind {
    let n_classes = model.n_classes();
    match channel {
        0..4 => Kind::Pixels,
        _ if channel < 4 + n_classes => Kind::Score,
        _ => extra_kind(model, channel - 4 - n_classes),
    }
}

/// What a value that comes with a box is.
fn extra_kind(model: &Model, idx: usize) -> Kind {
    match model.kpt_shape() {
        Some([_, values]) if idx % values < 2 => Kind::Pixels,
        Some(_) => Kind::Score,
        None => Kind::Other,
    }
}

/// Rows with nearly equal scores may stand in any order, so each row is held against the closest one that is free.
fn compare_rows(model: &Model, got: TensorView<'_>, want: &Tensor, differences: &mut Agreement) {
    let row_len = got.shape[2];
    let kind = |idx: usize| match idx {
        0..4 => Kind::Pixels,
        4 => Kind::Score,
        _ => extra_kind(model, idx - 6),
    };
    // In units of the tolerances; the class has to be the same.
    let distance = |a: &[f32], b: &[f32]| {
        let of = |idx: usize| (a[idx] - b[idx]).abs() / kind(idx).tolerance();
        if a[5] == b[5] {
            (0..row_len).filter(|&idx| idx != 5).map(of).fold(0.0, f32::max)
        } else {
            f32::INFINITY
        }
    };
    let image_len = row_len * got.shape[1];
    for (got, want) in got.data.chunks_exact(image_len).zip(want.data().chunks_exact(image_len)) {
        let rows: Vec<&[f32]> = got.chunks_exact(row_len).collect();
        assert!(rows.windows(2).all(|pair| pair[0][4] >= pair[1][4]), "one2one: scores rise");
        let mut free = vec![true; rows.len()];
        let last_score = want[want.len() - row_len + 4];
        for want in want.chunks_exact(row_len) {
            let of = |idx: &usize| distance(rows[*idx], want);
            let closest = (0..rows.len()).filter(|&idx| free[idx]).min_by(|a, b| of(a).total_cmp(&of(b)));
            match closest.filter(|idx| of(idx) <= 1.0) {
                Some(row_idx) => {
                    free[row_idx] = false;
                    for idx in (0..row_len).filter(|&idx| idx != 5) {
                        differences.add(kind(idx), rows[row_idx][idx], want[idx]);
                    }
                }
                // Only where the list was cut may another box of the same score have taken the place.
                None if (want[4] - last_score).abs() <= SCORE_TOLERANCE => {}
                None => differences.n_unmatched += 1,
            }
        }
    }
}
