//! From activations to plain slices, and back: what stands between a network and its decoder.

use crate::activation::apply;
use crate::{Activation, Arena, Context, View};

/// Writes one image as planes: channel `c` of pixel `p` goes to `out[c * anchors + first_anchor + p]`.
///
/// Panics if the view does not lie inside the arena, has no such image, or if `out` is too short.
#[expect(clippy::too_many_arguments, reason = "source and destination have three each")]
pub fn store_planar(
    _ctx: Context<'_>,
    arena: &Arena,
    input: View,
    image: usize,
    out: &mut [f32],
    anchors: usize,
    first_anchor: usize,
    activation: Activation,
) {
    input.assert_inside(arena.len());
    assert!(image < input.n, "image {image} of {input:?}");
    assert_planar(out.len(), input.c, input.pixels(), anchors, first_anchor);
    let data = arena.as_slice();
    for p in 0..input.pixels() {
        let at = input.index(image, p / input.w, p % input.w);
        for c in 0..input.c {
            out[c * anchors + first_anchor + p] = apply(activation, data[at + c]);
        }
    }
}

/// Reads one image from planes, `[c, h, w]`, multiplied by `scale`.
///
/// Panics if the view does not lie inside the arena, has no such image, or if `src` has another length.
pub fn load_planar(
    _ctx: Context<'_>,
    arena: &mut Arena,
    src: &[f32],
    scale: f32,
    output: View,
    image: usize,
) {
    let pixels = output.pixels();
    assert_eq!(src.len(), pixels * output.c, "planes for {output:?}");
    output.assert_inside(arena.len());
    assert!(image < output.n, "image {image} of {output:?}");
    let data = arena.as_mut_slice();
    for p in 0..pixels {
        let at = output.index(image, p / output.w, p % output.w);
        for c in 0..output.c {
            data[at + c] = src[c * pixels + p] * scale;
        }
    }
}

/// Writes the largest channel of each pixel of one image to `out`, which has one element for each pixel.
///
/// NaN is left out: the result of a pixel without numbers is negative infinity. Panics if the view does not lie
/// inside the arena, has no such image, or if `out` has another length.
pub fn max_over_channels(_ctx: Context<'_>, arena: &Arena, input: View, image: usize, out: &mut [f32]) {
    assert_eq!(out.len(), input.pixels(), "one element for each pixel of {input:?}");
    input.assert_inside(arena.len());
    assert!(image < input.n, "image {image} of {input:?}");
    let data = arena.as_slice();
    for (p, max) in out.iter_mut().enumerate() {
        let at = input.index(image, p / input.w, p % input.w);
        *max = data[at..at + input.c].iter().copied().fold(f32::NEG_INFINITY, f32::max);
    }
}

/// The expected distance of each side, from `4 * reg_max` logits of one anchor; in units of the stride.
///
/// Source: Generalized Focal Loss, arXiv:2006.04388. Panics if there are not `4 * reg_max` logits or none at all.
pub fn dfl(_ctx: Context<'_>, logits: &[f32], reg_max: usize) -> [f32; 4] {
    assert!(reg_max > 0 && logits.len() == 4 * reg_max, "{} logits, expected 4 * {reg_max}", logits.len());
    let mut out = [0.0; 4];
    for (side, logits) in out.iter_mut().zip(logits.chunks_exact(reg_max)) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut weighted) = (0.0f32, 0.0f32);
        for (i, logit) in logits.iter().enumerate() {
            let e = (logit - max).exp();
            sum += e;
            weighted += e * i as f32;
        }
        *side = weighted / sum;
    }
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
    input.assert_inside(arena.len());
    assert!(image < input.n, "image {image} of {input:?}");
    assert_planar(out.len(), 4, input.pixels(), anchors, first_anchor);
    let data = arena.as_slice();
    for p in 0..input.pixels() {
        let at = input.index(image, p / input.w, p % input.w);
        let sides = dfl(ctx, &data[at..at + input.c], reg_max);
        for (s, side) in sides.into_iter().enumerate() {
            out[s * anchors + first_anchor + p] = side;
        }
    }
}

/// Panics unless `rows` planes of `anchors` elements, `pixels` of them from `first` on, fit into `len` elements.
#[track_caller]
fn assert_planar(len: usize, rows: usize, pixels: usize, anchors: usize, first: usize) {
    let fits = first.checked_add(pixels).is_some_and(|end| end <= anchors)
        && rows.checked_mul(anchors).is_some_and(|want| want <= len);
    assert!(fits, "{pixels} anchors from {first} on do not fit {rows} planes of {anchors} in {len} elements");
}
