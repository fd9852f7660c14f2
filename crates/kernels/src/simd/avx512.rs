//! Vectors in one AVX-512 register.

use std::arch::x86_64::*;

use super::F32x16;

/// One `zmm` register. A value exists only where AVX-512 (f, bw, dq, vl) was detected.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

// SAFETY: loads and stores touch exactly the elements that they name; masked lanes are not accessed.
unsafe impl F32x16 for Avx512 {
    // 16 accumulators, which the compiler still keeps in registers when they are written as loops over arrays.
    const TILES: [usize; 4] = [8, 8, 5, 4];
    const DEPTHWISE_TILE: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Avx512(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 16 elements.
        Avx512(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller vouches for the instruction set and for `n` elements; the others are masked.
        Avx512(unsafe { _mm512_maskz_loadu_ps(mask(n), p) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        // SAFETY: the caller vouches for `n` elements; the others are masked.
        unsafe { _mm512_mask_storeu_ps(p, mask(n), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` exists, so the CPU has the instruction set.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn mul_sub(self, b: Self, c: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_fmsub_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn scale_exp2(self, n: Self) -> Self {
        // SAFETY: as in `mul_add`.
        Avx512(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            super::avx2::sum8(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe {
            let x = _mm512_max_ps(self.0, _mm512_set1_ps(f32::NEG_INFINITY));
            let high = _mm512_extractf32x8_ps::<1>(x);
            super::avx2::max8(_mm256_max_ps(_mm512_castps512_ps256(x), high))
        }
    }
}
