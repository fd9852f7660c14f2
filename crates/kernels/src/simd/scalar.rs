//! Vectors in plain code.

use super::{F32x16, LANES};

/// An array; what the compiler makes of it depends on the target's own features.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; LANES]);

/// 1.5 * 2^23: a number so large that its last bit counts as 1.
const MAGIC: f32 = 12_582_912.0;

impl Scalar {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Scalar {
        Scalar(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, b: Scalar, f: impl Fn(f32, f32) -> f32) -> Scalar {
        let mut out = self.0;
        for (x, y) in out.iter_mut().zip(b.0) {
            *x = f(*x, y);
        }
        Scalar(out)
    }

    /// Halves combined with each other until one element is left.
    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut x = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] = f(x[i], x[i + half]);
            }
        }
        x[0]
    }
}

// SAFETY: arrays need no instruction set; loads and stores copy exactly the elements that they name.
unsafe impl F32x16 for Scalar {
    const TILES: [usize; 4] = [4, 2, 0, 0];
    const DEPTHWISE_TILE: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Scalar([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 elements; an unaligned read needs nothing else.
        Scalar(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        let mut x = [0.0; LANES];
        // SAFETY: the caller vouches for `n` elements, and `n <= 16`.
        unsafe { p.copy_to_nonoverlapping(x.as_mut_ptr(), n) };
        Scalar(x)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        // SAFETY: the caller vouches for `n` elements, and `n <= 16`.
        unsafe { p.copy_from_nonoverlapping(self.0.as_ptr(), n) }
    }

    // Without an instruction for it a fused multiplication would be a call into the C library for every element.
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.mul(b).add(c)
    }

    #[inline(always)]
    fn mul_sub(self, b: Self, c: Self) -> Self {
        self.mul(b).sub(c)
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // Adding and taking away 1.5 * 2^23 leaves no room for a fraction; all that is rounded here is far smaller.
        self.map(|x| (x + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale_exp2(self, n: Self) -> Self {
        self.zip(n, |x, n| {
            // Adding 1.5 * 2^23 + 127 leaves n + 127 in the lowest bits; they become the exponent. Where `n` is NaN,
            // so is `x`, and the product stays NaN.
            x * f32::from_bits((n + (MAGIC + 127.0)).to_bits() << 23)
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|x, y| x + y)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(f32::max).max(f32::NEG_INFINITY)
    }
}
