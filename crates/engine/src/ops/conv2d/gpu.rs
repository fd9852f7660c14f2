//! Convolution on the GPU: a matrix product, or for depthwise ones a sum for each channel.

use ferroyolo_kernels::{Activation, View};
use ferroyolo_shaders::{CONV2D, CONV2D_DEPTHWISE, Lanes};

use super::{Conv2d, ConvWeights};
use crate::backend::gpu::{GpuWeights, Job, Packer, Product, THREADS, job_struct, lanes_for, pixels, word};
use crate::ops::StepIo;

job_struct! {
    /// `Job` of `conv2d.wgsl`.
    ConvJob {
        first_workgroup, tiles_across, pixels, image_pixels, row_pixels, in_h, in_w, in_channels, out_channels,
        kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, input, input_stride, output, output_stride, residual,
        residual_stride, weights, bias, activation, step_h, step_w, shift_h, shift_w,
    }
}

job_struct! {
    /// `Job` of `conv2d_depthwise.wgsl`.
    DepthwiseJob {
        first_workgroup, pixels, image_pixels, row_pixels, in_h, in_w, channels, kernel_h, kernel_w, stride_h,
        stride_w, pad_h, pad_w, input, input_stride, output, output_stride, residual, residual_stride, weights, bias,
        activation,
    }
}

/// The member of [`ConvJob`] that counts tiles.
pub(crate) const CONV_ACROSS: usize = 1;

/// Members of [`ConvJob`] and [`DepthwiseJob`] that count vectors of weights.
pub(crate) const CONV_WEIGHTS: &[usize] = &[21, 22];
pub(crate) const DEPTHWISE_WEIGHTS: &[usize] = &[19, 20];

/// Pixels of a row that an invocation of `conv2d_depthwise.wgsl` computes, the shader's own number.
const STRIP: usize = 4;

/// The trained values as shaders read them: rows are kernel cells by input channels in fours, columns output channels.
pub(crate) fn pack(op: &Conv2d, values: &ConvWeights, packer: &mut Packer<'_>) {
    let cells = op.kernel[0] * op.kernel[1];
    if op.is_depthwise() {
        packer.push(cells, op.out_channels, &values.bias, |cell, c| values.weight[c * cells + cell]);
        return;
    }
    let ic = op.in_channels;
    let padded = ic.next_multiple_of(4);
    packer.push(cells * padded, op.out_channels, &values.bias, |row, o| {
        let (cell, c) = (row / padded, row % padded);
        if c < ic { values.weight[(o * ic + c) * cells + cell] } else { 0.0 }
    });
}

pub(crate) fn job(op: &Conv2d, weights: &GpuWeights, io: &StepIo<'_>) -> Job {
    let (input, output) = (io.inputs[0], io.output);
    if op.is_depthwise() {
        return depthwise_job(op, weights, io);
    }
    let packed = weights.places[op.weights];
    let mut job = conv_job(&input, &output, [op.in_channels, op.out_channels]);
    [job.kernel_h, job.kernel_w] = op.kernel.map(word);
    [job.stride_h, job.stride_w] = op.stride.map(word);
    [job.pad_h, job.pad_w] = op.padding.map(word);
    (job.weights, job.bias, job.activation) = (packed.weights, packed.bias, number(op.activation));
    if let Some(residual) = io.inputs.get(1) {
        (job.residual, job.residual_stride) = (word(residual.offset), word(residual.pixel_stride));
    }
    let views: Vec<View> = io.inputs.iter().copied().chain([output]).collect();
    finish(job, &views)
}

/// A 1x1 convolution from one view to another, without trained values.
pub(crate) fn conv_job(input: &View, output: &View, [ic, oc]: [usize; 2]) -> ConvJob {
    ConvJob {
        pixels: word(pixels(output)),
        image_pixels: word(output.pixels()),
        row_pixels: word(output.w),
        in_h: word(input.h),
        in_w: word(input.w),
        in_channels: word(ic),
        out_channels: word(oc),
        kernel_h: 1,
        kernel_w: 1,
        stride_h: 1,
        stride_w: 1,
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
        step_h: 1,
        step_w: 1,
        ..ConvJob::default()
    }
}

impl ConvJob {
    /// Whether each pixel is taken once, by a kernel of one cell.
    fn is_pointwise(&self) -> bool {
        [self.kernel_h, self.kernel_w, self.stride_h, self.stride_w] == [1; 4]
            && [self.pad_h, self.pad_w] == [0; 2]
    }

    /// One past the last element of the arena that shaders reach by these words, and past the last one of all numbers if
    /// they would divide by zero or loop without end.
    fn arena_end(&self, lanes: Lanes) -> usize {
        let divisors = [
            [self.image_pixels, self.row_pixels, self.kernel_h, self.kernel_w],
            [self.pixels, self.in_h, self.in_w, self.in_channels],
        ];
        if divisors.as_flattened().contains(&0) || self.out_channels == 0 {
            return usize::MAX;
        }
        let end = |offset: u32, stride: u32, last_pixel: u128, channels: u32| {
            let channels = match lanes {
                Lanes::One => channels,
                Lanes::Four => channels.next_multiple_of(4),
            };
            u128::from(offset) + last_pixel * u128::from(stride) + u128::from(channels)
        };
        let [pixels, row_pixels, step_w] = [self.pixels, self.row_pixels, self.step_w].map(u128::from);
        let of_an_image = u128::from(self.in_h) * u128::from(self.in_w);
        let taken = u128::from(self.pixels.div_ceil(self.image_pixels)) * of_an_image;
        let taken = if self.is_pointwise() { taken.max(pixels) } else { taken };
        let row = (pixels - 1) / row_pixels * u128::from(self.step_h) + u128::from(self.shift_h);
        let written = (row * row_pixels + row_pixels - 1) * step_w + u128::from(self.shift_w);
        let ends = [
            end(self.input, self.input_stride, taken - 1, self.in_channels),
            end(self.output, self.output_stride, written, self.out_channels),
            end(self.residual, self.residual_stride, pixels - 1, self.out_channels),
        ];
        let has_residual = self.residual_stride > 0;
        let last = ends[0].max(ends[1]).max(if has_residual { ends[2] } else { 0 });
        usize::try_from(last).unwrap_or(usize::MAX)
    }
}

/// Says what of the weights is read, and leaves the tiles open.
///
/// Panics if the weights of the job go beyond its bias.
pub(crate) fn finish(job: ConvJob, views: &[View]) -> Job {
    let out_groups = job.out_channels.div_ceil(4);
    let rows = [job.kernel_h, job.kernel_w, job.in_channels.div_ceil(4), 4].map(u128::from);
    let n_vectors = rows.into_iter().product::<u128>() * u128::from(out_groups);
    assert!(u128::from(job.weights) + n_vectors <= u128::from(job.bias), "the bias lies behind the weights");
    let (lanes, overrides) = lanes_for(views);
    let product = Product {
        images: (job.pixels / job.image_pixels) as usize,
        rows: job.pixels as usize,
        columns: job.out_channels as usize,
        cells: (job.kernel_h * job.kernel_w) as usize,
        channels: job.in_channels as usize,
        is_pointwise: job.is_pointwise(),
        across: CONV_ACROSS,
        arena_end: job.arena_end(lanes),
    };
    Job {
        shader: CONV2D,
        overrides,
        lanes,
        workgroups: 0,
        workgroup_bytes: 0,
        weights: Some((job.weights..job.bias + out_groups, CONV_WEIGHTS)),
        words: job.words(),
        product: Some(product),
    }
}

fn depthwise_job(op: &Conv2d, weights: &GpuWeights, io: &StepIo<'_>) -> Job {
    let (input, output) = (io.inputs[0], io.output);
    let packed = weights.places[op.weights];
    let residual = io.inputs.get(1);
    let job = DepthwiseJob {
        first_workgroup: 0,
        pixels: word(pixels(&output)),
        image_pixels: word(output.pixels()),
        row_pixels: word(output.w),
        in_h: word(input.h),
        in_w: word(input.w),
        channels: word(op.out_channels),
        kernel_h: word(op.kernel[0]),
        kernel_w: word(op.kernel[1]),
        stride_h: word(op.stride[0]),
        stride_w: word(op.stride[1]),
        pad_h: word(op.padding[0]),
        pad_w: word(op.padding[1]),
        input: word(input.offset),
        input_stride: word(input.pixel_stride),
        output: word(output.offset),
        output_stride: word(output.pixel_stride),
        residual: residual.map_or(0, |view| word(view.offset)),
        residual_stride: residual.map_or(0, |view| word(view.pixel_stride)),
        weights: packed.weights,
        bias: packed.bias,
        activation: number(op.activation),
    };
    let views: Vec<View> = io.inputs.iter().copied().chain([output]).collect();
    let (lanes, overrides) = lanes_for(&views);
    let n_groups = op.out_channels.div_ceil(4);
    Job {
        shader: CONV2D_DEPTHWISE,
        overrides,
        lanes,
        workgroups: (output.n * output.h * output.w.div_ceil(STRIP) * n_groups).div_ceil(THREADS),
        workgroup_bytes: 0,
        weights: Some((packed.weights..packed.bias + word(n_groups), DEPTHWISE_WEIGHTS)),
        words: job.words(),
        product: None,
    }
}

/// The number of an activation in `activation.wgsl`.
pub(crate) fn number(activation: Activation) -> u32 {
    match activation {
        Activation::None => 0,
        Activation::Silu => 1,
        Activation::Relu => 2,
        Activation::Sigmoid => 3,
    }
}
