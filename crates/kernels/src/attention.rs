//! Softmax attention over the positions of a map.

use crate::arena::Shared;
use crate::conv::strip::{Matrix, multiply};
use crate::simd::{F32x16, Kernel, LANES, exp};
use crate::{Arena, Context, Isa, Scratch, View};

/// Multi-head attention of every position to every other of its area.
///
/// The channels of `qkv` are the queries of all heads, then the keys of all heads, then the values of all heads. The
/// positions of an image, in row order, are cut into `areas` equal runs that are attended separately.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Channels of a query and of a key of one head.
    pub key_dim: usize,
    /// Channels of a value of one head.
    pub head_dim: usize,
    /// Into how many runs the positions are cut; 1 attends to the whole map.
    pub areas: usize,
    /// Multiplied with each product of query and key.
    pub scale: f32,
    /// `[n, h, w, heads * (2 * key_dim + head_dim)]`
    pub qkv: View,
    /// `[n, h, w, heads * head_dim]`
    pub output: View,
    /// At least [`attention_scratch_len`] elements.
    pub scratch: Scratch,
}

/// Queries of a task at most: their scores stay in the level 2 cache, beside the packed keys and values.
const QUERIES: usize = 32;

/// How many elements of scratch [`attention`] needs.
pub fn attention_scratch_len(
    heads: usize,
    key_dim: usize,
    head_dim: usize,
    tokens_per_area: usize,
    threads: usize,
) -> usize {
    let packed = Packed::new(key_dim, head_dim, tokens_per_area);
    heads * packed.len() + threads * QUERIES * packed.score_row
}

/// Runs an attention.
///
/// Panics if shapes do not agree, if the positions cannot be cut into `areas` equal runs, if a view or the scratch
/// does not lie inside the arena, or if the output overlaps the input.
pub fn attention(ctx: Context<'_>, arena: &mut Arena, op: &Attention) {
    let (qkv, output) = (op.qkv, op.output);
    qkv.assert_inside(arena.len());
    output.assert_inside(arena.len());
    output.assert_disjoint(&View { halo: 0, ..qkv });
    output.assert_same_pixels(&qkv);
    let channels = [op.heads * (2 * op.key_dim + op.head_dim), op.heads * op.head_dim];
    assert!([qkv.c, output.c] == channels, "{op:?} has not {channels:?} channels");
    assert!(op.areas > 0 && qkv.pixels().is_multiple_of(op.areas), "{op:?} cannot be cut into equal areas");
    let tokens = qkv.pixels() / op.areas;
    let scratch_len = attention_scratch_len(op.heads, op.key_dim, op.head_dim, tokens, ctx.threads.n());
    op.scratch.assert_holds(scratch_len, arena.len());
    op.scratch.assert_outside_all(&[Some(qkv), Some(output)]);
    if op.heads * op.head_dim * op.key_dim * tokens == 0 {
        return;
    }

    let packed = Packed::new(op.key_dim, op.head_dim, tokens);
    let data = Shared::new(arena);
    for image in 0..qkv.n {
        for area in 0..op.areas {
            let part = Part { op, packed, image, tokens: [area * tokens, (area + 1) * tokens], isa: ctx.isa };
            // Keys of all heads, then values of all heads.
            ctx.threads.for_each(2 * op.heads, &|task, _| {
                // SAFETY: `qkv` and the scratch were checked; tasks pack into different parts of the scratch.
                unsafe {
                    if task < op.heads {
                        part.pack_keys(data.ptr(), task);
                    } else {
                        part.pack_values(data.ptr(), task - op.heads);
                    }
                }
            });
            let runs = part.runs();
            ctx.threads.for_each(op.heads * runs, &|task, worker| {
                if let Some(run) = part.run(task % runs) {
                    // SAFETY: the views and the scratch were checked; tasks differ in head or pixels, and those that
                    // run at the same time have different workers.
                    unsafe { part.attend(data.ptr(), task / runs, run, worker) };
                }
            });
        }
    }
}

/// Sizes of what is packed for one head.
#[derive(Clone, Copy)]
struct Packed {
    /// Keys, `[block of 16 tokens][key_dim][16]`.
    keys: usize,
    /// Values, `[block of 16 channels][token][16]`.
    values: usize,
    /// Scores of one query, padded to whole blocks.
    score_row: usize,
}

impl Packed {
    fn new(key_dim: usize, head_dim: usize, tokens: usize) -> Packed {
        let score_row = tokens.next_multiple_of(LANES);
        Packed { keys: score_row * key_dim, values: head_dim.next_multiple_of(LANES) * tokens, score_row }
    }

    fn len(&self) -> usize {
        self.keys + self.values
    }
}

/// One area of one image.
#[derive(Clone, Copy)]
struct Part<'a> {
    op: &'a Attention,
    packed: Packed,
    image: usize,
    /// The first position and one past the last.
    tokens: [usize; 2],
    isa: Isa,
}

/// Some queries that are neighbours in a row.
#[derive(Clone, Copy)]
struct Run {
    y: usize,
    x: usize,
    n: usize,
}

impl Part<'_> {
    /// The element that holds the first channel of a position.
    fn at(&self, view: &View, token: usize) -> usize {
        view.index(self.image, token / view.w, token % view.w)
    }

    fn n_tokens(&self) -> usize {
        self.tokens[1] - self.tokens[0]
    }

    /// How many runs there are at most.
    fn runs(&self) -> usize {
        let w = self.op.qkv.w;
        ((self.tokens[1] - 1) / w - self.tokens[0] / w + 1) * w.div_ceil(QUERIES)
    }

    /// Run `i`, if it has any position of this area.
    fn run(&self, i: usize) -> Option<Run> {
        let w = self.op.qkv.w;
        let per_row = w.div_ceil(QUERIES);
        let y = self.tokens[0] / w + i / per_row;
        let first = (y * w + i % per_row * QUERIES).max(self.tokens[0]);
        let end = (y * w + (i % per_row + 1) * QUERIES).min((y + 1) * w).min(self.tokens[1]);
        (first < end).then(|| Run { y, x: first - y * w, n: end - first })
    }

    fn keys(&self, head: usize) -> usize {
        self.op.scratch.offset + head * self.packed.len()
    }

    fn values(&self, head: usize) -> usize {
        self.keys(head) + self.packed.keys
    }

    /// # Safety
    /// `data` is an arena that holds `qkv` and the scratch; nobody else uses this head's keys of the scratch.
    unsafe fn pack_keys(&self, data: *mut f32, head: usize) {
        let op = self.op;
        let channel = (op.heads + head) * op.key_dim;
        // SAFETY: positions lie in `qkv`, and there is room for whole blocks.
        unsafe {
            let to = data.add(self.keys(head));
            to.write_bytes(0, self.packed.keys);
            for t in 0..self.n_tokens() {
                let from = data.add(self.at(&op.qkv, self.tokens[0] + t) + channel);
                let to = to.add(t / LANES * op.key_dim * LANES + t % LANES);
                for d in 0..op.key_dim {
                    *to.add(d * LANES) = *from.add(d) * op.scale;
                }
            }
        }
    }

    /// # Safety
    /// `data` is an arena that holds `qkv` and the scratch; nobody else uses this head's values of the scratch.
    unsafe fn pack_values(&self, data: *mut f32, head: usize) {
        let op = self.op;
        let channel = 2 * op.heads * op.key_dim + head * op.head_dim;
        // SAFETY: positions lie in `qkv`, and there is room for whole blocks.
        unsafe {
            let to = data.add(self.values(head));
            to.write_bytes(0, self.packed.values);
            for t in 0..self.n_tokens() {
                let from = data.add(self.at(&op.qkv, self.tokens[0] + t) + channel);
                for c in (0..op.head_dim).step_by(LANES) {
                    let n = (op.head_dim - c).min(LANES);
                    to.add(c * self.n_tokens() + t * LANES).copy_from_nonoverlapping(from.add(c), n);
                }
            }
        }
    }

    /// Attends some queries of one head.
    ///
    /// # Safety
    /// `data` is an arena that holds the views and the scratch; keys and values of the head are packed; nobody else
    /// writes these outputs or uses this worker's scores.
    unsafe fn attend(&self, data: *mut f32, head: usize, run: Run, worker: usize) {
        let op = self.op;
        let (tokens, row) = (self.n_tokens(), self.packed.score_row);
        let scores =
            op.scratch.offset + op.heads * self.packed.len() + worker * QUERIES * self.packed.score_row;
        // SAFETY: queries and outputs lie in their views, scores have room for `QUERIES` rows, and what is packed is
        // padded to whole blocks.
        unsafe {
            let out = data.add(op.output.index(self.image, run.y, run.x) + head * op.head_dim);
            let scores = data.add(scores);
            let queries = Matrix {
                rows: run.n,
                inner: op.key_dim,
                columns: row,
                x: data.add(op.qkv.index(self.image, run.y, run.x) + head * op.key_dim),
                x_step: op.qkv.pixel_stride,
                weight: data.add(self.keys(head)),
                y: scores,
                y_step: row,
            };
            multiply(self.isa, &queries);
            let mut sums = [0.0; QUERIES];
            self.isa.run(Softmax { x: scores, step: row, rows: run.n, n: tokens, sums: &mut sums });
            let weighted = Matrix {
                rows: run.n,
                inner: tokens,
                columns: op.head_dim,
                x: scores,
                x_step: row,
                weight: data.add(self.values(head)),
                y: out,
                y_step: op.output.pixel_stride,
            };
            multiply(self.isa, &weighted);
            let step = op.output.pixel_stride;
            self.isa.run(Divide { x: out, step, rows: run.n, n: op.head_dim, by: &sums });
        }
    }
}

/// Turns rows of scores into exponentials, and gives their sums.
struct Softmax<'a> {
    x: *mut f32,
    step: usize,
    rows: usize,
    n: usize,
    sums: &'a mut [f32; QUERIES],
}

impl Kernel for Softmax<'_> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let whole = self.n / LANES * LANES;
        let rest = self.n - whole;
        // SAFETY: the maker vouches for the rows, which are padded to whole vectors.
        unsafe {
            for row in 0..self.rows {
                let x = self.x.add(row * self.step);
                let mut max = V::splat(f32::NEG_INFINITY);
                for i in (0..whole).step_by(LANES) {
                    max = V::load(x.add(i)).max(max);
                }
                let mut max = max.largest();
                for i in whole..self.n {
                    max = max.max(*x.add(i));
                }
                let max = V::splat(max);
                let mut sum = V::splat(0.0);
                for i in (0..whole).step_by(LANES) {
                    let e = exp(V::load(x.add(i)).sub(max));
                    e.store(x.add(i));
                    sum = sum.add(e);
                }
                if rest > 0 {
                    // The padding goes through the exponential and is left out of the sum.
                    exp(V::load(x.add(whole)).sub(max)).store(x.add(whole));
                    sum = sum.add(V::load_partial(x.add(whole), rest));
                }
                self.sums[row] = sum.sum();
            }
        }
    }
}

/// Divides each row by its own number.
struct Divide<'a> {
    x: *mut f32,
    step: usize,
    rows: usize,
    n: usize,
    by: &'a [f32; QUERIES],
}

impl Kernel for Divide<'_> {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        // SAFETY: the maker vouches for the rows; the last vector is partial.
        unsafe {
            for row in 0..self.rows {
                let by = V::splat(1.0 / self.by[row]);
                for i in (0..self.n).step_by(LANES) {
                    let x = self.x.add(row * self.step + i);
                    let n = (self.n - i).min(LANES);
                    V::load_partial(x, n).mul(by).store_partial(x, n);
                }
            }
        }
    }
}
