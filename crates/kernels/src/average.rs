//! Average pooling.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::simd::{F32x16, Kernel, LANES};
use crate::view::assert_map;
use crate::{Arena, Context, View};

/// Mean over windows of `kernel` pixels, `stride` apart, none of which reaches beyond the image.
///
/// Panics if the windows of the output do not lie in the input, if there are no pixels in a window, if the numbers of
/// images or channels do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn avg_pool2d(
    ctx: Context<'_>,
    arena: &mut Arena,
    [kernel, stride]: [[usize; 2]; 2],
    input: View,
    output: View,
) {
    assert_map(arena.len(), &input, &output);
    for (i, (size, n)) in [(input.h, output.h), (input.w, output.w)].into_iter().enumerate() {
        let end =
            n.checked_sub(1).map(|last| last.checked_mul(stride[i]).and_then(|at| at.checked_add(kernel[i])));
        let inside = end.is_none_or(|end| end.is_some_and(|end| end <= size));
        assert!(kernel[i] > 0 && inside, "windows of {kernel:?} by {stride:?} from {input:?} to {output:?}");
    }
    let data = Shared::new(arena);
    for_each_band(ctx, &output, output.w * output.c * kernel[0] * kernel[1], &|image, rows| {
        for y in rows {
            // SAFETY: the windows and pixels lie in the arena, apart from each other, and no other task has this row.
            unsafe {
                ctx.isa.run(Means {
                    kernel,
                    x: data.ptr().add(input.index(image, y * stride[0], 0)),
                    in_steps: [input.row_stride, input.pixel_stride, stride[1] * input.pixel_stride],
                    y: data.ptr().add(output.index(image, y, 0)),
                    out_step: output.pixel_stride,
                    pixels: output.w,
                    c: output.c,
                });
            }
        }
    });
}

/// Mean of each channel over all pixels of an image; the output has one pixel.
///
/// Panics if the output has more, if the input has none, if the numbers of images or channels do not agree, if a view
/// does not lie inside the arena, or if output and input overlap.
pub fn global_avg_pool(ctx: Context<'_>, arena: &mut Arena, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    assert!([output.h, output.w] == [1, 1], "{output:?} has more than one pixel");
    let blocks = output.c.div_ceil(LANES);
    let data = Shared::new(arena);
    ctx.threads.for_each(output.n * blocks, &|task, _| {
        let (image, c) = (task / blocks, task % blocks * LANES);
        // SAFETY: the views lie in the arena, apart from each other, and no other task has these channels.
        unsafe {
            ctx.isa.run(Means {
                kernel: [input.h, input.w],
                x: data.ptr().add(input.index(image, 0, 0) + c),
                in_steps: [input.row_stride, input.pixel_stride, 0],
                y: data.ptr().add(output.index(image, 0, 0) + c),
                out_step: 0,
                pixels: 1,
                c: (output.c - c).min(LANES),
            });
        }
    });
}

/// Means of windows side by side.
struct Means {
    kernel: [usize; 2],
    x: *const f32,
    /// From one row, one pixel and one window of the input to the next.
    in_steps: [usize; 3],
    y: *mut f32,
    out_step: usize,
    pixels: usize,
    c: usize,
}

impl Kernel for Means {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let [row, pixel, window] = self.in_steps;
        // SAFETY: the maker vouches for the windows and the pixels; a partial block is read and written as one.
        unsafe {
            let n = V::splat((self.kernel[0] * self.kernel[1]) as f32);
            for p in 0..self.pixels {
                let mut c = 0;
                while c < self.c {
                    let left = (self.c - c).min(LANES);
                    let x = self.x.add(p * window + c);
                    let mut sum = V::splat(0.0);
                    for ky in 0..self.kernel[0] {
                        // A row's own sum first: it loses less when there are many rows.
                        let mut of_row = V::splat(0.0);
                        for kx in 0..self.kernel[1] {
                            let at = x.add(ky * row + kx * pixel);
                            of_row = of_row.add(if left == LANES {
                                V::load(at)
                            } else {
                                V::load_partial(at, left)
                            });
                        }
                        sum = sum.add(of_row);
                    }
                    let mean = sum.div(n);
                    let at = self.y.add(p * self.out_step + c);
                    if left == LANES {
                        mean.store(at);
                    } else {
                        mean.store_partial(at, left);
                    }
                    c += LANES;
                }
            }
        }
    }
}
