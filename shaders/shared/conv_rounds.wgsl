// The inner dimension of a convolution, and who reads what of it. It runs over kernel cells and input channels, and is
// taken in rounds by way of workgroup memory.

// 1: all jobs have 1x1 kernels, which take each pixel once.
override POINTWISE: u32 = 0u;
// 1: while the sums of a round are computed, the vectors of the next one are on their way. Each invocation holds those
// that it brings in registers, as they lie in memory, since whatever is made of them has to wait for them.
override AHEAD: u32 = 0u;

// Where an output pixel's window begins: row, column, first pixel of its image; the last is 1 if there is such a pixel.
var<workgroup> origins: array<vec4<i32>, TILE_PIXELS>;

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

// In place of what does not exist.
const NOWHERE: u32 = 0xffffffffu;

// The input pixel that output pixel `i` of a tile takes at a place, or nowhere: beside the map, behind the last output
// pixel or behind the last cell of the kernel.
fn pixel_at(job: Job, place: Place, first_pixel: u32, i: u32) -> u32 {
    let is_cell = place.y < job.kernel_h;
    if POINTWISE == 1u {
        return select(NOWHERE, first_pixel + i, is_cell && first_pixel + i < job.pixels);
    }
    let origin = origins[i];
    let y = origin.x + i32(place.y);
    let x = origin.y + i32(place.x);
    let is_inside = y >= 0 && y < i32(job.in_h) && x >= 0 && x < i32(job.in_w) && origin.w == 1;
    return select(NOWHERE, u32(origin.z + y * i32(job.in_w) + x), is_cell && is_inside);
}

// Where vector `i` of a round's kernel lies among the weights, or nowhere.
fn kernel_at(job: Job, done: u32, inner: u32, first_channel: u32, i: u32) -> u32 {
    let across = TILE_CHANNELS / 4u;
    let out_groups = (job.out_channels + 3u) / 4u;
    let row = done * 4u + i / across;
    let column = first_channel / 4u + i % across;
    return select(NOWHERE, job.weights + row * out_groups + column, row < inner * 4u && column < out_groups);
}

// Vectors as they lie in memory.
struct Four {
    a: vec4<Element>,
    b: vec4<Element>,
    c: vec4<Element>,
    d: vec4<Element>,
}

// What an invocation brings to a round, as it lies in memory: up to four vectors of the window and of the kernel.
struct Fetched {
    window: Four,
    kernel: Four,
    // Which of them exist: the first bits are the window's, those from the fifth on the kernel's.
    exist: u32,
    // Input channels from those of the window on.
    rest: u32,
}

// What is read in place of what does not exist.
fn or_first(at: u32, first: u32) -> u32 {
    return select(at, first, at == NOWHERE);
}

// The bit of this number, if there is something.
fn exists(at: u32, bit: u32) -> u32 {
    return select(1u << bit, 0u, at == NOWHERE);
}

// A value if the bit of this number is set, else zero. What was read in its place may be no number.
fn known_if(exist: u32, bit: u32, value: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), value, (exist & (1u << bit)) != 0u);
}
