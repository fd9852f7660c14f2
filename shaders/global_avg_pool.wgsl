// Mean of each channel over a whole map. A workgroup computes four channels of an image.

struct Job {
    first_workgroup: u32,
    images: u32,
    // Pixels of one image.
    image_pixels: u32,
    channels: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
    output: u32,
    output_stride: u32,
}

override THREADS: u32 = 64u;

var<workgroup> sums: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS, 1, 1)
fn global_avg_pool(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let idx = workgroup - job.first_workgroup;
    let groups = (job.channels + 3u) / 4u;
    let image = idx / groups;
    if image >= job.images {
        return;
    }
    let channel = idx % groups * 4u;
    let rest = job.channels - channel;
    var sum = vec4<f32>(0.0);
    for (var pixel = thread; pixel < job.image_pixels; pixel += THREADS) {
        sum += load4(job.input + (image * job.image_pixels + pixel) * job.input_stride + channel, rest);
    }
    sums[thread] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    if thread == 0u {
        store4(job.output + image * job.output_stride + channel, rest, sums[0] / f32(job.image_pixels));
    }
}
