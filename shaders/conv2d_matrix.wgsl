// Convolution as a matrix product that is never laid out, as in conv2d.wgsl, on the matrix units of a device. A tile is
// made of blocks; a block is two or four matrices along the pixels by one or two along the channels. Each subgroup sums
// one block; where there are more subgroups than blocks, several share a block and sum different parts of the inner
// dimension, and their sums are added at the end. So the number of invocations of a subgroup need not be known.

// Invocations, and the largest number of subgroups that they can make.
override THREADS: u32 = 128u;
override SUBGROUPS: u32 = 4u;
// Blocks of a tile along the pixels and along the channels, and matrices of a block: 2 or 4 by 1 or 2.
override BLOCKS_DOWN: u32 = 2u;
override BLOCKS_ACROSS: u32 = 2u;
override MATRICES_DOWN: u32 = 2u;
override MATRICES_ACROSS: u32 = 2u;
// Input channels of a round, a multiple of the matrices' side; a quarter of it divides the number of invocations.
override DEPTH: u32 = 32u;
override TILE_PIXELS: u32 = BLOCKS_DOWN * MATRICES_DOWN * SIDE;
override TILE_CHANNELS: u32 = BLOCKS_ACROSS * MATRICES_ACROSS * SIDE;
// Vectors of four of a row of the window and of the kernel; rows lie further apart by 8 elements (those of sums by 4), so
// that neighbours are in different banks of memory.
override WINDOW: u32 = DEPTH / 4u;
override COLUMNS: u32 = TILE_CHANNELS / 4u;
override WINDOW_ROW: u32 = WINDOW + 2u;
override KERNEL_ROW: u32 = COLUMNS + 2u;
override SUMS_ROW: u32 = MATRICES_ACROSS * SIDE + 4u;

// Where an output pixel's window begins: row, column, first pixel of its image; the last is 1 if there is such a pixel.
var<workgroup> origins: array<vec4<i32>, TILE_PIXELS>;
var<workgroup> window: array<Cell, TILE_PIXELS * WINDOW_ROW * CELLS>;
var<workgroup> kernel: array<Cell, DEPTH * KERNEL_ROW * CELLS>;
// One row of matrices of each subgroup.
var<workgroup> sums: array<f32, SUBGROUPS * SIDE * SUMS_ROW>;

@compute @workgroup_size(THREADS, 1, 1)
fn conv2d_matrix(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let tile = workgroup - job.first_workgroup;
    let first_pixel = tile / job.tiles_across * TILE_PIXELS;
    let first_channel = tile % job.tiles_across * TILE_CHANNELS;
    let in_groups = (job.in_channels + 3u) / 4u;
    // A workgroup too many does nothing. It may not leave early: matrices want all to go the same way.
    let inner = select(0u, job.kernel_h * job.kernel_w * in_groups, first_pixel < job.pixels);

    for (var i = thread; i < TILE_PIXELS; i += THREADS) {
        let pixel = first_pixel + i;
        origins[i] = vec4<i32>(
            i32(pixel % job.image_pixels / job.row_pixels * job.stride_h) - i32(job.pad_h),
            i32(pixel % job.row_pixels * job.stride_w) - i32(job.pad_w),
            i32(pixel / job.image_pixels * job.in_h * job.in_w),
            select(0, 1, pixel < job.pixels),
        );
    }
    workgroupBarrier();

    // The block of this subgroup, and which part of each round it sums.
    let parts = max(subgroups / (BLOCKS_DOWN * BLOCKS_ACROSS), 1u);
    let block = subgroup / parts;
    let part = subgroup % parts;
    let left = block / BLOCKS_ACROSS * MATRICES_DOWN * SIDE * WINDOW_ROW;
    let right = block % BLOCKS_ACROSS * MATRICES_ACROSS * SIDE / 4u;
    // By name, not in an array: only so they surely stay in registers.
    var c00 = Sum();
    var c01 = Sum();
    var c10 = Sum();
    var c11 = Sum();
    var c20 = Sum();
    var c21 = Sum();
    var c30 = Sum();
    var c31 = Sum();
    for (var done = 0u; done < inner; done += DEPTH / 4u) {
        // The place in the window is the same for all pixels of an invocation.
        let at = done + thread % WINDOW;
        let cell = at / in_groups;
        let spot = Spot(i32(cell / job.kernel_w), i32(cell % job.kernel_w), at % in_groups * 4u, at < inner);
        // What is read must not wait for what was read before, so all of it is asked for before any is put down.
        for (var i = thread; i < max(TILE_PIXELS * WINDOW, DEPTH * COLUMNS); i += 4u * THREADS) {
            let v0 = input_at(job, i, spot);
            let v1 = input_at(job, i + THREADS, spot);
            let v2 = input_at(job, i + 2u * THREADS, spot);
            let v3 = input_at(job, i + 3u * THREADS, spot);
            let w0 = weight_at(job, i, done * 4u, first_channel / 4u, inner * 4u);
            let w1 = weight_at(job, i + THREADS, done * 4u, first_channel / 4u, inner * 4u);
            let w2 = weight_at(job, i + 2u * THREADS, done * 4u, first_channel / 4u, inner * 4u);
            let w3 = weight_at(job, i + 3u * THREADS, done * 4u, first_channel / 4u, inner * 4u);
            put(i, v0, w0);
            put(i + THREADS, v1, w1);
            put(i + 2u * THREADS, v2, w2);
            put(i + 3u * THREADS, v3, w3);
        }
        workgroupBarrier();
        for (var depth = part * SIDE; depth < DEPTH; depth += parts * SIDE) {
            let a = left + depth / 4u;
            let b = right + depth * KERNEL_ROW;
            let a0 = coopLoadT<Left>(&window[a * CELLS], WINDOW_ROW * CELLS);
            let a1 = coopLoadT<Left>(&window[(a + SIDE * WINDOW_ROW) * CELLS], WINDOW_ROW * CELLS);
            let b0 = coopLoadT<Right>(&kernel[b * CELLS], KERNEL_ROW * CELLS);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c10 = coopMultiplyAdd(a1, b0, c10);
            if MATRICES_ACROSS > 1u {
                let b1 = coopLoadT<Right>(&kernel[(b + SIDE / 4u) * CELLS], KERNEL_ROW * CELLS);
                c01 = coopMultiplyAdd(a0, b1, c01);
                c11 = coopMultiplyAdd(a1, b1, c11);
            }
            if MATRICES_DOWN > 2u {
                let a2 = coopLoadT<Left>(&window[(a + 2u * SIDE * WINDOW_ROW) * CELLS], WINDOW_ROW * CELLS);
                let a3 = coopLoadT<Left>(&window[(a + 3u * SIDE * WINDOW_ROW) * CELLS], WINDOW_ROW * CELLS);
                c20 = coopMultiplyAdd(a2, b0, c20);
                c30 = coopMultiplyAdd(a3, b0, c30);
                if MATRICES_ACROSS > 1u {
                    let b1 = coopLoadT<Right>(&kernel[(b + SIDE / 4u) * CELLS], KERNEL_ROW * CELLS);
                    c21 = coopMultiplyAdd(a2, b1, c21);
                    c31 = coopMultiplyAdd(a3, b1, c31);
                }
            }
        }
        workgroupBarrier();
    }

    let first = vec2<u32>(first_pixel, first_channel);
    let own = subgroup * SIDE * SUMS_ROW;
    coopStoreT(c00, &sums[own], SUMS_ROW);
    if MATRICES_ACROSS > 1u {
        coopStoreT(c01, &sums[own + SIDE], SUMS_ROW);
    }
    finish(job, 0u, first, thread, parts);
    coopStoreT(c10, &sums[own], SUMS_ROW);
    if MATRICES_ACROSS > 1u {
        coopStoreT(c11, &sums[own + SIDE], SUMS_ROW);
    }
    finish(job, 1u, first, thread, parts);
    if MATRICES_DOWN > 2u {
        coopStoreT(c20, &sums[own], SUMS_ROW);
        if MATRICES_ACROSS > 1u {
            coopStoreT(c21, &sums[own + SIDE], SUMS_ROW);
        }
        finish(job, 2u, first, thread, parts);
        coopStoreT(c30, &sums[own], SUMS_ROW);
        if MATRICES_ACROSS > 1u {
            coopStoreT(c31, &sums[own + SIDE], SUMS_ROW);
        }
        finish(job, 3u, first, thread, parts);
    }
}

// Four input channels of one place in the window.
struct Spot {
    y: i32,
    x: i32,
    channel: u32,
    exists: bool,
}

// What vector `i` of the window is, zero where there is nothing. Something is read in any case: branches would make reads
// wait for each other.
fn input_at(job: Job, i: u32, spot: Spot) -> vec4<f32> {
    let origin = origins[min(i / WINDOW, TILE_PIXELS - 1u)];
    let y = origin.x + spot.y;
    let x = origin.y + spot.x;
    let is_inside = y >= 0 && y < i32(job.in_h) && x >= 0 && x < i32(job.in_w) && origin.w == 1;
    let pixel = select(0u, u32(origin.z + y * i32(job.in_w) + x), is_inside);
    let value = load4(job.input + pixel * job.input_stride + spot.channel, job.in_channels - spot.channel);
    return select(vec4<f32>(0.0), value, is_inside && spot.exists);
}

// What vector `i` of the kernel is, in the same way. `first` is the tile's first row and vector of channels.
fn weight_at(job: Job, i: u32, first_row: u32, first_column: u32, rows: u32) -> vec4<f32> {
    let out_groups = (job.out_channels + 3u) / 4u;
    let row = first_row + i / COLUMNS;
    let column = first_column + i % COLUMNS;
    let is_there = row < rows && column < out_groups;
    let value = weight4(job.weights + select(0u, row * out_groups + column, is_there));
    return select(vec4<f32>(0.0), value, is_there);
}

// Puts down vector `i` of the window and of the kernel, as far as there are so many.
fn put(i: u32, value: vec4<f32>, weight: vec4<f32>) {
    if i < TILE_PIXELS * WINDOW {
        put_window(i / WINDOW * WINDOW_ROW + i % WINDOW, value);
    }
    if i < DEPTH * COLUMNS {
        put_kernel(i / COLUMNS * KERNEL_ROW + i % COLUMNS, weight);
    }
}

// Writes what all blocks have of one of their rows of matrices. `first` is the tile's first pixel and channel.
fn finish(job: Job, matrix: u32, first: vec2<u32>, thread: u32, parts: u32) {
    workgroupBarrier();
    let across = MATRICES_ACROSS * SIDE / 4u;
    for (var i = thread; i < BLOCKS_DOWN * BLOCKS_ACROSS * SIDE * across; i += THREADS) {
        let block = i / (SIDE * across);
        let line = i / across % SIDE;
        let column = i % across * 4u;
        let pixel = first.x + (block / BLOCKS_ACROSS * MATRICES_DOWN + matrix) * SIDE + line;
        let channel = first.y + block % BLOCKS_ACROSS * MATRICES_ACROSS * SIDE + column;
        if pixel < job.pixels && channel < job.out_channels {
            var sum = weight4(job.bias + channel / 4u);
            for (var part = 0u; part < parts; part++) {
                let at = ((block * parts + part) * SIDE + line) * SUMS_ROW + column;
                sum += vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
            }
            let rest = job.out_channels - channel;
            var value = activate(sum, job.activation);
            if job.residual_stride > 0u {
                value += load4(job.residual + pixel * job.residual_stride + channel, rest);
            }
            let row = pixel / job.row_pixels * job.step_h + job.shift_h;
            let place = (row * job.row_pixels + pixel % job.row_pixels) * job.step_w + job.shift_w;
            store4(job.output + place * job.output_stride + channel, rest, value);
        }
    }
    workgroupBarrier();
}
