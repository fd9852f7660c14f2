//! Vectors in two AVX2 registers.

use std::arch::x86_64::*;

use super::F32x16;

/// Two `ymm` registers. A value exists only where AVX2 and FMA were detected.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// Eight lanes set, eight clear: a window of eight on it is a mask for `n` lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Masks of the lower and the upper register for the first `n` of 16 lanes.
#[inline(always)]
unsafe fn masks(n: usize) -> (__m256i, __m256i) {
    debug_assert!(n <= 16);
    let (low, high) = (n.min(8), n.saturating_sub(8).min(8));
    // SAFETY: the caller vouches for the instruction set; both windows of eight lie inside the table.
    unsafe {
        let at = |n: usize| _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast());
        (at(low), at(high))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sum8(x: __m256) -> f32 {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn max8(x: __m256) -> f32 {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
    }
}

// SAFETY: loads and stores touch exactly the elements that they name; masked lanes are not accessed.
unsafe impl F32x16 for Avx2 {
    // Six pixels: 12 accumulators, 2 weights and 1 broadcast fit the 16 registers.
    const TILES: [usize; 4] = [6, 0, 0, 0];
    const DEPTHWISE_TILE: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        let x = unsafe { _mm256_set1_ps(x) };
        Avx2(x, x)
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 16 elements.
        unsafe { Avx2(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller vouches for the instruction set and for `n` elements; the others are masked, and the
        // address of the upper half is computed without claiming that it lies in the same object.
        unsafe {
            let (low, high) = masks(n);
            Avx2(_mm256_maskload_ps(p, low), _mm256_maskload_ps(p.wrapping_add(8), high))
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        // SAFETY: the caller vouches for `n` elements; the others are masked, and the address of the upper half is
        // computed without claiming that it lies in the same object.
        unsafe {
            let (low, high) = masks(n);
            _mm256_maskstore_ps(p, low, self.0);
            _mm256_maskstore_ps(p.wrapping_add(8), high, self.1);
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` exists, so the CPU has the instruction set.
        unsafe { Avx2(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn mul_sub(self, b: Self, c: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_fmsub_ps(self.0, b.0, c.0), _mm256_fmsub_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(_mm256_round_ps::<MODE>(self.0), _mm256_round_ps::<MODE>(self.1)) }
    }

    #[inline(always)]
    fn scale_exp2(self, n: Self) -> Self {
        // SAFETY: as in `mul_add`.
        unsafe { Avx2(scale8(self.0, n.0), scale8(self.1, n.1)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe { sum8(_mm256_add_ps(self.0, self.1)) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `mul_add`.
        unsafe {
            let least = _mm256_set1_ps(f32::NEG_INFINITY);
            max8(_mm256_max_ps(_mm256_max_ps(self.0, least), _mm256_max_ps(self.1, least)))
        }
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scale8(x: __m256, n: __m256) -> __m256 {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
        _mm256_mul_ps(x, _mm256_castsi256_ps(bits))
    }
}
