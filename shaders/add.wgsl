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
    let idx = (workgroup - job.first_workgroup) * THREADS + thread;
    let groups = (job.channels + 3u) / 4u;
    let pixel = idx / groups;
    if pixel >= job.pixels {
        return;
    }
    let channel = idx % groups * 4u;
    let rest = job.channels - channel;
    let left = load4(job.a + pixel * job.a_stride + channel, rest);
    let right = load4(job.b + pixel * job.b_stride + channel, rest);
    store4(job.output + pixel * job.output_stride + channel, rest, left + right);
}
