// Convolution as a matrix product that is never laid out: rows are output pixels, columns output channels, and the inner
// dimension runs over kernel cells and input channels. A transposed convolution whose kernel is as large as its stride is
// one 1x1 job for each cell of the kernel.

struct Job {
    first_workgroup: u32,
    // Tiles along the output channels.
    tiles_across: u32,
    // Output pixels of all images, of one image, and of one row.
    pixels: u32,
    image_pixels: u32,
    row_pixels: u32,
    // Input extents.
    in_h: u32,
    in_w: u32,
    in_channels: u32,
    out_channels: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
    output: u32,
    output_stride: u32,
    // Zero stride: there is none.
    residual: u32,
    residual_stride: u32,
    // Vectors of the first kernel row and of the bias.
    weights: u32,
    bias: u32,
    activation: u32,
    // The output pixel (y, x) lies at (y * step_h + shift_h, x * step_w + shift_w) of the map.
    step_h: u32,
    step_w: u32,
    shift_h: u32,
    shift_w: u32,
}

// Output pixels and output channels of a workgroup's tile, multiples of four, and input channels of a round in fours.
override TILE_PIXELS: u32 = 64u;
override TILE_CHANNELS: u32 = 64u;
override DEPTH: u32 = 4u;

// Where an output pixel's window begins: row, column, first pixel of its image; the last is 1 if there is such a pixel.
var<workgroup> origins: array<vec4<i32>, TILE_PIXELS>;
var<workgroup> window: array<vec4<f32>, TILE_PIXELS * DEPTH>;
var<workgroup> kernel: array<vec4<f32>, TILE_CHANNELS * DEPTH>;

@compute @workgroup_size(TILE_CHANNELS / 4u, TILE_PIXELS / 4u, 1)
fn conv2d(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let tile = workgroup - job.first_workgroup;
    let first_pixel = tile / job.tiles_across * TILE_PIXELS;
    let first_channel = tile % job.tiles_across * TILE_CHANNELS;
    if first_pixel >= job.pixels {
        return;
    }
    let threads = TILE_CHANNELS * TILE_PIXELS / 16u;
    let in_groups = (job.in_channels + 3u) / 4u;
    let out_groups = (job.out_channels + 3u) / 4u;
    let inner = job.kernel_h * job.kernel_w * in_groups;

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
    workgroupBarrier();

    var sums = array<vec4<f32>, 4>();
    for (var done = 0u; done < inner; done += DEPTH) {
        for (var i = thread; i < TILE_PIXELS * DEPTH; i += threads) {
            let at = done + i % DEPTH;
            let origin = origins[i / DEPTH];
            let cell = at / in_groups;
            let y = origin.x + i32(cell / job.kernel_w);
            let x = origin.y + i32(cell % job.kernel_w);
            let is_inside = y >= 0 && y < i32(job.in_h) && x >= 0 && x < i32(job.in_w);
            var value = vec4<f32>(0.0);
            if at < inner && is_inside && origin.w == 1 {
                let pixel = u32(origin.z + y * i32(job.in_w) + x);
                let channel = at % in_groups * 4u;
                value = load4(job.input + pixel * job.input_stride + channel, job.in_channels - channel);
            }
            window[i] = value;
        }
        for (var i = thread; i < TILE_CHANNELS * DEPTH; i += threads) {
            let row = done * 4u + i / (TILE_CHANNELS / 4u);
            let column = first_channel / 4u + i % (TILE_CHANNELS / 4u);
            var value = vec4<f32>(0.0);
            if row < inner * 4u && column < out_groups {
                value = weight4(job.weights + row * out_groups + column);
            }
            kernel[i] = value;
        }
        workgroupBarrier();
        for (var depth = 0u; depth < DEPTH; depth++) {
            let row = depth * TILE_CHANNELS + local.x;
            let k0 = kernel[row];
            let k1 = kernel[row + TILE_CHANNELS / 4u];
            let k2 = kernel[row + TILE_CHANNELS / 2u];
            let k3 = kernel[row + TILE_CHANNELS / 4u * 3u];
            for (var i = 0u; i < 4u; i++) {
                let value = window[(local.y * 4u + i) * DEPTH + depth];
                sums[i] = fma(vec4<f32>(value.x), k0, sums[i]);
                sums[i] = fma(vec4<f32>(value.y), k1, sums[i]);
                sums[i] = fma(vec4<f32>(value.z), k2, sums[i]);
                sums[i] = fma(vec4<f32>(value.w), k3, sums[i]);
            }
        }
        workgroupBarrier();
    }

    let channel = first_channel + local.x * 4u;
    if channel >= job.out_channels {
        return;
    }
    let bias = weight4(job.bias + channel / 4u);
    let rest = job.out_channels - channel;
    for (var i = 0u; i < 4u; i++) {
        let pixel = first_pixel + local.y * 4u + i;
        if pixel >= job.pixels {
            return;
        }
        var value = activate(sums[i] + bias, job.activation);
        if job.residual_stride > 0u {
            value += load4(job.residual + pixel * job.residual_stride + channel, rest);
        }
        let row = pixel / job.row_pixels * job.step_h + job.shift_h;
        let column = pixel % job.row_pixels * job.step_w + job.shift_w;
        let place = row * job.row_pixels * job.step_w + column;
        store4(job.output + place * job.output_stride + channel, rest, value);
    }
}
