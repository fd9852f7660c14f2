//! Kernels that treat every element, or every pixel, by itself.

use crate::activation::apply;
use crate::view::assert_map;
use crate::{Activation, Arena, Context, View};

/// `output = a + b`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if the output overlaps `a` or `b`
/// without being exactly that view.
pub fn add(_ctx: Context<'_>, arena: &mut Arena, a: View, b: View, output: View) {
    assert_elementwise(arena.len(), &[a, b], &output);
    let data = arena.as_mut_slice();
    for_each_pixel(&output, |i, y, x| {
        for c in 0..output.c {
            data[output.index(i, y, x) + c] = data[a.index(i, y, x) + c] + data[b.index(i, y, x) + c];
        }
    });
}

/// `output = input`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn copy(_ctx: Context<'_>, arena: &mut Arena, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    input.assert_same_pixels(&output);
    let data = arena.as_mut_slice();
    for_each_pixel(&output, |i, y, x| {
        let from = input.index(i, y, x);
        data.copy_within(from..from + input.c, output.index(i, y, x));
    });
}

/// `output = activation(input)`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if the output overlaps the input
/// without being exactly that view.
pub fn activate(_ctx: Context<'_>, arena: &mut Arena, activation: Activation, input: View, output: View) {
    assert_elementwise(arena.len(), &[input], &output);
    let data = arena.as_mut_slice();
    for_each_pixel(&output, |i, y, x| {
        for c in 0..output.c {
            data[output.index(i, y, x) + c] = apply(activation, data[input.index(i, y, x) + c]);
        }
    });
}

/// Sets the halo of a view to zero: the pixels that lie up to `view.halo` beyond each side of each image.
///
/// Panics if the view does not lie inside the arena, or if the halo of a row would reach into another row's pixels.
pub fn clear_halo(_ctx: Context<'_>, arena: &mut Arena, view: View) {
    view.assert_inside(arena.len());
    let data = arena.as_mut_slice();
    let halo = view.halo;
    for i in 0..view.n {
        for y in 0..view.h + 2 * halo {
            for x in 0..view.w + 2 * halo {
                let inner = (halo..halo + view.h).contains(&y) && (halo..halo + view.w).contains(&x);
                if !inner {
                    let at = view.index(i, y, x) - halo * (view.row_stride + view.pixel_stride);
                    data[at..at + view.c].fill(0.0);
                }
            }
        }
    }
}

/// Panics unless all views agree and lie inside the arena, and the output is one of the inputs or apart from it.
#[track_caller]
fn assert_elementwise(len: usize, inputs: &[View], output: &View) {
    output.assert_inside(len);
    for input in inputs {
        input.assert_inside(len);
        input.assert_same_pixels(output);
        assert!(input.c == output.c, "{} channels in, {} out", input.c, output.c);
        let same = View { halo: output.halo, ..*input } == *output;
        if !same {
            output.assert_disjoint(&View { halo: 0, ..*input });
        }
    }
}

fn for_each_pixel(view: &View, mut f: impl FnMut(usize, usize, usize)) {
    for i in 0..view.n {
        for y in 0..view.h {
            for x in 0..view.w {
                f(i, y, x);
            }
        }
    }
}
