//! The blocks of YOLOX: Focus stem, CSP layers, depthwise-separable convolutions, pooling pyramid.
//!
//! Source: YOLOX, arXiv:2107.08430.

use super::{ModuleNode, bottleneck, build_single, c3, conv};
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Conv2d, ConvWeights, MaxPool2d, Op};

/// The four pixels of each 2x2 square become channels (top left, bottom left, top right, bottom right), then `conv`.
///
/// Built as one convolution of twice the kernel and twice the stride on the picture itself: the same sums.
pub(super) fn build_focus(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let block = m.child("conv")?;
    let module = block.child("conv")?;
    let inner = conv::attributes(&module, conv::activation(&block.child("act")?)?)?;
    let channels = b.channels(x);
    if inner.in_channels != 4 * channels || inner.groups != 1 {
        return Err(Error::shape(
            module.path(),
            format!("got {} input channels, expected {}", inner.in_channels, 4 * channels),
        ));
    }
    let weights = b.take_conv(module.path(), conv::weight_shape(&inner))?;
    let (conv, weights) = unfocus(&inner, &weights);
    b.conv(module.path(), conv, weights, x)
}

/// The convolution on pixels that equals `inner` on squares of four pixels.
fn unfocus(inner: &Conv2d, weights: &ConvWeights) -> (Conv2d, ConvWeights) {
    let double = |[a, b]: [usize; 2]| [2 * a, 2 * b];
    let outer = Conv2d {
        in_channels: inner.in_channels / 4,
        kernel: double(inner.kernel),
        stride: double(inner.stride),
        padding: double(inner.padding),
        ..inner.clone()
    };
    let [kh, kw] = outer.kernel;
    let mut weight = vec![0.0; weights.weight.len()];
    for (idx, value) in weight.iter_mut().enumerate() {
        let (o, c) = (idx / (outer.in_channels * kh * kw), idx / (kh * kw) % outer.in_channels);
        let (y, x) = (idx / kw % kh, idx % kw);
        // Within a square the order is column by column.
        let square = x % 2 * 2 + y % 2;
        let channel = square * outer.in_channels + c;
        *value = weights.weight
            [((o * inner.in_channels + channel) * inner.kernel[0] + y / 2) * inner.kernel[1] + x / 2];
    }
    (outer, ConvWeights { weight, bias: weights.bias.clone() })
}

/// `pconv(dconv(x))`.
pub(super) fn build_depthwise_separable(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    x: ValueId,
) -> Result<ValueId> {
    let hidden = build_single(b, &m.child("dconv")?, x)?;
    build_single(b, &m.child("pconv")?, hidden)
}

/// `conv3([m(conv1(x)), conv2(x)])`.
pub(super) fn build_csp_layer(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    c3::build_named(b, m, x, ["conv1", "conv2", "conv3"])
}

/// `conv2(conv1(x))`, plus `x` if `use_add`.
pub(super) fn build_bottleneck(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    bottleneck::build_named(b, m, x, ["conv1", "conv2", "use_add"])
}

/// `conv2([z, pools of z])` with `z = conv1(x)`.
pub(super) fn build_spp_bottleneck(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let z = build_single(b, &m.child("conv1")?, x)?;
    let mut parts = vec![z];
    for kernel in m.usizes("kernel_sizes")? {
        if kernel % 2 == 0 || kernel > 64 {
            return Err(Error::unsupported(
                m.path(),
                format!("a pool of {kernel}, expected an odd size up to 63"),
            ));
        }
        let pool = MaxPool2d { kernel, stride: 1, padding: kernel / 2 };
        parts.push(b.push(m.path(), Op::MaxPool2d(pool), &[z])?);
    }
    let joined = b.concat(m.path(), &parts)?;
    build_single(b, &m.child("conv2")?, joined)
}

/// One level of the head: stem, then separate convolutions for classes and boxes.
///
/// Returns class logits, raw boxes and objectness logits.
pub(super) fn build_head_level(
    b: &mut Builder<'_>,
    m: &ModuleNode<'_>,
    level: usize,
    x: ValueId,
) -> Result<[ValueId; 3]> {
    let name = level.to_string();
    let part = |list: &str| m.child(list)?.child(&name);
    let stem = build_single(b, &part("stems")?, x)?;
    let classes = build_single(b, &part("cls_convs")?, stem)?;
    let boxes = build_single(b, &part("reg_convs")?, stem)?;
    Ok([
        build_single(b, &part("cls_preds")?, classes)?,
        build_single(b, &part("reg_preds")?, boxes)?,
        build_single(b, &part("obj_preds")?, boxes)?,
    ])
}
