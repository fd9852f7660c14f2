// Mean of each channel over a whole map. A workgroup computes eight channels of an image.

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

fn run(workgroup: u32, me: Invocation) {
    let job = jobs[find_job(workgroup)];
    let idx = workgroup - job.first_workgroup;
    let groups = (job.channels + 7u) / 8u;
    let image = idx / groups;
    if image >= job.images {
        return;
    }
    let channel = idx % groups * 8u;
    let rest = job.channels - channel;
    var sums = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var pixel = me.thread; pixel < job.image_pixels; pixel += THREADS) {
        let at = job.input + (image * job.image_pixels + pixel) * job.input_stride + channel;
        sums.low += load4(at, rest);
        if rest > 4u {
            sums.high += load4(at + 4u, rest - 4u);
        }
    }
    let all = sums_of_all(me, sums);
    if me.thread == 0u {
        let at = job.output + image * job.output_stride + channel;
        store4(at, rest, all.low / f32(job.image_pixels));
        if rest > 4u {
            store4(at + 4u, rest - 4u, all.high / f32(job.image_pixels));
        }
    }
}
