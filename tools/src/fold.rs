//! Batch normalisation and parallel branches, folded into single convolutions.
//!
//! A batch norm after a convolution becomes a factor and an offset for each output channel. The kernel itself is left
//! as it was trained, so half-precision kernels lose nothing. Only branches that are summed (RepConv, RepVGGDW)
//! change the kernel. All of it is computed in `f64`.

use std::borrow::Cow;

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

/// The sum of parallel convolutions with odd, centred kernels, as one convolution of the size of the first.
pub(crate) struct Sum<'a> {
    branches: &'a [Branch<'a>],
    bytes: Vec<Cow<'a, [u8]>>,
    identity: Option<&'a Affine>,
    shape: [usize; 4],
}

impl<'a> Sum<'a> {
    /// Checks that the kernels fit.
    ///
    /// `identity` is a batch norm of the input itself, which needs as many inputs as outputs in each of the `groups`.
    pub(crate) fn new(
        file: &'a [u8],
        path: &str,
        branches: &'a [Branch<'a>],
        identity: Option<&'a Affine>,
        groups: usize,
    ) -> Result<Self> {
        let four = |kernel: &TensorRef| <[usize; 4]>::try_from(kernel.shape.as_slice()).ok();
        let shapes: Option<Vec<[usize; 4]>> = branches.iter().map(|branch| four(branch.kernel)).collect();
        let shapes = shapes.ok_or_else(|| Error::tensor(path, "kernels do not have four dimensions"))?;
        let [n_out, n_in, h, w] = shapes[0];
        let fits = |of: &[usize; 4]| {
            of[..2] == [n_out, n_in]
                && of[2] <= h
                && of[3] <= w
                && (h - of[2]).is_multiple_of(2)
                && (w - of[3]).is_multiple_of(2)
        };
        if !shapes.iter().all(fits) {
            return Err(Error::tensor(path, format!("kernels of shapes {shapes:?} can't be added")));
        }
        if identity.is_some() && (n_in.checked_mul(groups) != Some(n_out) || h % 2 == 0 || w % 2 == 0) {
            return Err(Error::tensor(
                path,
                format!("identity does not fit a kernel of shape {:?}", shapes[0]),
            ));
        }
        let bytes = branches.iter().map(|branch| branch.kernel.bytes(file)).collect();
        Ok(Self { branches, bytes, identity, shape: shapes[0] })
    }

    /// The kernel, element by element; one output channel at a time is in memory as `f64`.
    pub(crate) fn kernel(&self) -> impl Iterator<Item = f64> {
        (0..self.shape[0]).flat_map(|out| self.channel(out))
    }

    /// The bias.
    pub(crate) fn bias(&self) -> Vec<f64> {
        let affines = self.branches.iter().map(|branch| &branch.affine).chain(self.identity);
        affines.fold(vec![0.0; self.shape[0]], |sums, affine| {
            sums.into_iter().zip(&affine.bias).map(|(sum, addend)| sum + addend).collect()
        })
    }

    /// The kernel of one output channel.
    fn channel(&self, out: usize) -> Vec<f64> {
        let [_, n_in, h, w] = self.shape;
        let mut kernel = vec![0.0; n_in * h * w];
        for (branch, bytes) in self.branches.iter().zip(&self.bytes) {
            let (b_h, b_w) = (branch.kernel.shape[2], branch.kernel.shape[3]);
            let (top, left) = ((h - b_h) / 2, (w - b_w) / 2);
            let size = n_in * b_h * b_w * branch.kernel.ty.size();
            for (idx, value) in branch.kernel.ty.values(&bytes[out * size..][..size]).enumerate() {
                let (plane, row, column) = (idx / (b_h * b_w), idx / b_w % b_h, idx % b_w);
                kernel[(plane * h + top + row) * w + left + column] += value * branch.affine.scale[out];
            }
        }
        if let Some(identity) = self.identity {
            kernel[(out % n_in * h + h / 2) * w + w / 2] += identity.scale[out];
        }
        kernel
    }
}
