//! The exponential function and the activations.

use super::F32x16;
use crate::Activation;

pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// Arguments are clamped to plus and minus this, where the exponent of the result still fits a normal number.
pub(crate) const EXP_LIMIT: f32 = 87.0;

/// `2^f = 1 + f * (p[0] + f * (p[1] + ...))` for `f` from -1/2 to 1/2, with a relative error below 1.1e-7.
///
/// Minimax by the Remez algorithm, with the constant held at 1 so that `exp(0)` is exact.
#[expect(clippy::excessive_precision, reason = "the digits that the algorithm gave")]
pub(crate) const EXP2_POLY: [f32; 5] =
    [6.931_469_776e-1, 2.402_224_209e-1, 5.550_733_743e-2, 9.671_512_64e-3, 1.326_472_722e-3];

/// `exp(x)` for `x` clamped to [`EXP_LIMIT`]; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<V: F32x16>(x: V) -> V {
    // SAFETY: `x` exists, so the CPU has the instruction set.
    unsafe {
        let x = V::splat(-EXP_LIMIT).max(V::splat(EXP_LIMIT).min(x));
        exp_scaled(x, V::splat(LOG2_E))
    }
}

/// `2^(x * log2_base)` without clamping.
#[inline(always)]
fn exp_scaled<V: F32x16>(x: V, log2_base: V) -> V {
    // SAFETY: `x` exists, so the CPU has the instruction set.
    unsafe {
        let n = x.mul(log2_base).round();
        // The product is not rounded here, so that the fraction is as good as for a small argument.
        let f = x.mul_sub(log2_base, n);
        let [p1, p2, p3, p4, p5] = EXP2_POLY;
        let p = V::splat(p5).mul_add(f, V::splat(p4));
        let p = p.mul_add(f, V::splat(p3));
        let p = p.mul_add(f, V::splat(p2));
        let p = p.mul_add(f, V::splat(p1));
        p.mul_add(f, V::splat(1.0)).scale_exp2(n)
    }
}

/// `1 + exp(-x)`, the divisor of the sigmoid.
#[inline(always)]
fn sigmoid_divisor<V: F32x16>(x: V) -> V {
    // SAFETY: `x` exists, so the CPU has the instruction set.
    unsafe {
        let x = V::splat(-EXP_LIMIT).max(V::splat(EXP_LIMIT).min(x));
        exp_scaled(x, V::splat(-LOG2_E)).add(V::splat(1.0))
    }
}

/// Applies an activation to one vector.
#[inline(always)]
pub(crate) fn apply<V: F32x16>(activation: Activation, x: V) -> V {
    // SAFETY: `x` exists, so the CPU has the instruction set.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Silu => x.div(sigmoid_divisor(x)),
            Activation::Relu => V::splat(0.0).max(x),
            Activation::Sigmoid => V::splat(1.0).div(sigmoid_divisor(x)),
        }
    }
}

/// Applies an activation to every vector of a tile, with one choice for all.
#[inline(always)]
pub(crate) fn activate<V: F32x16, const B: usize, const P: usize>(
    activation: Activation,
    tile: &mut [[V; B]; P],
) {
    macro_rules! all {
        ($activation:expr) => {
            for pixel in tile.iter_mut() {
                for x in pixel.iter_mut() {
                    *x = apply($activation, *x);
                }
            }
        };
    }
    match activation {
        Activation::None => {}
        Activation::Silu => all!(Activation::Silu),
        Activation::Relu => all!(Activation::Relu),
        Activation::Sigmoid => all!(Activation::Sigmoid),
    }
}
