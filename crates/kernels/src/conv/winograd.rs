//! Winograd convolution F(4x4, 3x3): 36 multiplications for 16 outputs where a direct one takes 144.
//!
//! A tile of 6 x 6 input pixels is transformed into 36 planes, each plane is multiplied with its own matrix of
//! transformed weights, and the 36 products of a tile are transformed into 4 x 4 output pixels. Source: Lavin and
//! Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, with the points 0, 1, -1, 2, -2 and
//! infinity.
//!
//! What a tile gives depends on its place in the image only, not on the block or the thread that it falls to. Infinity
//! and NaN in a tile of the input reach all of the tile's outputs.

use super::strip::{Matrix, multiply};
use super::{Conv2d, ConvSpec, PackedConv};
use crate::arena::Shared;
use crate::simd::{F32x16, Kernel, LANES, activate};
use crate::{Activation, Arena, Context, View};

/// Pixels of an output tile, down and across.
const OUT: usize = 4;
/// Pixels of an input tile, down and across.
const IN: usize = 6;
const PLANES: usize = IN * IN;

/// Transformed activations of a block in bytes: with the weights of a plane they should stay in a level 2 cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Tiles of a block at least, so that the weights are used often enough once they are loaded.
const LEAST_TILES: usize = 24;

/// Whether a convolution of this shape can be done this way.
pub(super) fn is_possible(spec: &ConvSpec) -> bool {
    spec.kernel == [3, 3] && spec.stride == [1, 1] && spec.padding == [1, 1] && spec.ic >= 8 && spec.oc >= 8
}

/// Whether it pays for an output of this size: not if most of the tiles would hang over the edge.
pub(super) fn pays(out_h: usize, out_w: usize) -> bool {
    let covered = out_h.next_multiple_of(OUT) * out_w.next_multiple_of(OUT);
    2 * covered <= 3 * out_h * out_w
}

/// Transforms weights, `[oc, ic, 3, 3]` times a scale for each output channel, to
/// `[plane][block of 16 output channels][ic][16]`.
pub(super) fn pack(spec: &ConvSpec, weight: &[f32], scale: Option<&[f32]>) -> Vec<f32> {
    const G: [[f64; 3]; IN] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let n_blocks = spec.oc.div_ceil(LANES);
    let mut packed = vec![0.0; PLANES * n_blocks * spec.ic * LANES];
    for (i, kernel) in weight.chunks_exact(9).enumerate() {
        let (o, c) = (i / spec.ic, i % spec.ic);
        let scale = scale.map_or(1.0, |s| f64::from(s[o]));
        for plane in 0..PLANES {
            let mut sum = 0.0;
            for (k, &w) in kernel.iter().enumerate() {
                sum += G[plane / IN][k / 3] * f64::from(w) * G[plane % IN][k % 3];
            }
            let block = (plane * n_blocks + o / LANES) * spec.ic + c;
            packed[block * LANES + o % LANES] = (sum * scale) as f32;
        }
    }
    packed
}

/// The sizes of a convolution in tiles, and of its blocks in scratch.
#[derive(Clone, Copy)]
struct Sizes {
    /// Tiles of an image, down and across.
    tiles_hw: [usize; 2],
    /// Channels, padded to whole vectors.
    ic: usize,
    oc: usize,
    /// Tiles of a block.
    block: usize,
}

/// Elements between planes of `len` elements. An odd number of cache lines, so that the 36 vectors that a transform
/// touches at once do not compete for few sets of the cache.
fn plane_step(len: usize) -> usize {
    (len.div_ceil(LANES) | 1) * LANES
}

impl Sizes {
    fn new(spec: &ConvSpec, out_h: usize, out_w: usize) -> Sizes {
        let tiles_hw = [out_h.div_ceil(OUT), out_w.div_ceil(OUT)];
        let (ic, oc) = (spec.ic.next_multiple_of(LANES), spec.oc.next_multiple_of(LANES));
        let tiles = tiles_hw[0] * tiles_hw[1];
        let fits = BLOCK_BYTES / (PLANES * (ic + oc) * size_of::<f32>());
        // Blocks of the same size, so that none is small.
        let n_blocks = tiles.div_ceil(fits.max(LEAST_TILES)).max(1);
        Sizes { tiles_hw, ic, oc, block: tiles.div_ceil(n_blocks) }
    }

    fn tiles(&self) -> usize {
        self.tiles_hw[0] * self.tiles_hw[1]
    }

    fn input_step(&self) -> usize {
        plane_step(self.block * self.ic)
    }

    fn output_step(&self) -> usize {
        plane_step(self.block * self.oc)
    }

    /// Scratch of a block.
    fn len(&self) -> usize {
        PLANES * (self.input_step() + self.output_step())
    }
}

/// How many elements of scratch [`run`] needs.
pub(super) fn scratch_len(spec: &ConvSpec, out_h: usize, out_w: usize, threads: usize) -> usize {
    let sizes = Sizes::new(spec, out_h, out_w);
    // What the scratch's start lacks to the next cache line.
    let lead = LANES;
    lead + sizes.len() * threads
}

/// Runs a convolution whose views and scratch have been checked.
pub(super) fn run(ctx: Context<'_>, arena: &mut Arena, op: &Conv2d<'_>, weight: &[f32]) {
    let (output, spec) = (op.output, op.weights.spec);
    let sizes = Sizes::new(&spec, output.h, output.w);
    let (tiles, threads) = (sizes.tiles(), ctx.threads.n());
    if output.n * tiles == 0 {
        return;
    }
    let scratch = op.scratch.offset.next_multiple_of(LANES);
    let data = Shared::new(arena);
    let n_blocks = tiles.div_ceil(sizes.block);
    let block = |index: usize, worker: usize| {
        let first = index % n_blocks * sizes.block;
        Block {
            op,
            weight,
            sizes,
            image: index / n_blocks,
            tiles: [first, (first + sizes.block).min(tiles)],
            input: scratch + worker * sizes.len(),
            output: scratch + worker * sizes.len() + PLANES * sizes.input_step(),
        }
    };
    if threads == 1 || output.n * n_blocks >= 2 * threads {
        ctx.threads.for_each(output.n * n_blocks, &|task, worker| {
            let block = block(task, worker);
            let n = block.tiles[1] - block.tiles[0];
            // SAFETY: the views and the scratch were checked; blocks write different pixels, and those that run at the
            // same time have different workers and so different scratch.
            unsafe {
                block.transform_input(ctx, data.ptr(), [0, n]);
                block.multiply(ctx, data.ptr(), 0..PLANES);
                block.transform_output(ctx, data.ptr(), [0, n]);
            }
        });
        return;
    }
    // Fewer blocks than threads: all threads work on one block at a time.
    for index in 0..output.n * n_blocks {
        let block = block(index, 0);
        let n = block.tiles[1] - block.tiles[0];
        let share = n.div_ceil(4 * threads).max(2);
        let range = |task: usize| [task * share, ((task + 1) * share).min(n)];
        // What tasks read was written in an earlier region.
        ctx.threads.for_each(n.div_ceil(share), &|task, _| {
            // SAFETY: the views and the scratch were checked; tasks write different tiles.
            unsafe { block.transform_input(ctx, data.ptr(), range(task)) };
        });
        ctx.threads.for_each(PLANES, &|plane, _| {
            // SAFETY: as above; tasks write different planes.
            unsafe { block.multiply(ctx, data.ptr(), plane..plane + 1) };
        });
        ctx.threads.for_each(n.div_ceil(share), &|task, _| {
            // SAFETY: as above; tasks write different tiles.
            unsafe { block.transform_output(ctx, data.ptr(), range(task)) };
        });
    }
}

/// Some tiles of one image, in row order, and the scratch for their planes.
#[derive(Clone, Copy)]
struct Block<'a> {
    op: &'a Conv2d<'a>,
    weight: &'a [f32],
    sizes: Sizes,
    image: usize,
    tiles: [usize; 2],
    /// Transformed input, `[plane][tile][ic]`, an index into the arena.
    input: usize,
    /// Products, `[plane][tile][oc]`.
    output: usize,
}

impl Block<'_> {
    /// The first output row and column of a tile of this block.
    fn corner(&self, tile: usize) -> [usize; 2] {
        let across = self.sizes.tiles_hw[1];
        let tile = self.tiles[0] + tile;
        [tile / across * OUT, tile % across * OUT]
    }

    /// # Safety
    /// `data` is an arena that holds the views and the scratch, and nobody else uses these tiles of the scratch.
    unsafe fn transform_input(&self, ctx: Context<'_>, data: *mut f32, tiles: [usize; 2]) {
        let view = &self.op.input;
        for tile in tiles[0]..tiles[1] {
            let [y, x] = self.corner(tile);
            // The tile begins in the padding of one pixel. Where it ends beyond the halo, no output in the map depends
            // on what lies there.
            let readable = [(view.h + view.halo + 1 - y).min(IN), (view.w + view.halo + 1 - x).min(IN)];
            // SAFETY: handed on to the caller; `readable` ends with the halo at the latest.
            unsafe {
                let corner = view.index(self.image, y, x) - view.row_stride - view.pixel_stride;
                ctx.isa.run(InputTile {
                    x: data.add(corner),
                    row_step: view.row_stride,
                    pixel_step: view.pixel_stride,
                    readable,
                    channels: view.c,
                    out: data.add(self.input + tile * self.sizes.ic),
                    plane_step: self.sizes.input_step(),
                });
            }
        }
    }

    /// # Safety
    /// `data` is an arena that holds the scratch, all tiles are transformed, and nobody else uses these planes of the
    /// products.
    unsafe fn multiply(&self, ctx: Context<'_>, data: *mut f32, planes: std::ops::Range<usize>) {
        let sizes = &self.sizes;
        let inner = self.op.weights.spec.ic;
        for plane in planes {
            // SAFETY: handed on to the caller; products have room for whole blocks of channels.
            unsafe {
                let matrix = Matrix {
                    rows: self.tiles[1] - self.tiles[0],
                    inner,
                    columns: sizes.oc,
                    x: data.add(self.input + plane * sizes.input_step()),
                    x_step: sizes.ic,
                    weight: self.weight.as_ptr().add(plane * sizes.oc * inner),
                    y: data.add(self.output + plane * sizes.output_step()),
                    y_step: sizes.oc,
                };
                multiply(ctx.isa, &matrix);
            }
        }
    }

    /// # Safety
    /// `data` is an arena that holds the views and the scratch, the products are there, and nobody else uses these
    /// tiles of the output.
    unsafe fn transform_output(&self, ctx: Context<'_>, data: *mut f32, tiles: [usize; 2]) {
        let view = &self.op.output;
        let PackedConv { bias, .. } = self.op.weights;
        for tile in tiles[0]..tiles[1] {
            let [y, x] = self.corner(tile);
            let at = |v: &View| v.index(self.image, y, x);
            // SAFETY: handed on to the caller.
            unsafe {
                ctx.isa.run(OutputTile {
                    products: data.add(self.output + tile * self.sizes.oc),
                    plane_step: self.sizes.output_step(),
                    bias: bias.as_ptr(),
                    channels: view.c,
                    out: data.add(at(view)),
                    out_step: [view.row_stride, view.pixel_stride],
                    residual: self.op.residual.map_or(std::ptr::null(), |r| data.add(at(&r)).cast_const()),
                    residual_step: self.op.residual.map_or([0; 2], |r| [r.row_stride, r.pixel_stride]),
                    writable: [(view.h - y).min(OUT), (view.w - x).min(OUT)],
                    activation: self.op.activation,
                });
            }
        }
    }
}

/// Transforms all channels of one tile of 6 x 6 pixels.
struct InputTile {
    x: *const f32,
    row_step: usize,
    pixel_step: usize,
    /// Rows and columns that can be read; those beyond count as zero.
    readable: [usize; 2],
    channels: usize,
    /// Plane 0 of this tile.
    out: *mut f32,
    plane_step: usize,
}

impl Kernel for InputTile {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        let inside = self.readable == [IN; 2];
        // SAFETY: the maker vouches for the readable pixels and for the planes, which are padded to whole vectors.
        unsafe {
            for c in (0..self.channels).step_by(LANES) {
                let n = (self.channels - c).min(LANES);
                let mut tile = [[V::splat(0.0); IN]; IN];
                if inside && n == LANES {
                    for (y, row) in tile.iter_mut().enumerate() {
                        for (x, pixel) in row.iter_mut().enumerate() {
                            *pixel = V::load(self.x.add(y * self.row_step + x * self.pixel_step + c));
                        }
                    }
                } else {
                    for (y, row) in tile.iter_mut().enumerate().take(self.readable[0]) {
                        for (x, pixel) in row.iter_mut().enumerate().take(self.readable[1]) {
                            *pixel =
                                V::load_partial(self.x.add(y * self.row_step + x * self.pixel_step + c), n);
                        }
                    }
                }
                let mut columns = [[V::splat(0.0); IN]; IN];
                for (x, column) in columns.iter_mut().enumerate() {
                    *column = input_transform(across(&tile, x));
                }
                for y in 0..IN {
                    for (x, value) in input_transform(across(&columns, y)).into_iter().enumerate() {
                        value.store(self.out.add((y * IN + x) * self.plane_step + c));
                    }
                }
            }
        }
    }
}

/// Transforms the products of one tile to 4 x 4 pixels of all channels.
struct OutputTile {
    /// Plane 0 of this tile.
    products: *const f32,
    plane_step: usize,
    bias: *const f32,
    channels: usize,
    out: *mut f32,
    /// From one row and one pixel to the next.
    out_step: [usize; 2],
    /// Null where there is none.
    residual: *const f32,
    residual_step: [usize; 2],
    /// Rows and columns that lie in the map.
    writable: [usize; 2],
    activation: Activation,
}

impl Kernel for OutputTile {
    #[inline(always)]
    unsafe fn run<V: F32x16>(self) {
        // SAFETY: the maker vouches for the planes, which are padded to whole vectors, and for the writable pixels.
        unsafe {
            for c in (0..self.channels).step_by(LANES) {
                let n = (self.channels - c).min(LANES);
                let mut columns = [[V::splat(0.0); OUT]; IN];
                for (x, column) in columns.iter_mut().enumerate() {
                    let at = |y: usize| self.products.add((y * IN + x) * self.plane_step + c);
                    *column = output_transform([
                        V::load(at(0)),
                        V::load(at(1)),
                        V::load(at(2)),
                        V::load(at(3)),
                        V::load(at(4)),
                        V::load(at(5)),
                    ]);
                }
                let bias = V::load(self.bias.add(c));
                let mut tile = [[bias; OUT]; OUT];
                for (y, row) in tile.iter_mut().enumerate() {
                    *row = output_transform(across(&columns, y));
                    for value in row.iter_mut() {
                        *value = value.add(bias);
                    }
                }
                activate(self.activation, &mut tile);
                for (y, row) in tile.into_iter().enumerate().take(self.writable[0]) {
                    for (x, mut value) in row.into_iter().enumerate().take(self.writable[1]) {
                        let to = self.out.add(y * self.out_step[0] + x * self.out_step[1] + c);
                        if !self.residual.is_null() {
                            let [down, across] = self.residual_step;
                            value =
                                value.add(V::load_partial(self.residual.add(y * down + x * across + c), n));
                        }
                        if n == LANES { value.store(to) } else { value.store_partial(to, n) }
                    }
                }
            }
        }
    }
}

/// Element `i` of each of six rows.
#[inline(always)]
fn across<V: F32x16, const N: usize>(rows: &[[V; N]; IN], i: usize) -> [V; IN] {
    [rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i]]
}

/// One dimension of the transform of the input.
#[inline(always)]
fn input_transform<V: F32x16>([d0, d1, d2, d3, d4, d5]: [V; IN]) -> [V; IN] {
    // SAFETY: the vectors exist, so the CPU has the instruction set.
    let [two, minus_two, four, minus_four, minus_five] =
        unsafe { [V::splat(2.0), V::splat(-2.0), V::splat(4.0), V::splat(-4.0), V::splat(-5.0)] };
    let even = d2.mul_add(minus_four, d4);
    let odd = d1.mul_add(minus_four, d3);
    let near = d4.sub(d2);
    let far = d3.sub(d1);
    [
        d0.mul_add(four, d2.mul_add(minus_five, d4)),
        even.add(odd),
        even.sub(odd),
        far.mul_add(two, near),
        far.mul_add(minus_two, near),
        d1.mul_add(four, d3.mul_add(minus_five, d5)),
    ]
}

/// One dimension of the transform of the products.
#[inline(always)]
fn output_transform<V: F32x16>([m0, m1, m2, m3, m4, m5]: [V; IN]) -> [V; OUT] {
    // SAFETY: the vectors exist, so the CPU has the instruction set.
    let [two, four, eight] = unsafe { [V::splat(2.0), V::splat(4.0), V::splat(8.0)] };
    let (sum1, sum2) = (m1.add(m2), m3.add(m4));
    let (difference1, difference2) = (m1.sub(m2), m3.sub(m4));
    [
        m0.add(sum1).add(sum2),
        difference2.mul_add(two, difference1),
        sum2.mul_add(four, sum1),
        difference2.mul_add(eight, difference1).add(m5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_tiles_evenly() {
        for (c, hw) in [(16, [160, 160]), (64, [80, 80]), (128, [40, 40]), (256, [7, 7])] {
            let spec = ConvSpec { oc: c, ic: c, kernel: [3; 2], stride: [1; 2], padding: [1; 2] };
            let sizes = Sizes::new(&spec, hw[0], hw[1]);
            let n_blocks = sizes.tiles().div_ceil(sizes.block);
            assert!(n_blocks * sizes.block - sizes.tiles() < n_blocks, "{c} channels at {hw:?}");
        }
    }

    #[test]
    fn planes_are_an_odd_number_of_lines_apart() {
        for len in [1, 16, 17, 1024, 24 * 64] {
            assert!(plane_step(len) >= len && (plane_step(len) / LANES) % 2 == 1);
        }
    }
}
