// What shaders have in common that compute a convolution as a matrix product that is never laid out: rows are output
// pixels, columns output channels, and the inner dimension runs over kernel cells and input channels. A workgroup
// computes a tile of both, and takes the inner dimension in rounds by way of workgroup memory. A transposed convolution
// whose kernel is as large as its stride is one 1x1 job for each cell of the kernel.

// Output pixels and output channels of a tile.
override TILE_PIXELS: u32 = 64u;
override TILE_CHANNELS: u32 = 64u;
// Input channels of a round in fours.
override DEPTH: u32 = 4u;
// Vectors of `window` from one of a round's fours to the next: more than there are pixels, so that neighbours that are
// written at the same time lie in different banks.
override WINDOW_STRIDE: u32 = 66u;
// Invocations for the same results.
override SPLIT: u32 = 1u;

// Input channels by four, then by pixel.
var<workgroup> window: array<vec4<f32>, WINDOW_STRIDE * DEPTH>;
// Weights by input channel, then by four output channels.
var<workgroup> kernel: array<vec4<f32>, TILE_CHANNELS * DEPTH>;

// Input channels of one group for all pixels of the tile; an invocation takes those of its own depth.
fn fetch_window(job: Job, place: Place, first_pixel: u32, thread: u32, threads: u32) {
    let depth = thread % DEPTH * WINDOW_STRIDE;
    let start = job.input + place.channel;
    let rest = job.in_channels - place.channel;
    for (var i = thread / DEPTH; i < TILE_PIXELS; i += threads / DEPTH) {
        let pixel = pixel_at(job, place, first_pixel, i);
        var value = vec4<f32>(0.0);
        if pixel != NOWHERE {
            value = load4(start + pixel * job.input_stride, rest);
        }
        window[depth + i] = value;
    }
}

// Weights of a round from the inner dimension's group `done` on.
fn fetch_kernel(job: Job, done: u32, inner: u32, first_channel: u32, thread: u32, threads: u32) {
    for (var i = thread; i < TILE_CHANNELS * DEPTH; i += threads) {
        let at = kernel_at(job, done, inner, first_channel, i);
        var value = vec4<f32>(0.0);
        if at != NOWHERE {
            value = weight4(at);
        }
        kernel[i] = value;
    }
}

// Asks for the vectors of a round. Something is read in any case, and looked at by `put_down` only: then no read waits
// for another one, and nothing waits for them.
fn ask(job: Job, place: Place, done: u32, inner: u32, first: vec2<u32>, thread: u32, threads: u32) -> Fetched {
    var next: Fetched;
    next.rest = job.in_channels - place.channel;
    let step = threads / DEPTH;
    let start = job.input + place.channel;
    let p0 = pixel_at(job, place, first.x, thread / DEPTH);
    next.window.a = ask4(start + or_first(p0, 0u) * job.input_stride, next.rest);
    next.exist = exists(p0, 0u);
    if step < TILE_PIXELS {
        let p1 = pixel_at(job, place, first.x, thread / DEPTH + step);
        next.window.b = ask4(start + or_first(p1, 0u) * job.input_stride, next.rest);
        next.exist |= exists(p1, 1u);
    }
    if 2u * step < TILE_PIXELS {
        let p2 = pixel_at(job, place, first.x, thread / DEPTH + 2u * step);
        let p3 = pixel_at(job, place, first.x, thread / DEPTH + 3u * step);
        next.window.c = ask4(start + or_first(p2, 0u) * job.input_stride, next.rest);
        next.window.d = ask4(start + or_first(p3, 0u) * job.input_stride, next.rest);
        next.exist |= exists(p2, 2u) | exists(p3, 3u);
    }
    let k0 = kernel_at(job, done, inner, first.y, thread);
    next.kernel.a = weights[or_first(k0, job.weights)];
    next.exist |= exists(k0, 4u);
    if threads < TILE_CHANNELS * DEPTH {
        let k1 = kernel_at(job, done, inner, first.y, thread + threads);
        next.kernel.b = weights[or_first(k1, job.weights)];
        next.exist |= exists(k1, 5u);
    }
    if 2u * threads < TILE_CHANNELS * DEPTH {
        let k2 = kernel_at(job, done, inner, first.y, thread + 2u * threads);
        let k3 = kernel_at(job, done, inner, first.y, thread + 3u * threads);
        next.kernel.c = weights[or_first(k2, job.weights)];
        next.kernel.d = weights[or_first(k3, job.weights)];
        next.exist |= exists(k2, 6u) | exists(k3, 7u);
    }
    return next;
}

// Puts what was asked for where all invocations read it.
fn put_down(next: Fetched, thread: u32, threads: u32) {
    let step = threads / DEPTH;
    let at = thread % DEPTH * WINDOW_STRIDE + thread / DEPTH;
    window[at] = known_if(next.exist, 0u, known4(next.window.a, next.rest));
    if step < TILE_PIXELS {
        window[at + step] = known_if(next.exist, 1u, known4(next.window.b, next.rest));
    }
    if 2u * step < TILE_PIXELS {
        window[at + 2u * step] = known_if(next.exist, 2u, known4(next.window.c, next.rest));
        window[at + 3u * step] = known_if(next.exist, 3u, known4(next.window.d, next.rest));
    }
    kernel[thread] = known_if(next.exist, 4u, vec4<f32>(next.kernel.a));
    if threads < TILE_CHANNELS * DEPTH {
        kernel[thread + threads] = known_if(next.exist, 5u, vec4<f32>(next.kernel.b));
    }
    if 2u * threads < TILE_CHANNELS * DEPTH {
        kernel[thread + 2u * threads] = known_if(next.exist, 6u, vec4<f32>(next.kernel.c));
        kernel[thread + 3u * threads] = known_if(next.exist, 7u, vec4<f32>(next.kernel.d));
    }
}

// Adds four input channels, each times its weights for four output channels.
fn products(value: vec4<f32>, k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    var result = fma(vec4<f32>(value.x), k0, sum);
    result = fma(vec4<f32>(value.y), k1, result);
    result = fma(vec4<f32>(value.z), k2, result);
    return fma(vec4<f32>(value.w), k3, result);
}
