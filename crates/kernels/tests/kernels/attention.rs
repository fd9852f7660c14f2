use ferroyolo_kernels::{Arena, Attention, Context, attention, attention_scratch_len};

use crate::support::{Layout, check, noisy_arena};

/// Error of a weighted mean of values between -1 and 1.
const TOLERANCE: f64 = 4e-6;

#[derive(Clone, Copy)]
struct Case {
    nhw: [usize; 3],
    heads: usize,
    key_dim: usize,
    head_dim: usize,
    areas: usize,
    halo: usize,
}

fn run(case: Case) {
    let Case { nhw, heads, key_dim, head_dim, areas, halo } = case;
    let tokens = nhw[1] * nhw[2] / areas;
    let mut layout = Layout::default();
    let qkv = layout.buffer(nhw, heads * (2 * key_dim + head_dim), halo);
    let output = layout.slice(nhw, heads * head_dim + 7, 4, heads * head_dim, 1);
    let scratch = layout.scratch(attention_scratch_len(heads, key_dim, head_dim, tokens, 3));
    let arena = noisy_arena(layout.len, 23, &[qkv]);
    let scale = 2.5 / (key_dim as f32).sqrt();
    let op = Attention { heads, key_dim, head_dim, areas, scale, qkv, output, scratch };
    let run = |ctx: Context<'_>, arena: &mut Arena| attention(ctx, arena, &op);
    check(&arena, &output, scratch, run, |data, image, y, x, channel| {
        let (head, d) = (channel / head_dim, channel % head_dim);
        let value = |t: usize, c: usize| f64::from(data[qkv.index(image, t / nhw[2], t % nhw[2]) + c]);
        let query = y * nhw[2] + x;
        let first = query / tokens * tokens;
        let scores: Vec<f64> = (first..first + tokens)
            .map(|t| {
                let product = |i| value(query, head * key_dim + i) * value(t, (heads + head) * key_dim + i);
                (0..key_dim).map(product).sum::<f64>() * f64::from(scale)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        let v0 = 2 * heads * key_dim + head * head_dim + d;
        let mean = e.iter().enumerate().map(|(i, e)| e * value(first + i, v0)).sum::<f64>() / sum;
        (mean, TOLERANCE)
    });
}

const BASE: Case = Case { nhw: [1, 5, 7], heads: 2, key_dim: 8, head_dim: 16, areas: 1, halo: 1 };

#[test]
fn shapes() {
    for (heads, key_dim, head_dim) in [(1, 1, 1), (2, 8, 16), (3, 5, 17), (2, 32, 64), (4, 32, 32)] {
        run(Case { heads, key_dim, head_dim, ..BASE });
    }
}

#[test]
fn maps() {
    for (h, w) in [(1, 1), (1, 16), (4, 4), (3, 33), (2, 70)] {
        run(Case { nhw: [1, h, w], halo: 0, ..BASE });
    }
}

#[test]
fn batches_and_areas() {
    for (h, w, areas) in [(4, 6, 4), (5, 8, 4), (3, 3, 9), (6, 5, 2), (2, 3, 4 / 2)] {
        run(Case { nhw: [2, h, w], areas, ..BASE });
    }
}

#[test]
fn whole_map_of_yolo11n() {
    run(Case { nhw: [1, 20, 20], heads: 2, key_dim: 32, head_dim: 64, areas: 1, halo: 1 });
}

#[test]
#[should_panic(expected = "cannot be cut into equal areas")]
fn areas_that_do_not_divide_the_map() {
    run(Case { areas: 4, ..BASE });
}
