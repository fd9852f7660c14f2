//! Batch normalisation and parallel branches, folded into single convolutions.
//!
//! A batch norm after a convolution becomes a factor and an offset for each output channel. The kernel itself is left
//! as it was trained, so half-precision kernels lose nothing. Only branches that are summed (RepConv, RepVGGDW)
//! change the kernel. All of it is computed in `f64`.

use crate::error::{Error, Result};
use crate::torch::{TensorRef, TreeModule};

/// What follows a convolution: `y = conv(x) * scale + bias`, for each output channel.
pub(crate) struct Affine {
    pub(crate) scale: Vec<f64>,
    pub(crate) bias: Vec<f64>,
}

/// Reads the batch norm `bn` at `path`, which follows a convolution with `n` output channels and this bias.
///
/// `scale = gamma / sqrt(var + eps)`, `bias = beta + (conv bias - mean) * scale`.
pub(crate) fn batch_norm(
    file: &[u8],
    bn: &TreeModule,
    path: &str,
    n: usize,
    conv_bias: Option<&[f64]>,
) -> Result<Affine> {
    let eps = bn.attrs.get("eps").and_then(serde_json::Value::as_f64);
    let eps = eps.filter(|eps| *eps >= 0.0).ok_or_else(|| Error::corrupt(path, "batch norm has no eps"))?;
    let vector = |name: &str| match bn.tensor(name) {
        Some(tensor) => channel_values(file, tensor, &format!("{path}.{name}"), n).map(Some),
        None => Ok(None),
    };
    let statistic = |name: &str| {
        let missing = || Error::tensor(format!("{path}.{name}"), "batch norm has no running statistics");
        vector(name)?.ok_or_else(missing)
    };
    let (gamma, beta) = (vector("weight")?, vector("bias")?);
    let (mean, var) = (statistic("running_mean")?, statistic("running_var")?);
    let mut affine = Affine { scale: Vec::with_capacity(n), bias: Vec::with_capacity(n) };
    for channel in 0..n {
        let denominator = (var[channel] + eps).sqrt();
        if var[channel] < 0.0 || denominator == 0.0 {
            let message = format!("batch norm has a variance of {} in channel {channel}", var[channel]);
            return Err(Error::tensor(format!("{path}.running_var"), message));
        }
        let of =
            |values: &Option<Vec<f64>>, default| values.as_ref().map_or(default, |values| values[channel]);
        let scale = of(&gamma, 1.0) / denominator;
        let shift = conv_bias.map_or(0.0, |bias| bias[channel]) - mean[channel];
        affine.scale.push(scale);
        affine.bias.push(of(&beta, 0.0) + shift * scale);
    }
    Ok(affine)
}

/// The values of a tensor with one value for each of `n` channels, all of them finite.
pub(crate) fn channel_values(file: &[u8], tensor: &TensorRef, place: &str, n: usize) -> Result<Vec<f64>> {
    if tensor.shape != [n] {
        return Err(Error::tensor(place, format!("shape is {:?}, expected [{n}]", tensor.shape)));
    }
    check_finite(file, tensor, place)?;
    Ok(tensor.values(file))
}

/// Errors, naming the first bad element, if the tensor holds a NaN or an infinity.
pub(crate) fn check_finite(file: &[u8], tensor: &TensorRef, place: &str) -> Result<()> {
    if !tensor.ty.is_float() {
        return Ok(());
    }
    let bytes = tensor.bytes(file);
    match tensor.ty.values(&bytes).enumerate().find(|(_, value)| !value.is_finite()) {
        Some((idx, value)) => Err(Error::tensor(place, format!("element {idx} is {value}"))),
        None => Ok(()),
    }
}

/// A convolution kernel `[out, in / groups, kh, kw]` with what follows it; the addend of a folded sum.
pub(crate) struct Branch<'a> {
    pub(crate) kernel: &'a TensorRef,
    pub(crate) affine: Affine,
}

/// Sums parallel convolutions with odd, centred kernels into one kernel of the size of the first, and one bias.
///
/// `identity` is a batch norm of the input itself. `groups` tells where channel `o` finds its own input in the kernel.
pub(crate) fn sum_branches(
    file: &[u8],
    path: &str,
    branches: &[Branch<'_>],
    identity: Option<&Affine>,
    groups: usize,
) -> Result<(Vec<f32>, Vec<f64>)> {
    let shape = &branches[0].kernel.shape;
    let &[n_out, n_in, h, w] = shape.as_slice() else {
        return Err(Error::tensor(path, format!("kernel has the shape {shape:?}, expected four dimensions")));
    };
    let mut kernel = vec![0f64; n_out * n_in * h * w];
    let mut bias = vec![0f64; n_out];
    for branch in branches {
        let &[b_out, b_in, b_h, b_w] = branch.kernel.shape.as_slice() else {
            return Err(Error::tensor(path, format!("kernel has the shape {:?}", branch.kernel.shape)));
        };
        let fits = (b_out, b_in) == (n_out, n_in)
            && b_h <= h
            && b_w <= w
            && (h - b_h) % 2 == 0
            && (w - b_w) % 2 == 0;
        if !fits {
            let message = format!("kernels {:?} and {shape:?} can't be added", branch.kernel.shape);
            return Err(Error::tensor(path, message));
        }
        let (top, left) = ((h - b_h) / 2, (w - b_w) / 2);
        let bytes = branch.kernel.bytes(file);
        for (idx, value) in branch.kernel.ty.values(&bytes).enumerate() {
            let (plane, row, column) = (idx / (b_h * b_w), idx / b_w % b_h, idx % b_w);
            kernel[(plane * h + top + row) * w + left + column] += value * branch.affine.scale[plane / n_in];
        }
        bias.iter_mut().zip(&branch.affine.bias).for_each(|(sum, addend)| *sum += addend);
    }
    if let Some(identity) = identity {
        let per_group = n_out / groups.max(1);
        if groups == 0 || per_group == 0 || per_group != n_in || h % 2 == 0 || w % 2 == 0 {
            return Err(Error::tensor(
                path,
                format!("identity branch does not fit a kernel of shape {shape:?}"),
            ));
        }
        for (out, (scale, addend)) in identity.scale.iter().zip(&identity.bias).enumerate() {
            let plane = out * n_in + out % per_group;
            kernel[(plane * h + h / 2) * w + w / 2] += scale;
            bias[out] += addend;
        }
    }
    Ok((kernel.into_iter().map(|value| value as f32).collect(), bias))
}
