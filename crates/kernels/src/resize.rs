//! Resampling of maps.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
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
