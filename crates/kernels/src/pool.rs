//! Maximum pooling.

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
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn max_pool2d(_ctx: Context<'_>, arena: &mut Arena, op: &MaxPool2d) {
    let (input, output) = (op.input, op.output);
    assert_map(arena.len(), &input, &output);
    assert!(op.stride[0] > 0 && op.stride[1] > 0, "{op:?}");
    let data = arena.as_mut_slice();
    for i in 0..output.n {
        for y in 0..output.h {
            for x in 0..output.w {
                for c in 0..output.c {
                    let mut best = f32::NEG_INFINITY;
                    for ky in 0..op.kernel[0] {
                        for kx in 0..op.kernel[1] {
                            let iy = (y * op.stride[0] + ky).wrapping_sub(op.padding[0]);
                            let ix = (x * op.stride[1] + kx).wrapping_sub(op.padding[1]);
                            if iy < input.h && ix < input.w {
                                best = best.max(data[input.index(i, iy, ix) + c]);
                            }
                        }
                    }
                    data[output.index(i, y, x) + c] = best;
                }
            }
        }
    }
}
