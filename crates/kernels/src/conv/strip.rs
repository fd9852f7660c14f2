//! The micro-kernel of all dense products: tiles of pixels by blocks of 16 output channels, accumulated in registers.
//!
//! Every output element is its bias, plus the products in the order of kernel row, kernel column and input channel,
//! whichever tile it falls in. A matrix product is the special case of a kernel of one pixel.

use crate::simd::{F32x16, Kernel, LANES, activate};
use crate::{Activation, Isa};

/// What all tiles of one product share; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// Rows of the kernel.
    pub(crate) kh: usize,
    /// Columns of the kernel; 1 where the columns follow each other without a gap and count as channels.
    pub(crate) kw: usize,
    /// Input channels, times the columns where `kw` is 1 for that reason.
    pub(crate) ic: usize,
    /// From a kernel row and a kernel column to the next, in the input.
    pub(crate) in_row: usize,
    pub(crate) in_column: usize,
    /// From one output's window to the next, in the input, down and across.
    pub(crate) in_step: [usize; 2],
    /// From one output pixel to the next, down and across.
    pub(crate) out_step: [usize; 2],
    pub(crate) residual_step: [usize; 2],
    /// From one block of weights to the next.
    pub(crate) weight_block: usize,
    pub(crate) activation: Activation,
}

/// Tiles of `P` pixels by `B` blocks of 16 channels, side by side in some rows.
#[derive(Clone, Copy)]
struct Strip<'a, const P: usize, const B: usize> {
    geometry: &'a Geometry,
    region: Region,
}

/// Where a strip lies.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    pub(crate) input: *const f32,
    pub(crate) weight: *const f32,
    pub(crate) bias: *const f32,
    pub(crate) output: *mut f32,
    /// Null where there is none.
    pub(crate) residual: *const f32,
    pub(crate) rows: usize,
    pub(crate) tiles: usize,
    /// Channels of the last block.
    pub(crate) last: usize,
}

impl<const P: usize, const B: usize> Kernel for Strip<'_, P, B> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        assert!(P <= V::TILES[B - 1], "a tile of {P} x {B} does not fit the registers");
        let g = self.geometry;
        let r = &self.region;
        // SAFETY: whoever made the strip vouches for the region: all windows of its pixels can be read, and all its
        // pixels can be written.
        unsafe {
            for row in 0..r.rows {
                for tile in 0..r.tiles {
                    let x = r.input.add(row * g.in_step[0] + tile * P * g.in_step[1]);
                    let y = r.output.add(row * g.out_step[0] + tile * P * g.out_step[1]);
                    let residual = if r.residual.is_null() {
                        r.residual
                    } else {
                        r.residual.add(row * g.residual_step[0] + tile * P * g.residual_step[1])
                    };
                    let mut acc = accumulate::<V, P, B>(g, x, r.weight, r.bias);
                    activate(g.activation, &mut acc);
                    store::<V, P, B>(g, acc, y, residual, r.last);
                }
            }
        }
    }
}

/// # Safety
/// The CPU has the instruction set; the windows of `P` pixels from `x` on can be read, as can `B` blocks of weights
/// and biases.
#[inline(always)]
unsafe fn accumulate<V: F32x16, const P: usize, const B: usize>(
    g: &Geometry,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
) -> [[V; B]; P] {
    // SAFETY: all offsets are those of elements that the caller vouches for.
    unsafe {
        let mut bias_blocks = [V::splat(0.0); B];
        for (b, block) in bias_blocks.iter_mut().enumerate() {
            *block = V::load(bias.add(b * LANES));
        }
        let mut acc = [bias_blocks; P];
        let mut w = weight;
        for ky in 0..g.kh {
            for kx in 0..g.kw {
                let x = x.add(ky * g.in_row + kx * g.in_column);
                for c in 0..g.ic {
                    let mut weights = [V::splat(0.0); B];
                    for (b, block) in weights.iter_mut().enumerate() {
                        *block = V::load(w.add(b * g.weight_block));
                    }
                    for (p, pixel) in acc.iter_mut().enumerate() {
                        let value = V::splat(*x.add(p * g.in_step[1] + c));
                        for (sum, weight) in pixel.iter_mut().zip(weights) {
                            *sum = value.mul_add(weight, *sum);
                        }
                    }
                    w = w.add(LANES);
                }
            }
        }
        acc
    }
}

/// Adds the residual and writes a tile.
///
/// # Safety
/// `P` pixels from `y` on can be written, and read from `residual` unless that is null; each has `B - 1` whole blocks
/// and one of `last` channels.
#[inline(always)]
unsafe fn store<V: F32x16, const P: usize, const B: usize>(
    g: &Geometry,
    acc: [[V; B]; P],
    y: *mut f32,
    residual: *const f32,
    last: usize,
) {
    // SAFETY: all offsets are those of elements that the caller vouches for; the last block is masked.
    unsafe {
        for (p, pixel) in acc.into_iter().enumerate() {
            for (b, mut value) in pixel.into_iter().enumerate() {
                let y = y.add(p * g.out_step[1] + b * LANES);
                let from = residual.wrapping_add(p * g.residual_step[1] + b * LANES);
                if b + 1 < B || last == LANES {
                    if !residual.is_null() {
                        value = value.add(V::load(from));
                    }
                    value.store(y);
                } else {
                    if !residual.is_null() {
                        value = value.add(V::load_partial(from, last));
                    }
                    value.store_partial(y, last);
                }
            }
        }
    }
}

/// Runs a strip of tiles of `p` pixels by `b` blocks.
///
/// # Safety
/// See [`Strip`]'s kernel.
pub(crate) unsafe fn run_strip(isa: Isa, p: usize, b: usize, geometry: &Geometry, region: Region) {
    macro_rules! strips {
        ($($b:literal: $($p:literal)*;)*) => {
            match (b, p) {
                // SAFETY: handed on to the caller.
                $($(($b, $p) => unsafe { isa.run(Strip::<$p, $b> { geometry, region }) },)*)*
                _ => unreachable!("no tile of {p} x {b}"),
            }
        };
    }
    strips! {
        1: 1 2 3 4 5 6 7 8;
        2: 1 2 3 4 5 6 7 8;
        3: 1 2 3 4 5;
        4: 1 2 3 4;
    }
}

/// How many of the `left` blocks the next tile takes where the registers hold four.
fn wanted(left: usize) -> usize {
    match left {
        0..=4 => left,
        // Two and three are better than four and one.
        5 => 2,
        _ => 4,
    }
}

/// How many of the `left` blocks the next tile takes on an instruction set with these tiles.
pub(crate) fn group(left: usize, max_tiles: [usize; 4]) -> usize {
    (1..=wanted(left)).rev().find(|b| max_tiles[b - 1] > 0).expect("there are tiles of one block")
}

/// Cuts a row into tiles of at most `max` pixels that differ by one at most: `(first pixel, tiles, pixels of a tile)`.
pub(crate) fn tiling(width: usize, max: usize) -> [(usize, usize, usize); 2] {
    let n = width.div_ceil(max);
    let (small, wider) = (width / n, width % n);
    [(0, wider, small + 1), (wider * (small + 1), n - wider, small)]
}

/// A product of `[rows, inner]` and `[inner, columns]`, the latter packed as `[block of 16 columns][inner][16]`.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    pub(crate) x: *const f32,
    /// From one row to the next.
    pub(crate) x_step: usize,
    pub(crate) weight: *const f32,
    pub(crate) y: *mut f32,
    pub(crate) y_step: usize,
}

/// A bias of nothing for as many blocks as the widest tile has.
static NO_BIAS: [f32; 4 * LANES] = [0.0; 4 * LANES];

/// Multiplies two matrices on this thread.
///
/// # Safety
/// `x` can be read and `y` written as the shape says, `weight` is padded to whole blocks of columns, and nobody else
/// uses what is written.
pub(crate) unsafe fn multiply(isa: Isa, m: &Matrix) {
    let geometry = Geometry {
        kh: 1,
        kw: 1,
        ic: m.inner,
        in_row: 0,
        in_column: 0,
        in_step: [0, m.x_step],
        out_step: [0, m.y_step],
        residual_step: [0, 0],
        weight_block: m.inner * LANES,
        activation: Activation::None,
    };
    let max_tiles = isa.tiles();
    let n_blocks = m.columns.div_ceil(LANES);
    let mut block = 0;
    while block < n_blocks {
        let b = group(n_blocks - block, max_tiles);
        let column = block * LANES;
        for (row, tiles, p) in tiling(m.rows, max_tiles[b - 1]) {
            if tiles > 0 {
                // SAFETY: handed on to the caller.
                unsafe {
                    let region = Region {
                        input: m.x.add(row * m.x_step),
                        weight: m.weight.add(block * geometry.weight_block),
                        bias: NO_BIAS.as_ptr(),
                        output: m.y.add(row * m.y_step + column),
                        residual: std::ptr::null(),
                        rows: 1,
                        tiles,
                        last: (m.columns - (column + (b - 1) * LANES)).min(LANES),
                    };
                    run_strip(isa, p, b, &geometry, region);
                }
            }
        }
        block += b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_row() {
        for max in 1..=8 {
            for width in 1..50 {
                let [(a, n_a, p_a), (b, n_b, p_b)] = tiling(width, max);
                assert_eq!((a, b), (0, n_a * p_a));
                assert_eq!(n_a * p_a + n_b * p_b, width);
                assert!((n_a == 0 || p_a <= max) && p_b <= max && p_b > 0);
            }
        }
    }
}
