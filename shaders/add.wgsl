// The sum of two maps. An invocation computes four channels of a pixel.

struct Job {
    first_workgroup: u32,
    pixels: u32,
    channels: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    a: u32,
    a_stride: u32,
    b: u32,
    b_stride: u32,
    output: u32,
    output_stride: u32,
}

override THREADS: u32 = 64u;

@compute @workgroup_size(THREADS, 1, 1)
fn add(
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
    let left = load4(job.a + part.pixel * job.a_stride + part.channel, part.rest);
    let right = load4(job.b + part.pixel * job.b_stride + part.channel, part.rest);
    store4(job.output + part.pixel * job.output_stride + part.channel, part.rest, left + right);
}
