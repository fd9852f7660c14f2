//! Direct convolution: the output cut into bands of rows and chunks of channels, and those into tiles.

use super::strip::{Geometry, Region, group, run_strip, tiling};
use super::{Conv2d, PackedConv};
use crate::arena::Shared;
use crate::simd::LANES;
use crate::{Arena, Context, Isa, View};

/// A part of a convolution: some rows of one image and some blocks of output channels.
struct Task {
    image: usize,
    rows: [usize; 2],
    blocks: [usize; 2],
}

/// Input of a band of rows, in bytes: half of a level 2 cache, so that it stays there for all blocks of channels.
const BAND_BYTES: usize = 256 << 10;

/// Runs a convolution whose views have been checked.
pub(super) fn run(ctx: Context<'_>, arena: &mut Arena, op: &Conv2d<'_>) {
    let (input, output, spec) = (op.input, op.output, op.weights.spec);
    if output.n * output.h * output.w * output.c == 0 {
        return;
    }
    let geometry = geometry(op);
    let max_tiles = ctx.isa.tiles();
    let n_blocks = spec.oc.div_ceil(LANES);

    let threads = ctx.threads.n();
    let row_bytes = spec.stride[0] * input.w * input.pixel_stride * size_of::<f32>();
    let mut band = (BAND_BYTES / row_bytes.max(1)).clamp(1, output.h);
    let mut chunk = n_blocks;
    if threads > 1 {
        let want = 4 * threads;
        let bands = |band: usize| output.n * output.h.div_ceil(band);
        while bands(band) < want && band > 4 {
            band = band.div_ceil(2);
        }
        while bands(band) * n_blocks.div_ceil(chunk) < want && chunk > 4 {
            chunk = chunk.div_ceil(2).next_multiple_of(2);
        }
    }
    let n_bands = output.h.div_ceil(band);
    let n_chunks = n_blocks.div_ceil(chunk);
    let data = Shared::new(arena);
    ctx.threads.for_each(output.n * n_bands * n_chunks, &|task, _| {
        let (image, rest) = (task / (n_bands * n_chunks), task % (n_bands * n_chunks));
        let (first_row, first_block) = (rest / n_chunks * band, rest % n_chunks * chunk);
        let task = Task {
            image,
            rows: [first_row, (first_row + band).min(output.h)],
            blocks: [first_block, (first_block + chunk).min(n_blocks)],
        };
        // SAFETY: `conv2d` has checked the views, and tasks differ in image, rows or blocks.
        unsafe { run_task(ctx.isa, &geometry, op, data.ptr(), max_tiles, &task) }
    });
}

fn geometry(op: &Conv2d<'_>) -> Geometry {
    let (input, output, spec) = (&op.input, &op.output, &op.weights.spec);
    let [kh, kw] = spec.kernel;
    // Pixels without a gap between them make one run of channels of a row of the kernel.
    let packed = input.pixel_stride == spec.ic;
    let residual = op.residual.unwrap_or(*output);
    Geometry {
        kh,
        kw: if packed { 1 } else { kw },
        ic: if packed { kw * spec.ic } else { spec.ic },
        in_row: input.row_stride,
        in_column: input.pixel_stride,
        in_step: [spec.stride[0] * input.row_stride, spec.stride[1] * input.pixel_stride],
        out_step: [output.row_stride, output.pixel_stride],
        residual_step: [residual.row_stride, residual.pixel_stride],
        weight_block: kh * kw * spec.ic * LANES,
        activation: op.activation,
    }
}

/// # Safety
/// The views of the operation lie in the arena at `data` and nobody else writes the task's part of the output.
unsafe fn run_task(
    isa: Isa,
    geometry: &Geometry,
    op: &Conv2d<'_>,
    data: *mut f32,
    max_tiles: [usize; 4],
    task: &Task,
) {
    let (input, output) = (&op.input, &op.output);
    let PackedConv { spec, weight, bias, .. } = op.weights;
    let [first_row, end_row] = task.rows;
    // The window of an output begins in the halo, as far as the padding says.
    let window = input.index(task.image, first_row * spec.stride[0], 0)
        - spec.padding[0] * input.row_stride
        - spec.padding[1] * input.pixel_stride;
    let mut block = task.blocks[0];
    while block < task.blocks[1] {
        let b = group(task.blocks[1] - block, max_tiles);
        let channel = block * LANES;
        let last = (spec.oc - (channel + (b - 1) * LANES)).min(LANES);
        for (x, tiles, p) in tiling(output.w, max_tiles[b - 1]) {
            if tiles == 0 {
                continue;
            }
            let at = |v: &View| v.index(task.image, first_row, x) + channel;
            // SAFETY: `conv2d` has checked that these windows and pixels lie in the arena; weights and biases are
            // padded to whole blocks.
            unsafe {
                let region = Region {
                    input: data.add(window + x * geometry.in_step[1]),
                    weight: weight.as_ptr().add(block * geometry.weight_block),
                    bias: bias.as_ptr().add(channel),
                    output: data.add(at(output)),
                    residual: op.residual.map_or(std::ptr::null(), |r| data.add(at(&r)).cast_const()),
                    rows: end_row - first_row,
                    tiles,
                    last,
                };
                run_strip(isa, p, b, geometry, region);
            }
        }
        block += b;
    }
}
