// A convolution as a matrix product, for all shaders that compute it so.

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
