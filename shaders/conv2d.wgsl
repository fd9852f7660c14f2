// Convolution in tiles, by invocations of four pixels and four channels each. On small maps, several of them share the
// rounds of the inner dimension: there are few tiles, and each is ready sooner.

@compute @workgroup_size(TILE_CHANNELS / 4u, TILE_PIXELS / 4u, SPLIT)
fn conv2d(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let tile = workgroup - job.first_workgroup;
    let first_pixel = tile / job.tiles_across * TILE_PIXELS;
    let first_channel = tile % job.tiles_across * TILE_CHANNELS;
    if first_pixel >= job.pixels {
        return;
    }
    let threads = TILE_CHANNELS * TILE_PIXELS / 16u * SPLIT;
    let inner = job.kernel_h * job.kernel_w * ((job.in_channels + 3u) / 4u);
    find_origins(job, first_pixel, thread, threads);
    workgroupBarrier();

    var place = further(Place(0u, 0u, 0u), thread % DEPTH, job);
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var next: Fetched;
    if AHEAD == 1u {
        next = ask(job, place, 0u, inner, vec2<u32>(first_pixel, first_channel), thread, threads);
    }
    for (var done = 0u; done < inner; done += DEPTH) {
        if AHEAD == 1u {
            put_down(next, thread, threads);
        } else {
            fetch_window(job, place, first_pixel, thread, threads);
            fetch_kernel(job, done, inner, first_channel, thread, threads);
        }
        place = further(place, DEPTH, job);
        workgroupBarrier();
        if AHEAD == 1u && done + DEPTH < inner {
            next = ask(job, place, done + DEPTH, inner, vec2<u32>(first_pixel, first_channel), thread, threads);
        }
        for (var depth = local.z; depth < DEPTH; depth += SPLIT) {
            let row = depth * TILE_CHANNELS + local.x;
            let k0 = kernel[row];
            let k1 = kernel[row + TILE_CHANNELS / 4u];
            let k2 = kernel[row + TILE_CHANNELS / 2u];
            let k3 = kernel[row + TILE_CHANNELS / 4u * 3u];
            let at = depth * WINDOW_STRIDE + local.y * 4u;
            s0 = products(window[at], k0, k1, k2, k3, s0);
            s1 = products(window[at + 1u], k0, k1, k2, k3, s1);
            s2 = products(window[at + 2u], k0, k1, k2, k3, s2);
            s3 = products(window[at + 3u], k0, k1, k2, k3, s3);
        }
        workgroupBarrier();
    }

    // Sums of the others pass through what was the window, which has room for all pixels by so many channels.
    let own = local.y * TILE_CHANNELS + local.x;
    for (var other = 1u; other < SPLIT; other++) {
        if local.z == other {
            window[own] = s0;
            window[own + TILE_CHANNELS / 4u] = s1;
            window[own + TILE_CHANNELS / 2u] = s2;
            window[own + TILE_CHANNELS / 4u * 3u] = s3;
        }
        workgroupBarrier();
        if local.z == 0u {
            s0 += window[own];
            s1 += window[own + TILE_CHANNELS / 4u];
            s2 += window[own + TILE_CHANNELS / 2u];
            s3 += window[own + TILE_CHANNELS / 4u * 3u];
        }
        workgroupBarrier();
    }
    if local.z > 0u {
        return;
    }
    let channel = first_channel + local.x * 4u;
    let pixel = first_pixel + local.y * 4u;
    finish(job, pixel, channel, s0);
    finish(job, pixel + 1u, channel, s1);
    finish(job, pixel + 2u, channel, s2);
    finish(job, pixel + 3u, channel, s3);
}
