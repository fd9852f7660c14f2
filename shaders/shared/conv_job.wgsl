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
