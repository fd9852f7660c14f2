//! Functions of single elements.

/// What is applied to each element of a result.
///
/// NaN stays NaN under every activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `x * sigmoid(x)`
    Silu,
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

/// `1 / (1 + exp(-x))`; NaN stays NaN.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn apply(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::None => x,
        Activation::Silu => x * sigmoid(x),
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Sigmoid => sigmoid(x),
    }
}
