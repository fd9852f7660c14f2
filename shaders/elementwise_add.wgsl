// output = activate(a) + b, element by element, on maps that lie in wider buffers.

struct Params {
    // Pixels of all images, and channels of each.
    pixels: u32,
    channels: u32,
    // Elements from one pixel to the next.
    a_stride: u32,
    b_stride: u32,
    output_stride: u32,
    // Element of the first channel of the first pixel.
    a_offset: u32,
    b_offset: u32,
    output_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64, 4, 1)
fn elementwise_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    let pixel = id.y;
    if channel >= params.channels || pixel >= params.pixels {
        return;
    }
    let left = a[params.a_offset + pixel * params.a_stride + channel];
    let right = b[params.b_offset + pixel * params.b_stride + channel];
    output[params.output_offset + pixel * params.output_stride + channel] = activate(left) + right;
}
