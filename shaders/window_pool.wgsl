// Largest value or mean of each window. An invocation computes four channels of a pixel. Padding never wins, and means
// have none.

struct Job {
    first_workgroup: u32,
    // Output pixels of all images, of one image, and of one row.
    pixels: u32,
    image_pixels: u32,
    row_pixels: u32,
    in_h: u32,
    in_w: u32,
    channels: u32,
    kernel: u32,
    stride: u32,
    pad: u32,
    // 1: the mean, else the largest value.
    is_mean: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
    output: u32,
    output_stride: u32,
}

override THREADS: u32 = 64u;

@compute @workgroup_size(THREADS, 1, 1)
fn window_pool(
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
    let first = part.pixel / job.image_pixels * job.in_h * job.in_w;
    let top = i32(part.pixel % job.image_pixels / job.row_pixels * job.stride) - i32(job.pad);
    let left = i32(part.pixel % job.row_pixels * job.stride) - i32(job.pad);
    // The lowest finite number; WGSL has no infinities.
    var largest = vec4<f32>(-3.4028234e38);
    var sum = vec4<f32>(0.0);
    for (var y = max(top, 0); y < min(top + i32(job.kernel), i32(job.in_h)); y++) {
        for (var x = max(left, 0); x < min(left + i32(job.kernel), i32(job.in_w)); x++) {
            let cell = first + u32(y) * job.in_w + u32(x);
            let value = load4(job.input + cell * job.input_stride + part.channel, part.rest);
            largest = max(largest, value);
            sum += value;
        }
    }
    let mean = sum / f32(job.kernel * job.kernel);
    store4(job.output + part.pixel * job.output_stride + part.channel, part.rest, select(largest, mean, job.is_mean == 1u));
}
