//! Raw outputs of heads that give one map: class scores, class logits of every cell, depths.

use ferroyolo_kernels::{Activation, Arena, Context, View, store_planar};

use crate::modules::{DEPTH_RANGE, MapHead, MapKind};

/// The shape of the raw output of a head whose map lies at `view`.
pub(crate) fn raw_shape(head: &MapHead, view: &View) -> Vec<usize> {
    match head.kind {
        MapKind::Classes => vec![view.n, view.c],
        MapKind::Semantic | MapKind::Depth { .. } => vec![view.n, view.c, view.h, view.w],
    }
}

/// Writes one image's raw output, channel by channel: shares of the classes that sum to one, logits, or metres.
pub(crate) fn write_raw(
    head: &MapHead,
    context: Context<'_>,
    arena: &Arena,
    view: View,
    image: usize,
    out: &mut [f32],
) {
    store_planar(context, arena, view, image, out, view.pixels(), 0, Activation::None);
    match head.kind {
        MapKind::Classes => softmax(out),
        MapKind::Semantic => {}
        MapKind::Depth { a, b } => out.iter_mut().for_each(|value| *value = depth(*value, a, b)),
    }
}

/// The distance in metres that a raw value stands for.
fn depth(value: f32, a: f32, b: f32) -> f32 {
    let [least, largest] = DEPTH_RANGE;
    (a * value.clamp(least, largest) + b).exp()
}

/// Turns logits into shares that sum to one.
fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one() {
        let mut values = [1000.0, 1001.0, -1000.0];
        softmax(&mut values);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((values[1] / values[0] - 1f32.exp()).abs() < 1e-5 && values[2] == 0.0);
    }

    #[test]
    fn depths_are_clamped() {
        assert_eq!(depth(0.0, 2.0, 0.0), 1.0);
        assert_eq!(depth(100.0, 1.0, 0.5), 5.5f32.exp());
        assert_eq!(depth(-100.0, 1.0, 0.0), (-4f32).exp());
    }
}
