//! Dense tensors as callers see them: a shape and row-major `f32` values.

use crate::error::{Error, Result};

/// A dense row-major tensor of `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// A tensor of `shape` over `data`.
    ///
    /// Errors with `ErrorKind::Shape` unless `data` holds exactly as many values as `shape` says.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Result<Self> {
        if element_count(&shape) != Some(data.len()) {
            return Err(Error::shape(
                "tensor",
                format!("shape {shape:?} does not fit {} values", data.len()),
            ));
        }
        Ok(Self { shape, data })
    }

    /// A tensor of zeros.
    ///
    /// Errors with `ErrorKind::Limit` if the number of elements overflows.
    pub fn zeros(shape: Vec<usize>) -> Result<Self> {
        let len = element_count(&shape)
            .ok_or_else(|| Error::limit("tensor", format!("shape {shape:?} has too many elements")))?;
        Ok(Self { shape, data: vec![0.0; len] })
    }

    /// The extent of each dimension, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, last dimension fastest.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, last dimension fastest.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The same tensor, borrowed.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { shape: &self.shape, data: &self.data }
    }
}

/// A borrowed [`Tensor`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// The extent of each dimension, outermost first.
    pub shape: &'a [usize],
    /// The values, last dimension fastest.
    pub data: &'a [f32],
}

impl TensorView<'_> {
    /// A copy that owns its values.
    #[must_use]
    pub fn to_tensor(&self) -> Tensor {
        Tensor { shape: self.shape.to_vec(), data: self.data.to_vec() }
    }
}

/// The product of the extents, unless it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_values_must_agree() {
        assert!(Tensor::new(vec![2, 3], vec![0.0; 6]).is_ok());
        assert!(Tensor::new(vec![2, 3], vec![0.0; 5]).is_err());
        assert!(Tensor::new(vec![usize::MAX, 2], vec![]).is_err());
        assert!(Tensor::zeros(vec![usize::MAX, 2]).is_err());
        assert_eq!(Tensor::zeros(vec![]).expect("a scalar").data(), &[0.0]);
    }
}
