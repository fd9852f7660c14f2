//! Kernels that treat every element, or every pixel, by itself.

use crate::arena::Shared;
use crate::simd::{F32x16, Kernel, LANES, apply};
use crate::view::assert_map;
use crate::{Activation, Arena, Context, View};

/// Elements that a task should have at least.
pub(crate) const TASK_LEN: usize = 16 << 10;

/// `output = a + b`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if the output overlaps `a` or `b`
/// without being exactly that view.
pub fn add(ctx: Context<'_>, arena: &mut Arena, a: View, b: View, output: View) {
    assert_elementwise(arena.len(), &[a, b], &output);
    let data = Shared::new(arena);
    for_each_run(ctx, &output, &[a, b], &|[a, b], y, len| {
        // SAFETY: the runs lie in the arena; a run of the output is one of the inputs' or apart from both, and no
        // other task has it.
        unsafe {
            let at = |i: usize| data.ptr().add(i);
            ctx.isa.run(AddRun { a: at(a), b: at(b), y: at(y), len });
        }
    });
}

/// `output = input`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if output and input overlap.
pub fn copy(ctx: Context<'_>, arena: &mut Arena, input: View, output: View) {
    assert_map(arena.len(), &input, &output);
    input.assert_same_pixels(&output);
    let data = Shared::new(arena);
    for_each_run(ctx, &output, &[input], &|[x], y, len| {
        // SAFETY: the runs lie in the arena, apart from each other, and no other task has this one.
        unsafe { data.ptr().add(y).copy_from_nonoverlapping(data.ptr().add(x), len) };
    });
}

/// `output = activation(input)`.
///
/// Panics if shapes do not agree, if a view does not lie inside the arena, or if the output overlaps the input
/// without being exactly that view.
pub fn activate(ctx: Context<'_>, arena: &mut Arena, activation: Activation, input: View, output: View) {
    assert_elementwise(arena.len(), &[input], &output);
    let data = Shared::new(arena);
    for_each_run(ctx, &output, &[input], &|[x], y, len| {
        // SAFETY: the runs lie in the arena; the output's is the input's or apart from it, and no other task has it.
        unsafe {
            let (x, y) = (data.ptr().add(x), data.ptr().add(y));
            ctx.isa.run(ActivateRun { activation, x, y, len });
        }
    });
}

/// Sets the halo of a view to zero: the pixels that lie up to `view.halo` beyond each side of each image.
///
/// Panics if the view does not lie inside the arena, or if the halo of a row would reach into another row's pixels.
pub fn clear_halo(ctx: Context<'_>, arena: &mut Arena, view: View) {
    let halo = view.halo;
    if halo == 0 || view.n * view.h * view.w * view.c == 0 {
        return;
    }
    view.assert_inside(arena.len());
    let apart = (view.w + halo) * view.pixel_stride <= view.row_stride
        && (view.n == 1 || (view.h + halo) * view.row_stride <= view.image_stride);
    assert!(apart, "the halo of {view:?} reaches into its pixels");
    let data = Shared::new(arena);
    let padded = View {
        offset: view.offset - halo * (view.row_stride + view.pixel_stride),
        h: view.h + 2 * halo,
        w: view.w + 2 * halo,
        ..view
    };
    let clear = |at: usize, pixels: usize| {
        // SAFETY: these are pixels of the halo, which lies in the arena, and no other task has their row.
        unsafe {
            if view.c == view.pixel_stride {
                data.ptr().add(at).write_bytes(0, pixels * view.c);
            } else {
                for pixel in 0..pixels {
                    data.ptr().add(at + pixel * view.pixel_stride).write_bytes(0, view.c);
                }
            }
        }
    };
    let clear_image = |image: usize| {
        for y in 0..padded.h {
            if (halo..halo + view.h).contains(&y) {
                clear(padded.index(image, y, 0), halo);
                clear(padded.index(image, y, halo + view.w), halo);
            } else {
                clear(padded.index(image, y, 0), padded.w);
            }
        }
    };
    // Halos of neighbouring rows may be the same pixels, so a task has all rows of an image. If those of neighbouring
    // images are, one task has all images.
    let padded_image = (padded.h - 1) * view.row_stride + padded.w * view.pixel_stride;
    if view.n == 1 || padded_image <= view.image_stride {
        ctx.threads.for_each(view.n, &|image, _| clear_image(image));
    } else {
        (0..view.n).for_each(clear_image);
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

/// Calls `f` with the start of each run of neighbouring elements in the inputs and the output, and its length.
///
/// Runs are whole rows where all views have their channels packed, and pixels elsewhere.
fn for_each_run<const N: usize>(
    ctx: Context<'_>,
    output: &View,
    inputs: &[View; N],
    f: &(dyn Fn([usize; N], usize, usize) + Sync),
) {
    let packed = output.pixel_stride == output.c && inputs.iter().all(|v| v.pixel_stride == v.c);
    for_each_band(ctx, output, output.w * output.c, &|image, rows| {
        for y in rows {
            if packed {
                f(inputs.map(|v| v.index(image, y, 0)), output.index(image, y, 0), output.w * output.c);
            } else {
                for x in 0..output.w {
                    f(inputs.map(|v| v.index(image, y, x)), output.index(image, y, x), output.c);
                }
            }
        }
    });
}

/// Cuts the rows of all images into tasks of at least [`TASK_LEN`] elements, of which a row has `row_len`.
pub(crate) fn for_each_band(
    ctx: Context<'_>,
    output: &View,
    row_len: usize,
    f: &(dyn Fn(usize, std::ops::Range<usize>) + Sync),
) {
    let least = (TASK_LEN / row_len.max(1)).max(1);
    let even = (output.n * output.h).div_ceil(4 * ctx.threads.n()).max(1);
    let band = least.max(even).min(output.h.max(1));
    let n_bands = output.h.div_ceil(band);
    ctx.threads.for_each(output.n * n_bands, &|task, _| {
        let (image, first) = (task / n_bands, task % n_bands * band);
        f(image, first..(first + band).min(output.h));
    });
}

struct AddRun {
    a: *const f32,
    b: *const f32,
    y: *mut f32,
    len: usize,
}

impl Kernel for AddRun {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let AddRun { a, b, y, len } = self;
        // SAFETY: the maker vouches for `len` elements at each pointer; the last vector is partial.
        unsafe {
            let mut i = 0;
            while i + LANES <= len {
                V::load(a.add(i)).add(V::load(b.add(i))).store(y.add(i));
                i += LANES;
            }
            if i < len {
                let (a, b) = (V::load_partial(a.add(i), len - i), V::load_partial(b.add(i), len - i));
                a.add(b).store_partial(y.add(i), len - i);
            }
        }
    }
}

struct ActivateRun {
    activation: Activation,
    x: *const f32,
    y: *mut f32,
    len: usize,
}

impl Kernel for ActivateRun {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let ActivateRun { activation, x, y, len } = self;
        // SAFETY: the maker vouches for `len` elements at each pointer; the last vector is partial.
        unsafe {
            let mut i = 0;
            while i + LANES <= len {
                apply(activation, V::load(x.add(i))).store(y.add(i));
                i += LANES;
            }
            if i < len {
                apply(activation, V::load_partial(x.add(i), len - i)).store_partial(y.add(i), len - i);
            }
        }
    }
}
