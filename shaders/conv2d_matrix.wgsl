// Convolution as a matrix product that is never laid out, as in conv2d.wgsl, on the matrix units of a device. A tile is
// made of blocks; a block is two or four matrices along the pixels by one or two along the channels. Each subgroup sums
// one block; where there are more subgroups than blocks, several share a block and sum different parts of the inner
// dimension, and their sums are added at the end. So the number of invocations of a subgroup need not be known.

// Invocations, and the largest number of subgroups that share the work, a multiple of the number of blocks.
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

var<workgroup> window: array<Cell, TILE_PIXELS * WINDOW_ROW * CELLS>;
var<workgroup> kernel: array<Cell, DEPTH * KERNEL_ROW * CELLS>;
// One row of matrices of each subgroup that shares the work.
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
    // A workgroup too many does nothing. It may not leave early: matrices want all to go the same way.
    let all = job.kernel_h * job.kernel_w * ((job.in_channels + 3u) / 4u);
    let inner = select(0u, all, first_pixel < job.pixels);

    find_origins(job, first_pixel, thread, THREADS);
    workgroupBarrier();

    // The block of this subgroup, and which part of each round it sums. Subgroups too many do what the last one does.
    let parts = clamp(subgroups / (BLOCKS_DOWN * BLOCKS_ACROSS), 1u, SUBGROUPS / (BLOCKS_DOWN * BLOCKS_ACROSS));
    let worker = min(subgroup, parts * BLOCKS_DOWN * BLOCKS_ACROSS - 1u);
    let block = worker / parts;
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
    let first = vec2<u32>(first_pixel, first_channel);
    // The place in the window is the same for all vectors of an invocation.
    var place = further(Place(0u, 0u, 0u), thread % WINDOW, job);
    var next: Fetched;
    var behind: Fetched;
    if AHEAD == 1u {
        next = ask(job, place, 0u, inner, first, 0u, thread);
        behind = ask(job, place, 0u, inner, first, 4u, thread);
    }
    for (var done = 0u; done < inner; done += WINDOW) {
        if AHEAD == 0u {
            next = ask(job, place, done, inner, first, 0u, thread);
            behind = ask(job, place, done, inner, first, 4u, thread);
        }
        put_down(next, 0u, thread);
        put_down(behind, 4u, thread);
        for (var idx = 8u; idx * THREADS < max(TILE_PIXELS * WINDOW, DEPTH * COLUMNS); idx += 4u) {
            put_down(ask(job, place, done, inner, first, idx, thread), idx, thread);
        }
        place = further(place, WINDOW, job);
        workgroupBarrier();
        if AHEAD == 1u && done + WINDOW < inner {
            next = ask(job, place, done + WINDOW, inner, first, 0u, thread);
            behind = ask(job, place, done + WINDOW, inner, first, 4u, thread);
        }
        for (var depth = worker % parts * SIDE; depth < DEPTH; depth += parts * SIDE) {
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

    let own = worker * SIDE * SUMS_ROW;
    coopStoreT(c00, &sums[own], SUMS_ROW);
    if MATRICES_ACROSS > 1u {
        coopStoreT(c01, &sums[own + SIDE], SUMS_ROW);
    }
    finish_row(job, 0u, first, thread, parts);
    coopStoreT(c10, &sums[own], SUMS_ROW);
    if MATRICES_ACROSS > 1u {
        coopStoreT(c11, &sums[own + SIDE], SUMS_ROW);
    }
    finish_row(job, 1u, first, thread, parts);
    if MATRICES_DOWN > 2u {
        coopStoreT(c20, &sums[own], SUMS_ROW);
        if MATRICES_ACROSS > 1u {
            coopStoreT(c21, &sums[own + SIDE], SUMS_ROW);
        }
        finish_row(job, 2u, first, thread, parts);
        coopStoreT(c30, &sums[own], SUMS_ROW);
        if MATRICES_ACROSS > 1u {
            coopStoreT(c31, &sums[own + SIDE], SUMS_ROW);
        }
        finish_row(job, 3u, first, thread, parts);
    }
}

// Asks for an invocation's vectors from the one of number `idx` on. Something is read in any case, and looked at by
// `put_down` only: then no read waits for another one, and nothing waits for them.
fn ask(job: Job, place: Place, done: u32, inner: u32, first: vec2<u32>, idx: u32, thread: u32) -> Fetched {
    var asked: Fetched;
    asked.rest = job.in_channels - place.channel;
    let start = job.input + place.channel;
    let i = idx * THREADS + thread;
    if idx * THREADS < TILE_PIXELS * WINDOW {
        let p0 = input_at(job, place, first.x, i);
        let p1 = input_at(job, place, first.x, i + THREADS);
        asked.window.a = ask4(start + or_first(p0, 0u) * job.input_stride, asked.rest);
        asked.window.b = ask4(start + or_first(p1, 0u) * job.input_stride, asked.rest);
        asked.exist |= exists(p0, 0u) | exists(p1, 1u);
    }
    if (idx + 2u) * THREADS < TILE_PIXELS * WINDOW {
        let p2 = input_at(job, place, first.x, i + 2u * THREADS);
        let p3 = input_at(job, place, first.x, i + 3u * THREADS);
        asked.window.c = ask4(start + or_first(p2, 0u) * job.input_stride, asked.rest);
        asked.window.d = ask4(start + or_first(p3, 0u) * job.input_stride, asked.rest);
        asked.exist |= exists(p2, 2u) | exists(p3, 3u);
    }
    if idx * THREADS < DEPTH * COLUMNS {
        let w0 = kernel_at(job, done, inner, first.y, i);
        let w1 = kernel_at(job, done, inner, first.y, i + THREADS);
        asked.kernel.a = weights[or_first(w0, job.weights)];
        asked.kernel.b = weights[or_first(w1, job.weights)];
        asked.exist |= exists(w0, 4u) | exists(w1, 5u);
    }
    if (idx + 2u) * THREADS < DEPTH * COLUMNS {
        let w2 = kernel_at(job, done, inner, first.y, i + 2u * THREADS);
        let w3 = kernel_at(job, done, inner, first.y, i + 3u * THREADS);
        asked.kernel.c = weights[or_first(w2, job.weights)];
        asked.kernel.d = weights[or_first(w3, job.weights)];
        asked.exist |= exists(w2, 6u) | exists(w3, 7u);
    }
    return asked;
}

// The input pixel of vector `i` of the window. There may be fewer, of which the last is looked up.
fn input_at(job: Job, place: Place, first_pixel: u32, i: u32) -> u32 {
    return pixel_at(job, place, first_pixel, min(i / WINDOW, TILE_PIXELS - 1u));
}

// Puts what was asked for where matrices are read.
fn put_down(asked: Fetched, idx: u32, thread: u32) {
    let i = idx * THREADS + thread;
    if idx * THREADS < TILE_PIXELS * WINDOW {
        put_input(i, known_if(asked.exist, 0u, known4(asked.window.a, asked.rest)));
        put_input(i + THREADS, known_if(asked.exist, 1u, known4(asked.window.b, asked.rest)));
    }
    if (idx + 2u) * THREADS < TILE_PIXELS * WINDOW {
        put_input(i + 2u * THREADS, known_if(asked.exist, 2u, known4(asked.window.c, asked.rest)));
        put_input(i + 3u * THREADS, known_if(asked.exist, 3u, known4(asked.window.d, asked.rest)));
    }
    if idx * THREADS < DEPTH * COLUMNS {
        put_weight(i, known_if(asked.exist, 4u, vec4<f32>(asked.kernel.a)));
        put_weight(i + THREADS, known_if(asked.exist, 5u, vec4<f32>(asked.kernel.b)));
    }
    if (idx + 2u) * THREADS < DEPTH * COLUMNS {
        put_weight(i + 2u * THREADS, known_if(asked.exist, 6u, vec4<f32>(asked.kernel.c)));
        put_weight(i + 3u * THREADS, known_if(asked.exist, 7u, vec4<f32>(asked.kernel.d)));
    }
}

// Puts down vector `i` of the window, if there are so many.
fn put_input(i: u32, value: vec4<f32>) {
    if i < TILE_PIXELS * WINDOW {
        put_window(i / WINDOW * WINDOW_ROW + i % WINDOW, value);
    }
}

// Puts down vector `i` of the kernel, if there are so many.
fn put_weight(i: u32, value: vec4<f32>) {
    if i < DEPTH * COLUMNS {
        put_kernel(i / COLUMNS * KERNEL_ROW + i % COLUMNS, value);
    }
}

// Writes what all blocks have of one of their rows of matrices. `first` is the tile's first pixel and channel.
fn finish_row(job: Job, matrix: u32, first: vec2<u32>, thread: u32, parts: u32) {
    workgroupBarrier();
    let across = MATRICES_ACROSS * SIDE / 4u;
    for (var i = thread; i < BLOCKS_DOWN * BLOCKS_ACROSS * SIDE * across; i += THREADS) {
        let block = i / (SIDE * across);
        let line = i / across % SIDE;
        let column = i % across * 4u;
        var sum = vec4<f32>(0.0);
        for (var part = 0u; part < parts; part++) {
            let at = ((block * parts + part) * SIDE + line) * SUMS_ROW + column;
            sum += vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
        }
        let pixel = first.x + (block / BLOCKS_ACROSS * MATRICES_DOWN + matrix) * SIDE + line;
        finish(job, pixel, first.y + block % BLOCKS_ACROSS * MATRICES_ACROSS * SIDE + column, sum);
    }
    workgroupBarrier();
}
