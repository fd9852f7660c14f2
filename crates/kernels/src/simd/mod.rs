//! Vectors of 16 `f32`, and the way from an [`Isa`] to code compiled for it.
//!
//! An algorithm is a [`Kernel`], written once over [`F32x16`]. [`Isa::run`] instantiates it inside a function that has
//! the instruction set's features enabled. Everything below must be `#[inline(always)]`, closures included, or it
//! would be compiled without those features.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub(crate) use math::{EXP_LIMIT, EXP2_POLY, LOG2_E, activate, apply, exp};
pub(crate) use scalar::Scalar;

use crate::Isa;
use crate::isa::Kind;

/// How many `f32` a vector has.
pub(crate) const LANES: usize = 16;

/// 16 `f32`.
///
/// # Safety
///
/// A value may be made (`splat`, `load`, `load_partial`) only on a CPU that has the instruction set; the other methods
/// are safe because they start from a value. Implementations must not touch memory beyond what each method names.
pub(crate) unsafe trait F32x16: Copy {
    /// Output pixels of the widest convolution tile with 1, 2, 3 and 4 blocks of output channels; 0 where that many
    /// blocks do not fit the registers.
    const TILES: [usize; 4];

    /// Output pixels of the widest tile of one block in a depthwise convolution, a power of two up to 8.
    const DEPTHWISE_TILE: usize;

    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// The CPU has the instruction set; `p` is valid for reading 16 elements.
    unsafe fn load(p: *const f32) -> Self;
    /// The first `n` elements, zero for the others.
    ///
    /// # Safety
    /// The CPU has the instruction set; `p` is valid for reading `n` elements; `n <= 16`.
    unsafe fn load_partial(p: *const f32, n: usize) -> Self;
    /// # Safety
    /// `p` is valid for writing 16 elements.
    unsafe fn store(self, p: *mut f32);
    /// Writes the first `n` elements and touches nothing else.
    ///
    /// # Safety
    /// `p` is valid for writing `n` elements; `n <= 16`.
    unsafe fn store_partial(self, p: *mut f32, n: usize);

    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self * b - c`, rounded once.
    fn mul_sub(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// `if self > b { self } else { b }`, so `b` wherever one is NaN.
    fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`, so `b` wherever one is NaN.
    fn min(self, b: Self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// `self * 2^n` for `n` a vector of integers between -126 and 127; NaN in `self` stays NaN.
    fn scale_exp2(self, n: Self) -> Self;
    /// The sum, in an order that all instruction sets share: halves are added to each other until one is left.
    fn sum(self) -> f32;
    /// The largest element that is not NaN; negative infinity if all are.
    fn largest(self) -> f32;
}

/// An algorithm over vectors.
pub(crate) trait Kernel {
    /// Runs it. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`, and whatever the kernel's constructor asks for holds.
    unsafe fn run<V: F32x16>(self);
}

impl Isa {
    /// [`F32x16::DEPTHWISE_TILE`] of this instruction set.
    pub(crate) fn depthwise_tile(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => avx512::Avx512::DEPTHWISE_TILE,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2::Avx2::DEPTHWISE_TILE,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::Neon::DEPTHWISE_TILE,
            Kind::Scalar => Scalar::DEPTHWISE_TILE,
        }
    }

    /// [`F32x16::TILES`] of this instruction set.
    pub(crate) fn tiles(self) -> [usize; 4] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => avx512::Avx512::TILES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2::Avx2::TILES,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::Neon::TILES,
            Kind::Scalar => Scalar::TILES,
        }
    }

    /// Runs a kernel with this instruction set.
    ///
    /// # Safety
    /// Whatever the kernel's constructor asks for holds.
    #[inline]
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: an `Isa` exists only where detection found its features; the caller vouches for the kernel.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => run_avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => run_neon(kernel),
                Kind::Scalar => kernel.run::<Scalar>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) {
    // SAFETY: this function is called only where these features were detected.
    unsafe { kernel.run::<avx512::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) {
    // SAFETY: this function is called only where these features were detected.
    unsafe { kernel.run::<avx2::Avx2>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: Kernel>(kernel: K) {
    // SAFETY: this function is called only where the feature was detected.
    unsafe { kernel.run::<neon::Neon>() }
}
