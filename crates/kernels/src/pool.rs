//! Maximum pooling.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::simd::{F32x16, Kernel, LANES};
use crate::view::assert_map;
use crate::{Arena, Context, View};

/// Maximum over windows; what lies beyond the image counts as negative infinity, and the halo is never read.
///
/// NaN is left out: a window's result is the largest of its numbers, or negative infinity if it has none.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Step between windows, down and across.
    pub stride: [usize; 2],
    /// How far the first window begins above and left of the image.
    pub padding: [usize; 2],
    /// `[n, h, w, c]`
    pub input: View,
    /// `[n, out_h, out_w, c]`
    pub output: View,
}

/// Runs a maximum pooling.
///
/// Panics if the numbers of images or channels do not agree, if a stride is zero, if a view does not lie inside the
/// arena, or if output and input overlap.
pub fn max_pool2d(ctx: Context<'_>, arena: &mut Arena, op: &MaxPool2d) {
    let (input, output) = (op.input, op.output);
    assert_map(arena.len(), &input, &output);
    assert!(op.stride[0] > 0 && op.stride[1] > 0, "{op:?}");
    let data = Shared::new(arena);
    for_each_band(ctx, &output, output.w * output.c * op.kernel[0], &|image, rows| {
        for y in rows {
            let top = y * op.stride[0];
            let row = Row {
                op,
                x: data.ptr().cast_const(),
                y: data.ptr(),
                image,
                row: y,
                in_rows: [
                    top.saturating_sub(op.padding[0]).min(input.h),
                    (top + op.kernel[0]).saturating_sub(op.padding[0]).min(input.h),
                ],
            };
            // SAFETY: the views lie in the arena, apart from each other, and no other task has this row.
            unsafe {
                match (op.kernel[1], op.stride[1]) {
                    (3, 1) => ctx.isa.run(Sliding::<3>(row)),
                    (5, 1) => ctx.isa.run(Sliding::<5>(row)),
                    (9, 1) => ctx.isa.run(Sliding::<9>(row)),
                    (13, 1) => ctx.isa.run(Sliding::<13>(row)),
                    _ => ctx.isa.run(Windows(row)),
                }
            }
        }
    });
}

/// One row of the output.
#[derive(Clone, Copy)]
struct Row<'a> {
    op: &'a MaxPool2d,
    /// The arena, to be read and to be written.
    x: *const f32,
    y: *mut f32,
    image: usize,
    row: usize,
    /// Rows of the input that the windows cover, and one past the last.
    in_rows: [usize; 2],
}

impl Row<'_> {
    /// The largest of a column of the input for `n` channels from `c` on; negative infinity beyond the image.
    ///
    /// `ROWS` is the number of rows if it is known when this is compiled, else 0.
    ///
    /// # Safety
    /// The CPU has the instruction set, and the view lies in the arena.
    #[inline(always)]
    unsafe fn column<V: F32x16, const ROWS: usize>(&self, column: usize, c: usize, n: usize) -> V {
        let input = &self.op.input;
        // SAFETY: the caller vouches for the pixels of the input; a partial block is read as one.
        unsafe {
            let mut max = V::splat(f32::NEG_INFINITY);
            if column < input.w {
                let [first, end] = self.in_rows;
                let mut at = self.x.add(input.index(self.image, first, column) + c);
                for _ in 0..if ROWS > 0 { ROWS } else { end - first } {
                    let value = if n == LANES { V::load(at) } else { V::load_partial(at, n) };
                    max = value.max(max);
                    at = at.wrapping_add(input.row_stride);
                }
            }
            max
        }
    }

    /// # Safety
    /// The CPU has the instruction set, and the view lies in the arena.
    #[inline(always)]
    unsafe fn store<V: F32x16>(&self, max: V, x: usize, c: usize, n: usize) {
        // SAFETY: the caller vouches for the pixels of the output; a partial block is written as one.
        unsafe {
            let at = self.y.add(self.op.output.index(self.image, self.row, x) + c);
            if n == LANES { max.store(at) } else { max.store_partial(at, n) }
        }
    }
}

/// Windows of `K` columns that overlap: each column's maximum is computed once and kept while the window slides.
struct Sliding<'a, const K: usize>(Row<'a>);

impl<const K: usize> Kernel for Sliding<'_, K> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let [first, end] = self.0.in_rows;
        // SAFETY: the maker of the row vouches for its pixels.
        unsafe {
            if end - first == K {
                self.slide::<V, K>();
            } else {
                self.slide::<V, 0>();
            }
        }
    }
}

impl<const K: usize> Sliding<'_, K> {
    /// # Safety
    /// The CPU has the instruction set, the views lie in the arena, and the windows have `ROWS` rows if that is not 0.
    #[inline(always)]
    unsafe fn slide<V: F32x16, const ROWS: usize>(&self) {
        let row = &self.0;
        let (output, padding) = (&row.op.output, row.op.padding[1]);
        // SAFETY: the caller vouches for the pixels.
        unsafe {
            for c in (0..output.c).step_by(LANES) {
                let n = (output.c - c).min(LANES);
                let mut window = [V::splat(f32::NEG_INFINITY); K];
                for (k, column) in window.iter_mut().enumerate().skip(1) {
                    *column = row.column::<V, ROWS>(k.wrapping_sub(1 + padding), c, n);
                }
                for x in 0..output.w {
                    for k in 1..K {
                        window[k - 1] = window[k];
                    }
                    window[K - 1] = row.column::<V, ROWS>((x + K - 1).wrapping_sub(padding), c, n);
                    let mut max = window[0];
                    for column in &window[1..] {
                        max = column.max(max);
                    }
                    row.store(max, x, c, n);
                }
            }
        }
    }
}

/// Any windows.
struct Windows<'a>(Row<'a>);

impl Kernel for Windows<'_> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let row = &self.0;
        let (output, op) = (&row.op.output, row.op);
        // SAFETY: the maker of the row vouches for its pixels.
        unsafe {
            for x in 0..output.w {
                for c in (0..output.c).step_by(LANES) {
                    let n = (output.c - c).min(LANES);
                    let mut max = V::splat(f32::NEG_INFINITY);
                    for k in 0..op.kernel[1] {
                        let column = (x * op.stride[1] + k).wrapping_sub(op.padding[1]);
                        max = row.column::<V, 0>(column, c, n).max(max);
                    }
                    row.store(max, x, c, n);
                }
            }
        }
    }
}
