// Convolution of each channel with a kernel of its own. An invocation computes four channels of four pixels of a row, so
// that weights are read once for all of them, and with a stride of one the inputs of a row, too.

struct Job {
    first_workgroup: u32,
    // Output pixels of all images, of one image, and of one row.
    pixels: u32,
    image_pixels: u32,
    row_pixels: u32,
    in_h: u32,
    in_w: u32,
    channels: u32,
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
    // Vectors of the first kernel cell and of the bias.
    weights: u32,
    bias: u32,
    activation: u32,
}

override THREADS: u32 = 64u;

// Pixels of an invocation.
const STRIP: u32 = 4u;

// Four channels of the input pixel `x` of the row that begins at element `row`; zero beside the map.
fn load_cell(job: Job, row: u32, x: i32, rest: u32) -> vec4<f32> {
    if x < 0 || x >= i32(job.in_w) {
        return vec4<f32>(0.0);
    }
    return load4(row + u32(x) * job.input_stride, rest);
}

// Writes four channels of the output pixel `x` of a row, if there is such a pixel.
fn finish(job: Job, first_pixel: u32, x: u32, channel: u32, sum: vec4<f32>) {
    if x >= job.row_pixels {
        return;
    }
    let pixel = first_pixel + x;
    let rest = job.channels - channel;
    var value = activate(sum, job.activation);
    if job.residual_stride > 0u {
        value += load4(job.residual + pixel * job.residual_stride + channel, rest);
    }
    store4(job.output + pixel * job.output_stride + channel, rest, value);
}

@compute @workgroup_size(THREADS, 1, 1)
fn conv2d_depthwise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    // The strip of this invocation, in place of a pixel.
    let part = part_of((workgroup - job.first_workgroup) * THREADS + thread, job.channels);
    let strips = (job.row_pixels + STRIP - 1u) / STRIP;
    let row = part.pixel / strips;
    if row >= job.pixels / job.row_pixels {
        return;
    }
    let rows = job.image_pixels / job.row_pixels;
    let groups = (job.channels + 3u) / 4u;
    let first = row / rows * job.in_h;
    let top = i32(row % rows * job.stride_h) - i32(job.pad_h);
    let x = part.pixel % strips * STRIP;
    let left = i32(x * job.stride_w) - i32(job.pad_w);
    let step = i32(job.stride_w);
    let bias = weight4(job.bias + part.channel / 4u);
    var s0 = bias;
    var s1 = bias;
    var s2 = bias;
    var s3 = bias;
    for (var ky = 0u; ky < job.kernel_h; ky++) {
        let y = top + i32(ky);
        if y < 0 || y >= i32(job.in_h) {
            continue;
        }
        let line = job.input + (first + u32(y)) * job.in_w * job.input_stride + part.channel;
        let weights_of_row = job.weights + ky * job.kernel_w * groups + part.channel / 4u;
        var v0 = vec4<f32>(0.0);
        var v1 = vec4<f32>(0.0);
        var v2 = vec4<f32>(0.0);
        for (var kx = 0u; kx < job.kernel_w; kx++) {
            let at = left + i32(kx);
            // With a stride of one, all but the last are those of the cell before, one further on.
            if kx == 0u || step != 1 {
                v0 = load_cell(job, line, at, part.rest);
                v1 = load_cell(job, line, at + step, part.rest);
                v2 = load_cell(job, line, at + 2 * step, part.rest);
            }
            let v3 = load_cell(job, line, at + 3 * step, part.rest);
            let weight = weight4(weights_of_row + kx * groups);
            s0 = fma(v0, weight, s0);
            s1 = fma(v1, weight, s1);
            s2 = fma(v2, weight, s2);
            s3 = fma(v3, weight, s3);
            v0 = v1;
            v1 = v2;
            v2 = v3;
        }
    }
    let first_pixel = row * job.row_pixels;
    finish(job, first_pixel, x, part.channel, s0);
    finish(job, first_pixel, x + 1u, part.channel, s1);
    finish(job, first_pixel, x + 2u, part.channel, s2);
    finish(job, first_pixel, x + 3u, part.channel, s3);
}
