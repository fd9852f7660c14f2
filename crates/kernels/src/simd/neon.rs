//! Vectors in four NEON registers.

use std::arch::aarch64::*;

use super::{F32x16, LANES};

/// Four `q` registers. A value exists only where NEON was detected.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

impl Neon {
    /// # Safety
    /// `f` needs no feature but NEON, which `self` proves.
    #[inline(always)]
    fn zip(self, b: Neon, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Neon {
        let (a, b) = (self.0, b.0);
        Neon([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }

    /// Halves combined with each other until one register is left.
    #[inline(always)]
    fn fold(self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> float32x4_t {
        let x = self.0;
        f(f(x[0], x[2]), f(x[1], x[3]))
    }
}

// SAFETY: loads and stores touch exactly the elements that they name; partial ones go through an array.
unsafe impl F32x16 for Neon {
    // Six pixels: 24 accumulators, 4 weights and 1 broadcast fit the 32 registers.
    const TILES: [usize; 4] = [6, 3, 2, 0];
    const DEPTHWISE_TILE: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Neon([unsafe { vdupq_n_f32(x) }; 4])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 16 elements.
        unsafe { Neon([vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]) }
    }

    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        let mut x = [0.0f32; LANES];
        // SAFETY: the caller vouches for the instruction set and for `n` elements, and `n <= 16`.
        unsafe {
            p.copy_to_nonoverlapping(x.as_mut_ptr(), n);
            Self::load(x.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe {
            vst1q_f32(p, self.0[0]);
            vst1q_f32(p.add(4), self.0[1]);
            vst1q_f32(p.add(8), self.0[2]);
            vst1q_f32(p.add(12), self.0[3]);
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        let mut x = [0.0f32; LANES];
        // SAFETY: the array has 16 elements; the caller vouches for `n` at `p`, and `n <= 16`.
        unsafe {
            self.store(x.as_mut_ptr());
            p.copy_from_nonoverlapping(x.as_ptr(), n);
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        let (a, b, c) = (self.0, b.0, c.0);
        // SAFETY: `self` exists, so the CPU has the instruction set.
        unsafe {
            Neon([
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ])
        }
    }

    #[inline(always)]
    fn mul_sub(self, b: Self, c: Self) -> Self {
        // SAFETY: as in `mul_add`.
        let minus_c = self.zip(c, |_, c| unsafe { vnegq_f32(c) });
        self.mul_add(b, minus_c)
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vaddq_f32(x, y) })
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vsubq_f32(x, y) })
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vmulq_f32(x, y) })
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vdivq_f32(x, y) })
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // A comparison and a choice, because the instruction for the maximum returns NaN where one is NaN.
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vbslq_f32(vcgtq_f32(x, y), x, y) })
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(b, |x, y| unsafe { vbslq_f32(vcltq_f32(x, y), x, y) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(self, |x, _| unsafe { vrndnq_f32(x) })
    }

    #[inline(always)]
    fn scale_exp2(self, n: Self) -> Self {
        // SAFETY: as in `mul_add`.
        self.zip(n, |x, n| unsafe {
            let bits = vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
            vmulq_f32(x, vreinterpretq_f32_s32(bits))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe {
            let x = self.fold(|x, y| vaddq_f32(x, y));
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe {
            // `maxnm` takes the number where one of two is NaN.
            let x = self.fold(|x, y| vmaxnmq_f32(x, y));
            vmaxnmvq_f32(x).max(f32::NEG_INFINITY)
        }
    }
}
