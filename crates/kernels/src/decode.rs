//! From activations to plain slices, and back: what stands between a network and its decoder.

use std::marker::PhantomData;

use crate::arena::Shared;
use crate::elementwise::for_each_band;
use crate::simd::{F32x16, Kernel, LANES, apply, exp};
use crate::{Activation, Arena, Context, View};

/// Writes one image as planes: channel `c` of pixel `p` goes to `out[c * anchors + first_anchor + p]`.
///
/// Panics if the view does not lie inside the arena, has no such image, or if `out` is too short.
#[expect(clippy::too_many_arguments, reason = "source and destination have three each")]
pub fn store_planar(
    ctx: Context<'_>,
    arena: &Arena,
    input: View,
    image: usize,
    out: &mut [f32],
    anchors: usize,
    first_anchor: usize,
    activation: Activation,
) {
    let input = one_image(arena, input, image);
    assert_planar(out.len(), input.c, input.pixels(), anchors, first_anchor);
    let (data, out) = (arena.as_slice(), Out::new(out));
    ctx.threads.for_each(input.h, &|y, _| {
        for x in (0..input.w).step_by(LANES) {
            let pixels = (input.w - x).min(LANES);
            for c in (0..input.c).step_by(LANES) {
                let channels = (input.c - c).min(LANES);
                let mut tile = [0.0; LANES * LANES];
                // SAFETY: the pixels lie in the arena and the planes have room for them; no other task has this row.
                unsafe {
                    let x_ptr = data.as_ptr().add(input.index(0, y, x) + c);
                    let step = input.pixel_stride;
                    ctx.isa.run(Load { activation, x: x_ptr, step, pixels, channels, tile: &mut tile });
                    for channel in 0..channels {
                        let to = out.ptr().add((c + channel) * anchors + first_anchor + y * input.w + x);
                        for pixel in 0..pixels {
                            *to.add(pixel) = tile[pixel * LANES + channel];
                        }
                    }
                }
            }
        }
    });
}

/// Reads one image from planes, `[c, h, w]`, multiplied by `scale`.
///
/// Panics if the view does not lie inside the arena, has no such image, or if `src` has another length.
pub fn load_planar(ctx: Context<'_>, arena: &mut Arena, src: &[f32], scale: f32, output: View, image: usize) {
    output.assert_inside(arena.len());
    assert!(image < output.n, "image {image} of {output:?}");
    let output = output.image(image);
    let pixels = output.pixels();
    assert!(src.len() == pixels * output.c, "{} elements for planes of {output:?}", src.len());
    let data = Shared::new(arena);
    for_each_band(ctx, &output, output.w * output.c, &|_, rows| {
        for y in rows {
            for c in 0..output.c {
                let plane = &src[c * pixels + y * output.w..][..output.w];
                // SAFETY: the row lies in the arena, and no other task has it.
                unsafe {
                    let to = data.ptr().add(output.index(0, y, 0) + c);
                    for (x, value) in plane.iter().enumerate() {
                        *to.add(x * output.pixel_stride) = value * scale;
                    }
                }
            }
        }
    });
}

/// Writes the largest channel of each pixel of one image to `out`, which has one element for each pixel.
///
/// NaN is left out: the result of a pixel without numbers is negative infinity. Panics if the view does not lie
/// inside the arena, has no such image, or if `out` has another length.
pub fn max_over_channels(ctx: Context<'_>, arena: &Arena, input: View, image: usize, out: &mut [f32]) {
    let input = one_image(arena, input, image);
    assert!(out.len() == input.pixels(), "{} elements for the pixels of {input:?}", out.len());
    let (data, out) = (arena.as_slice(), Out::new(out));
    for_each_band(ctx, &input, input.w * input.c, &|_, rows| {
        for y in rows {
            // SAFETY: the row lies in the arena and `out` has an element for each pixel; no other task has this row.
            unsafe {
                let x = data.as_ptr().add(input.index(0, y, 0));
                let to = out.ptr().add(y * input.w);
                ctx.isa.run(MaxRow { x, step: input.pixel_stride, c: input.c, out: to, n: input.w });
            }
        }
    });
}

/// The expected distance of each side, from `4 * reg_max` logits of one anchor; in units of the stride.
///
/// Source: Generalized Focal Loss, arXiv:2006.04388. Panics if there are not `4 * reg_max` logits or none at all.
pub fn dfl(ctx: Context<'_>, logits: &[f32], reg_max: usize) -> [f32; 4] {
    assert!(reg_max > 0 && logits.len() == 4 * reg_max, "{} logits, expected 4 * {reg_max}", logits.len());
    let mut out = [0.0; 4];
    // SAFETY: there are 4 * reg_max logits and four results.
    unsafe {
        ctx.isa.run(Dfl { x: logits.as_ptr(), step: 0, reg_max, out: out.as_mut_ptr(), plane: 1, n: 1 });
    };
    out
}

/// Applies [`dfl`] to every pixel of one image: side `s` of pixel `p` goes to `out[s * anchors + first_anchor + p]`.
///
/// `input` has `4 * reg_max` channels. Panics if it has not, if it does not lie inside the arena, has no such image,
/// or if `out` is too short.
#[expect(clippy::too_many_arguments, reason = "source and destination have three each")]
pub fn dfl_planar(
    ctx: Context<'_>,
    arena: &Arena,
    input: View,
    image: usize,
    reg_max: usize,
    out: &mut [f32],
    anchors: usize,
    first_anchor: usize,
) {
    let input = one_image(arena, input, image);
    assert!(reg_max > 0 && input.c == 4 * reg_max, "{input:?} has not 4 * {reg_max} channels");
    assert_planar(out.len(), 4, input.pixels(), anchors, first_anchor);
    let (data, out) = (arena.as_slice(), Out::new(out));
    for_each_band(ctx, &input, input.w * input.c, &|_, rows| {
        for y in rows {
            // SAFETY: the row lies in the arena and the planes have room for it; no other task has this row.
            unsafe {
                let x = data.as_ptr().add(input.index(0, y, 0));
                let to = out.ptr().add(first_anchor + y * input.w);
                let step = input.pixel_stride;
                ctx.isa.run(Dfl { x, step, reg_max, out: to, plane: anchors, n: input.w });
            }
        }
    });
}

/// The view of one image, which is checked to lie inside the arena.
#[track_caller]
fn one_image(arena: &Arena, view: View, image: usize) -> View {
    view.assert_inside(arena.len());
    assert!(image < view.n && !view.is_empty(), "image {image} of {view:?}");
    view.image(image)
}

/// Panics unless `rows` planes of `anchors` elements, `pixels` of them from `first` on, fit into `len` elements.
#[track_caller]
fn assert_planar(len: usize, rows: usize, pixels: usize, anchors: usize, first: usize) {
    let fits = first.checked_add(pixels).is_some_and(|end| end <= anchors)
        && rows.checked_mul(anchors).is_some_and(|want| want <= len);
    assert!(fits, "{pixels} anchors from {first} on do not fit {rows} planes of {anchors} in {len} elements");
}

/// A slice that several tasks write disjoint parts of.
#[derive(Clone, Copy)]
struct Out<'a> {
    ptr: *mut f32,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: this is a pointer and no access; whoever writes through it has to show that no other task writes the same
// elements.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    fn new(slice: &'a mut [f32]) -> Out<'a> {
        Out { ptr: slice.as_mut_ptr(), slice: PhantomData }
    }

    fn ptr(&self) -> *mut f32 {
        self.ptr
    }
}

/// Applies an activation to up to 16 pixels of up to 16 channels, and writes them to a tile of 16 by 16.
struct Load<'a> {
    activation: Activation,
    x: *const f32,
    step: usize,
    pixels: usize,
    channels: usize,
    tile: &'a mut [f32; LANES * LANES],
}

impl Kernel for Load<'_> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        for pixel in 0..self.pixels {
            // SAFETY: the maker vouches for the pixels, and `pixels` is 16 at most.
            unsafe {
                let value = V::load_partial(self.x.add(pixel * self.step), self.channels);
                apply(self.activation, value).store(self.tile.as_mut_ptr().add(pixel * LANES));
            }
        }
    }
}

/// The largest of `c` channels of each of `n` pixels.
struct MaxRow {
    x: *const f32,
    step: usize,
    c: usize,
    out: *mut f32,
    n: usize,
}

impl Kernel for MaxRow {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        // SAFETY: the maker vouches for the pixels; a vector beyond the whole ones is padded with the least value.
        unsafe {
            let least = V::splat(f32::NEG_INFINITY);
            for pixel in 0..self.n {
                let x = self.x.add(pixel * self.step);
                let mut max = least;
                let mut c = 0;
                while c + LANES <= self.c {
                    max = V::load(x.add(c)).max(max);
                    c += LANES;
                }
                if c < self.c {
                    let mut rest = [f32::NEG_INFINITY; LANES];
                    rest.as_mut_ptr().copy_from_nonoverlapping(x.add(c), self.c - c);
                    max = V::load(rest.as_ptr()).max(max);
                }
                *self.out.add(pixel) = max.largest();
            }
        }
    }
}

/// The expectation of each of four distributions of `reg_max` logits, for `n` pixels.
struct Dfl {
    x: *const f32,
    step: usize,
    reg_max: usize,
    out: *mut f32,
    /// From one side of a pixel to the next in `out`.
    plane: usize,
    n: usize,
}

/// 0 to 15.
const INDICES: [f32; LANES] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

impl Kernel for Dfl {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        // SAFETY: the maker vouches for the pixels and the results.
        unsafe {
            let indices = V::load(INDICES.as_ptr());
            for pixel in 0..self.n {
                for side in 0..4 {
                    let x = self.x.add(pixel * self.step + side * self.reg_max);
                    let mut max = V::splat(f32::NEG_INFINITY);
                    for i in (0..self.reg_max).step_by(LANES) {
                        max = load_logits::<V>(x.add(i), self.reg_max - i).max(max);
                    }
                    let max = V::splat(max.largest());
                    let (mut sum, mut weighted) = (V::splat(0.0), V::splat(0.0));
                    for i in (0..self.reg_max).step_by(LANES) {
                        let e = exp(load_logits::<V>(x.add(i), self.reg_max - i).sub(max));
                        sum = sum.add(e);
                        weighted = e.mul_add(indices.add(V::splat(i as f32)), weighted);
                    }
                    *self.out.add(side * self.plane + pixel) = weighted.sum() / sum.sum();
                }
            }
        }
    }
}

/// Up to 16 logits; where there are fewer, negative infinity stands for the others.
///
/// # Safety
/// The CPU has the instruction set; `n` elements, or 16 if there are more, can be read.
#[inline(always)]
unsafe fn load_logits<V: F32x16>(x: *const f32, n: usize) -> V {
    // SAFETY: the caller vouches for the elements.
    unsafe {
        if n >= LANES {
            return V::load(x);
        }
        let mut logits = [f32::NEG_INFINITY; LANES];
        logits.as_mut_ptr().copy_from_nonoverlapping(x, n);
        V::load(logits.as_ptr())
    }
}
