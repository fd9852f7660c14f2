//! Resampling of maps.

use crate::view::assert_map;
use crate::{Arena, Context, View};

/// Repeats every pixel `factor` times down and across.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn upsample_nearest(_ctx: Context<'_>, arena: &mut Arena, factor: usize, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    let fits = factor > 0 && output.h.div_ceil(factor) <= input.h && output.w.div_ceil(factor) <= input.w;
    assert!(fits, "{factor} times {input:?} to {output:?}");
    let data = arena.as_mut_slice();
    for i in 0..output.n {
        for y in 0..output.h {
            for x in 0..output.w {
                let from = input.index(i, y / factor, x / factor);
                data.copy_within(from..from + input.c, output.index(i, y, x));
            }
        }
    }
}
