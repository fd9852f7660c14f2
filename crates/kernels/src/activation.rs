//! Functions of single elements.

use crate::simd::{EXP_LIMIT, EXP2_POLY, LOG2_E};

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

/// `1 / (1 + exp(-x))`, to the bit what [`Activation::Sigmoid`] gives on an instruction set with fused
/// multiplications; NaN stays NaN.
pub fn sigmoid(x: f32) -> f32 {
    let x = x.clamp(-EXP_LIMIT, EXP_LIMIT);
    let n = (x * -LOG2_E).round_ties_even();
    let f = x.mul_add(-LOG2_E, -n);
    let [p1, p2, p3, p4, p5] = EXP2_POLY;
    let p = p5.mul_add(f, p4).mul_add(f, p3).mul_add(f, p2).mul_add(f, p1).mul_add(f, 1.0);
    // `as` makes an exponent of NaN too, but then `p` is NaN.
    let exp = p * f32::from_bits(((n as i32 + 127) as u32) << 23);
    1.0 / (exp + 1.0)
}
