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
// 1: all jobs have 1x1 kernels, which take each pixel once.
override POINTWISE: u32 = 0u;

// Where an output pixel's window begins: row, column, first pixel of its image; the last is 1 if there is such a pixel.
var<workgroup> origins: array<vec4<i32>, TILE_PIXELS>;
// Input channels by four, then by pixel.
var<workgroup> window: array<vec4<f32>, WINDOW_STRIDE * DEPTH>;
// Weights by input channel, then by four output channels.
var<workgroup> kernel: array<vec4<f32>, TILE_CHANNELS * DEPTH>;

// The place of four input channels in the inner dimension: a cell of the kernel and a group of channels.
struct Place {
    y: u32,
    x: u32,
    channel: u32,
}

// The place so many groups of channels further on.
fn further(place: Place, groups: u32, job: Job) -> Place {
    var next = place;
    next.channel += groups * 4u;
    let all = (job.in_channels + 3u) / 4u * 4u;
    while next.channel >= all {
        next.channel -= all;
        next.x++;
        if next.x == job.kernel_w {
            next.x = 0u;
            next.y++;
        }
    }
    return next;
}

// Of 1x1 kernels nothing is looked up.
fn find_origins(job: Job, first_pixel: u32, thread: u32, threads: u32) {
    if POINTWISE == 1u {
        return;
    }
    for (var i = thread; i < TILE_PIXELS; i += threads) {
        let pixel = first_pixel + i;
        let image = pixel / job.image_pixels;
        let y = pixel % job.image_pixels / job.row_pixels;
        let x = pixel % job.row_pixels;
        origins[i] = vec4<i32>(
            i32(y * job.stride_h) - i32(job.pad_h),
            i32(x * job.stride_w) - i32(job.pad_w),
            i32(image * job.in_h * job.in_w),
            select(0, 1, pixel < job.pixels),
        );
    }
}

// Input channels of one group for all pixels of the tile; an invocation takes those of its own depth.
fn fetch_window(job: Job, place: Place, first_pixel: u32, thread: u32, threads: u32) {
    let depth = thread % DEPTH * WINDOW_STRIDE;
    let is_cell = place.y < job.kernel_h;
    let start = job.input + place.channel;
    let rest = job.in_channels - place.channel;
    for (var i = thread / DEPTH; i < TILE_PIXELS; i += threads / DEPTH) {
        var value = vec4<f32>(0.0);
        if POINTWISE == 1u {
            if is_cell && first_pixel + i < job.pixels {
                value = load4(start + (first_pixel + i) * job.input_stride, rest);
            }
        } else {
            let origin = origins[i];
            let y = origin.x + i32(place.y);
            let x = origin.y + i32(place.x);
            let is_inside = y >= 0 && y < i32(job.in_h) && x >= 0 && x < i32(job.in_w);
            if is_cell && is_inside && origin.w == 1 {
                value = load4(start + u32(origin.z + y * i32(job.in_w) + x) * job.input_stride, rest);
            }
        }
        window[depth + i] = value;
    }
}

// Weights of a round from the inner dimension's group `done` on.
fn fetch_kernel(job: Job, done: u32, inner: u32, first_channel: u32, thread: u32, threads: u32) {
    let across = TILE_CHANNELS / 4u;
    let out_groups = (job.out_channels + 3u) / 4u;
    for (var i = thread; i < TILE_CHANNELS * DEPTH; i += threads) {
        let row = done * 4u + i / across;
        let column = first_channel / 4u + i % across;
        var value = vec4<f32>(0.0);
        if row < inner * 4u && column < out_groups {
            value = weight4(job.weights + row * out_groups + column);
        }
        kernel[i] = value;
    }
}

// Adds four input channels, each times its weights for four output channels.
fn products(value: vec4<f32>, k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    var result = fma(vec4<f32>(value.x), k0, sum);
    result = fma(vec4<f32>(value.y), k1, result);
    result = fma(vec4<f32>(value.z), k2, result);
    return fma(vec4<f32>(value.w), k3, result);
}

// Writes four output channels of a pixel, if they exist.
fn finish(job: Job, pixel: u32, channel: u32, sum: vec4<f32>) {
    if pixel >= job.pixels || channel >= job.out_channels {
        return;
    }
    let rest = job.out_channels - channel;
    var value = activate(sum + weight4(job.bias + channel / 4u), job.activation);
    if job.residual_stride > 0u {
        value += load4(job.residual + pixel * job.residual_stride + channel, rest);
    }
    let row = pixel / job.row_pixels * job.step_h + job.shift_h;
    let column = pixel % job.row_pixels * job.step_w + job.shift_w;
    let place = row * job.row_pixels * job.step_w + column;
    store4(job.output + place * job.output_stride + channel, rest, value);
}
