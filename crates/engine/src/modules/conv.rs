//! `Conv` and its relatives: a convolution and an activation, the batch norm folded in by the converter; and the
//! transposed ones.

use ferroyolo_kernels::Activation;

use super::ModuleNode;
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{Conv2d, ConvTranspose2d};

/// Kernel sides, strides and channel counts beyond these are errors rather than allocations.
const MAX_KERNEL: usize = 31;
const MAX_CHANNELS: usize = 65_536;

/// `act(conv(x))`.
pub(super) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let activation = match m.find("act") {
        Some(act) => activation(&act)?,
        None => Activation::None,
    };
    convolve(b, &m.child("conv")?, activation, x)
}

/// A `Conv2d` without activation.
pub(super) fn build_plain(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    convolve(b, m, Activation::None, x)
}

/// `ConvTranspose`: `act(conv_transpose(x))`.
pub(super) fn build_transposed(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let activation = m.find("act").map_or(Ok(Activation::None), |act| activation(&act))?;
    transpose(b, &m.child("conv_transpose")?, activation, x)
}

/// A `ConvTranspose2d` without activation.
pub(super) fn build_plain_transposed(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    transpose(b, m, Activation::None, x)
}

fn transpose(b: &mut Builder<'_>, m: &ModuleNode<'_>, activation: Activation, x: ValueId) -> Result<ValueId> {
    if m.class() != "ConvTranspose2d" {
        let message = format!("a {:?} where a ConvTranspose2d is expected", m.class());
        return Err(Error::unsupported(m.path(), message));
    }
    let (in_channels, out_channels) = (m.usize("in_channels")?, m.usize("out_channels")?);
    let kernel = m.pair("kernel_size")?;
    let or = |name: &str, default: usize| m.attr(name).map_or(Ok([default; 2]), |_| m.pair(name));
    let is_tiling = m.pair("stride")? == kernel
        && or("padding", 0)? == [0, 0]
        && or("output_padding", 0)? == [0, 0]
        && or("dilation", 1)? == [1, 1]
        && or("groups", 1)? == [1, 1];
    if !is_tiling {
        return Err(Error::unsupported(
            m.path(),
            "a transposed convolution whose windows overlap, are apart, padded or grouped",
        ));
    }
    let in_range = |value: usize, max: usize| (1..=max).contains(&value);
    if ![in_channels, out_channels].into_iter().all(|n| in_range(n, MAX_CHANNELS))
        || !kernel.into_iter().all(|k| in_range(k, MAX_KERNEL))
    {
        let message = format!("a transposed convolution from {in_channels} to {out_channels} by {kernel:?}");
        return Err(Error::format(m.path(), message));
    }
    let weights = b.take_conv_transpose(m.path(), [in_channels, out_channels, kernel[0], kernel[1]])?;
    b.conv_transpose(
        m.path(),
        ConvTranspose2d { in_channels, out_channels, kernel, activation, weights: 0 },
        weights,
        x,
    )
}

fn convolve(b: &mut Builder<'_>, m: &ModuleNode<'_>, activation: Activation, x: ValueId) -> Result<ValueId> {
    let conv = attributes(m, activation)?;
    let weights = b.take_conv(m.path(), weight_shape(&conv))?;
    b.conv(m.path(), conv, weights, x)
}

/// `[out, in / groups, kh, kw]`
pub(super) fn weight_shape(conv: &Conv2d) -> [usize; 4] {
    [conv.out_channels, conv.in_channels / conv.groups, conv.kernel[0], conv.kernel[1]]
}

/// What a `Conv2d` module says of itself.
pub(super) fn attributes(m: &ModuleNode<'_>, activation: Activation) -> Result<Conv2d> {
    if m.class() != "Conv2d" {
        return Err(Error::unsupported(m.path(), format!("a {:?} where a Conv2d is expected", m.class())));
    }
    let conv = Conv2d {
        in_channels: m.usize("in_channels")?,
        out_channels: m.usize("out_channels")?,
        kernel: m.pair("kernel_size")?,
        stride: m.pair("stride")?,
        padding: m.pair("padding")?,
        groups: m.usize("groups")?,
        activation,
        weights: 0,
    };
    if m.attr("dilation").is_some() && m.pair("dilation")? != [1, 1] {
        return Err(Error::unsupported(m.path(), "a dilated convolution"));
    }
    if m.attr("padding_mode").is_some() && m.text("padding_mode")? != "zeros" {
        return Err(Error::unsupported(m.path(), "a convolution that pads with other values than zero"));
    }
    let in_range = |value: usize, max: usize| (1..=max).contains(&value);
    let fits = in_range(conv.in_channels, MAX_CHANNELS)
        && in_range(conv.out_channels, MAX_CHANNELS)
        && conv.kernel.iter().all(|&k| in_range(k, MAX_KERNEL))
        && conv.stride.iter().all(|&s| in_range(s, MAX_KERNEL))
        && conv.padding.iter().zip(conv.kernel).all(|(&p, k)| p < k)
        && in_range(conv.groups, conv.in_channels)
        && conv.in_channels.is_multiple_of(conv.groups)
        && conv.out_channels.is_multiple_of(conv.groups);
    if !fits {
        return Err(Error::format(m.path(), format!("a convolution that makes no sense: {conv:?}")));
    }
    Ok(conv)
}

/// The activation that a module stands for.
pub(super) fn activation(m: &ModuleNode<'_>) -> Result<Activation> {
    match m.class() {
        "SiLU" => Ok(Activation::Silu),
        "ReLU" => Ok(Activation::Relu),
        "Identity" => Ok(Activation::None),
        class => Err(Error::unsupported(m.path(), format!("no activation of class {class:?}"))),
    }
}
