//! Heads that say something of the whole picture or of every pixel: `Classify`, `SemanticSegment` and `Depth`.

use ferroyolo_kernels::Activation;

use super::{ModuleNode, build_single};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Conv2d, ConvWeights, GlobalAvgPool, Op, ResizeBilinear};
use crate::results::Task;
use crate::weights::Document;

/// A head that gives one map, as a value of the graph.
#[derive(Clone, Debug)]
pub(crate) struct MapHead {
    /// Path of the module, for errors.
    at: String,
    /// `[N, C, H, W]`: classes of one cell, classes of many cells, or one channel of raw depths.
    pub map: ValueId,
    pub kind: MapKind,
    /// What the model file says; input sides are multiples of the largest.
    pub strides: Vec<usize>,
}

/// What the map means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MapKind {
    /// One logit per class for the picture.
    Classes,
    /// One logit per class for each cell.
    Semantic,
    /// The distance in metres is `exp(a * x + b)` for `x` clamped to [`DEPTH_RANGE`].
    Depth { a: f32, b: f32 },
}

/// Range of raw depths.
pub(crate) const DEPTH_RANGE: [f32; 2] = [-4.0, 5.0];

impl MapHead {
    /// What the head is for.
    pub(crate) fn task(&self) -> Task {
        match self.kind {
            MapKind::Classes => Task::Classify,
            MapKind::Semantic => Task::Semantic,
            MapKind::Depth { .. } => Task::Depth,
        }
    }

    /// Errors unless a map of many cells is a whole fraction of an input of `[h, w]`, the same in both directions.
    pub(crate) fn check_size(&self, [h, w]: [usize; 2], size: Option<[usize; 2]>) -> Result<()> {
        let Some([rows, columns]) = size.filter(|_| self.kind != MapKind::Classes) else { return Ok(()) };
        let whole = rows > 0 && columns > 0 && h.is_multiple_of(rows) && w.is_multiple_of(columns);
        if whole && h / rows == w / columns {
            return Ok(());
        }
        Err(Error::shape(&self.at, format!("a map of {rows}x{columns} cells for an input of {h}x{w}")))
    }
}

/// `linear(mean(conv(x)))`. The drop-out before the linear layer is for training only.
pub(super) fn build_classify(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<MapHead> {
    let x = if inputs.len() == 1 { inputs[0] } else { b.concat(m.path(), inputs)? };
    let features = build_single(b, &m.child("conv")?, x)?;
    let mean = build_pool(b, &m.child("pool")?, features)?;
    let map = build_linear(b, &m.child("linear")?, mean)?;
    finish(b, m, document, map, MapKind::Classes)
}

/// `classifier` of the finest level; the coarser ones were for training.
pub(super) fn build_semantic(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<MapHead> {
    let &finest = inputs.first().ok_or_else(|| Error::shape(m.path(), "got no levels"))?;
    let map = build_single(b, &m.child("classifier")?, finest)?;
    finish(b, m, document, map, MapKind::Semantic)
}

/// From the coarsest level on: enlarged, plus the next one, refined; then `head`.
pub(super) fn build_depth(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    inputs: &[ValueId],
    document: &Document,
) -> Result<MapHead> {
    let (proj, refine) = (m.child("proj")?, m.child("refine")?);
    let level =
        |b: &mut Builder<'_>, idx: usize| build_single(b, &proj.child(&idx.to_string())?, inputs[idx]);
    let last = inputs.len().checked_sub(1).ok_or_else(|| Error::shape(m.path(), "got no levels"))?;
    let mut x = level(b, last)?;
    for idx in (0..last).rev() {
        let enlarge = Op::ResizeBilinear(ResizeBilinear { factor: 2, align_corners: true });
        let enlarged = b.push(m.path(), enlarge, &[x])?;
        let finer = level(b, idx)?;
        let sum = b.add(m.path(), finer, enlarged)?;
        x = build_single(b, &refine.child(&idx.to_string())?, sum)?;
    }
    let map = build_single(b, &m.child("head")?, x)?;
    let mut number = |name: &str| -> Result<f32> {
        let path = format!("{}.{name}", m.path());
        let value = b.take_optional(&path, &[1])?;
        value.map(|value| value[0]).ok_or_else(|| Error::weights(path, "missing from the file"))
    };
    let kind = MapKind::Depth { a: number("cal_a")?, b: number("cal_b")? };
    finish(b, m, document, map, kind)
}

/// The head, once its map has the expected number of channels.
fn finish(
    b: &Builder<'_>,
    m: &ModuleNode<'_>,
    document: &Document,
    map: ValueId,
    kind: MapKind,
) -> Result<MapHead> {
    let expected = if matches!(kind, MapKind::Depth { .. }) { 1 } else { document.names.len() };
    let (got, what) = (b.channels(map), if expected == 1 { "channel" } else { "channels of classes" });
    if got != expected {
        return Err(Error::shape(m.path(), format!("gives {got} channels, expected {expected} {what}")));
    }
    Ok(MapHead { at: m.path().to_owned(), map, kind, strides: document.stride.clone() })
}

/// The mean of the whole map.
fn build_pool(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    if m.class() != "AdaptiveAvgPool2d" || m.pair("output_size")? != [1, 1] {
        return Err(Error::unsupported(
            m.path(),
            format!("a {:?} where the mean of the map is expected", m.class()),
        ));
    }
    b.push(m.path(), Op::GlobalAvgPool(GlobalAvgPool), &[x])
}

/// A `Linear` layer of a map of one cell: a convolution of that cell.
fn build_linear(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    if m.class() != "Linear" {
        return Err(Error::unsupported(m.path(), format!("a {:?} where a Linear is expected", m.class())));
    }
    let conv = Conv2d {
        in_channels: m.usize("in_features")?,
        out_channels: m.usize("out_features")?,
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        groups: 1,
        activation: Activation::None,
        weights: 0,
    };
    if conv.in_channels != b.channels(x) || conv.out_channels == 0 {
        return Err(Error::shape(
            m.path(),
            format!("got {} features, expected {}", b.channels(x), conv.in_channels),
        ));
    }
    let (n_in, n_out) = (conv.in_channels, conv.out_channels);
    let weight = b.take(&format!("{}.weight", m.path()), &[n_out, n_in])?;
    let bias = b.take_optional(&format!("{}.bias", m.path()), &[n_out])?;
    let weights = ConvWeights { weight, bias: bias.unwrap_or_else(|| vec![0.0; n_out]) };
    b.conv(m.path(), conv, weights, x)
}
