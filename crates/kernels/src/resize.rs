//! Resampling of maps.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::simd::{F32x16, Kernel, LANES};
use crate::view::assert_map;
use crate::{Arena, Context, View};

/// Repeats every pixel `factor` times down and across.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn upsample_nearest(ctx: Context<'_>, arena: &mut Arena, factor: usize, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    let fits = factor > 0 && output.h.div_ceil(factor) <= input.h && output.w.div_ceil(factor) <= input.w;
    assert!(fits, "{factor} times {input:?} to {output:?}");
    let data = Shared::new(arena);
    for_each_band(ctx, &output, output.w * output.c, &|image, rows| {
        for y in rows {
            for x in 0..output.w {
                let (from, to) = (input.index(image, y / factor, x / factor), output.index(image, y, x));
                // SAFETY: both pixels lie in the arena, apart from each other, and no other task has this row.
                unsafe { data.ptr().add(to).copy_from_nonoverlapping(data.ptr().add(from), input.c) };
            }
        }
    });
}

/// Scales a map to the size of the output; every pixel is a mix of the four nearest ones.
///
/// With `align_corners` the centres of the corner pixels stay where they are; without, the corners of the maps do, and
/// what lies beyond the outermost centres counts as the pixel there.
///
/// Panics if the numbers of images or channels do not agree, if a view does not lie inside the arena, or if output and
/// input overlap.
pub fn resize_bilinear(ctx: Context<'_>, arena: &mut Arena, align_corners: bool, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    let data = Shared::new(arena);
    for_each_band(ctx, &output, 3 * output.w * output.c, &|image, rows| {
        for y in rows {
            let (between, down) = source(y, input.h, output.h, align_corners);
            // SAFETY: rows and pixels lie in the arena, apart from each other, and no other task has this row.
            unsafe {
                ctx.isa.run(Mixed {
                    rows: between.map(|row| data.ptr().add(input.index(image, row, 0)).cast_const()),
                    down,
                    align_corners,
                    widths: [input.w, output.w],
                    steps: [input.pixel_stride, output.pixel_stride],
                    y: data.ptr().add(output.index(image, y, 0)),
                    c: output.c,
                });
            }
        }
    });
}

/// The two input pixels that an output pixel lies between, and how far it is from the first to the second.
fn source(at: usize, n_in: usize, n_out: usize, align_corners: bool) -> ([usize; 2], f32) {
    let position = if align_corners {
        let steps = n_out.saturating_sub(1).max(1);
        at as f32 * ((n_in - 1) as f32 / steps as f32)
    } else {
        ((at as f32 + 0.5) * (n_in as f32 / n_out as f32) - 0.5).max(0.0)
    };
    let first = (position as usize).min(n_in - 1);
    ([first, (first + 1).min(n_in - 1)], (position - first as f32).clamp(0.0, 1.0))
}

/// One row of the output.
struct Mixed {
    /// The rows of the input above and below.
    rows: [*const f32; 2],
    /// How far the output lies from the upper to the lower row.
    down: f32,
    align_corners: bool,
    /// Pixels of a row of the input and of the output.
    widths: [usize; 2],
    /// From one pixel of the input and of the output to the next.
    steps: [usize; 2],
    y: *mut f32,
    c: usize,
}

impl Kernel for Mixed {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let Mixed { rows: [top, bottom], widths: [n_in, n_out], steps: [in_step, out_step], .. } = self;
        // SAFETY: the maker vouches for the rows; a partial block is read and written as one.
        unsafe {
            let (down, up) = (V::splat(self.down), V::splat(1.0 - self.down));
            for x in 0..n_out {
                let ([left, right], across) = source(x, n_in, n_out, self.align_corners);
                let (to_right, to_left) = (V::splat(across), V::splat(1.0 - across));
                let [left, right] = [left, right].map(|column| column * in_step);
                let y = self.y.add(x * out_step);
                let mut c = 0;
                while c < self.c {
                    let n = (self.c - c).min(LANES);
                    let mut corners = [V::splat(0.0); 4];
                    let places = [top.add(left), top.add(right), bottom.add(left), bottom.add(right)];
                    for (corner, place) in corners.iter_mut().zip(places) {
                        *corner =
                            if n == LANES { V::load(place.add(c)) } else { V::load_partial(place.add(c), n) };
                    }
                    let [top_left, top_right, bottom_left, bottom_right] = corners;
                    let above = top_right.mul_add(to_right, top_left.mul(to_left));
                    let below = bottom_right.mul_add(to_right, bottom_left.mul(to_left));
                    let mixed = below.mul_add(down, above.mul(up));
                    if n == LANES {
                        mixed.store(y.add(c));
                    } else {
                        mixed.store_partial(y.add(c), n);
                    }
                    c += LANES;
                }
            }
        }
    }
}
