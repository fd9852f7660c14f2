//! `A2C2f` and `ABlock`: area attention in a chain whose every stage is kept.
//!
//! Source: YOLO12, arXiv:2502.12524.

use ferroyolo_kernels::Activation;

use super::{ModuleNode, build_single};
use crate::error::Result;
use crate::graph::{Builder, ValueId};
use crate::ops::{Conv2d, ConvWeights};

/// `y = cv2([z, m0(z), m1(m0(z)), ...])` with `z = cv1(x)`; where a factor `gamma` was trained, `x + gamma * y`.
///
/// Without the factor the module has an attribute `gamma` that is null; with it, `gamma` is a tensor.
/// The stages are chains of `ABlock`, or `C3k` blocks.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let mut last = build_single(b, &m.child("cv1")?, x)?;
    let mut parts = vec![last];
    for stage in m.child("m")?.children() {
        last = build_single(b, &stage, last)?;
        parts.push(last);
    }
    let joined = b.concat(m.path(), &parts)?;
    let y = build_single(b, &m.child("cv2")?, joined)?;
    if m.is_none("gamma") {
        return Ok(y);
    }
    let path = format!("{}.gamma", m.path());
    let gamma = b.take(&path, &[b.channels(y)])?;
    let scaled = scale(b, &path, gamma, y)?;
    b.add(m.path(), x, scaled)
}

/// `x + attn(x)`, then `x + mlp(x)`.
pub(super) fn build_block(b: &mut Builder<'_>, m: &ModuleNode<'_>, mut x: ValueId) -> Result<ValueId> {
    for name in ["attn", "mlp"] {
        let y = build_single(b, &m.child(name)?, x)?;
        x = b.add(m.path(), x, y)?;
    }
    Ok(x)
}

/// Every channel times its factor: a depthwise convolution of single cells.
fn scale(b: &mut Builder<'_>, at: &str, factors: Vec<f32>, x: ValueId) -> Result<ValueId> {
    let channels = factors.len();
    let conv = Conv2d {
        in_channels: channels,
        out_channels: channels,
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        groups: channels,
        activation: Activation::None,
        weights: 0,
    };
    b.conv(at, conv, ConvWeights { weight: factors, bias: vec![0.0; channels] }, x)
}
