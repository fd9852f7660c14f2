//! Zeros around a map.

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::view::assert_map;
use crate::{Arena, Context, View};

/// Copies the input to row `top` and column `left` of the output, and sets all other pixels of the output to zero.
///
/// Panics if the input reaches beyond the output, if the numbers of images or channels do not agree, if a view does
/// not lie inside the arena, or if output and input overlap.
pub fn zero_pad(ctx: Context<'_>, arena: &mut Arena, [top, left]: [usize; 2], input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    let fits =
        |size: usize, before: usize, whole: usize| size.checked_add(before).is_some_and(|end| end <= whole);
    let inside = fits(input.h, top, output.h) && fits(input.w, left, output.w);
    assert!(inside, "{input:?} at row {top}, column {left} of {output:?}");
    let data = Shared::new(arena);
    for_each_band(ctx, &output, output.w * output.c, &|image, rows| {
        for y in rows {
            for x in 0..output.w {
                let from = y.checked_sub(top).zip(x.checked_sub(left));
                let from = from.filter(|&(y, x)| y < input.h && x < input.w);
                // SAFETY: the pixels lie in the arena, apart from each other, and no other task has this row.
                unsafe {
                    let to = data.ptr().add(output.index(image, y, x));
                    match from {
                        Some((y, x)) => {
                            to.copy_from_nonoverlapping(data.ptr().add(input.index(image, y, x)), output.c);
                        }
                        None => to.write_bytes(0, output.c),
                    }
                }
            }
        }
    });
}
