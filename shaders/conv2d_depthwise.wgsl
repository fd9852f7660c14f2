// Convolution of each channel with a kernel of its own. An invocation computes four channels of a pixel.

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

@compute @workgroup_size(THREADS, 1, 1)
fn conv2d_depthwise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let part = part_of((workgroup - job.first_workgroup) * THREADS + thread, job.channels);
    if part.pixel >= job.pixels {
        return;
    }
    let groups = (job.channels + 3u) / 4u;
    let first = part.pixel / job.image_pixels * job.in_h * job.in_w;
    let top = i32(part.pixel % job.image_pixels / job.row_pixels * job.stride_h) - i32(job.pad_h);
    let left = i32(part.pixel % job.row_pixels * job.stride_w) - i32(job.pad_w);
    var sum = weight4(job.bias + part.channel / 4u);
    for (var ky = 0u; ky < job.kernel_h; ky++) {
        let y = top + i32(ky);
        if y < 0 || y >= i32(job.in_h) {
            continue;
        }
        for (var kx = 0u; kx < job.kernel_w; kx++) {
            let x = left + i32(kx);
            if x < 0 || x >= i32(job.in_w) {
                continue;
            }
            let cell = first + u32(y) * job.in_w + u32(x);
            let value = load4(job.input + cell * job.input_stride + part.channel, part.rest);
            let weight = (ky * job.kernel_w + kx) * groups + part.channel / 4u;
            sum = fma(value, weight4(job.weights + weight), sum);
        }
    }
    var value = activate(sum, job.activation);
    if job.residual_stride > 0u {
        value += load4(job.residual + part.pixel * job.residual_stride + part.channel, part.rest);
    }
    store4(job.output + part.pixel * job.output_stride + part.channel, part.rest, value);
}
