// Convolution in tiles, by invocations of eight pixels and eight channels each: twice as many products for each vector
// that is read from workgroup memory as with four by four, for maps with enough tiles.

@compute @workgroup_size(TILE_CHANNELS / 8u, TILE_PIXELS / 8u, 1)
fn conv2d_wide(
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
    let threads = TILE_CHANNELS * TILE_PIXELS / 64u;
    let inner = job.kernel_h * job.kernel_w * ((job.in_channels + 3u) / 4u);
    find_origins(job, first_pixel, thread, threads);
    workgroupBarrier();

    var place = further(Place(0u, 0u, 0u), thread % DEPTH, job);
    // Of each pixel, four channels in the first half of the tile and four in the second.
    var a0 = vec4<f32>(0.0);
    var b0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var b1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var b2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    var b3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0);
    var b4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0);
    var b5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0);
    var b6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0);
    var b7 = vec4<f32>(0.0);
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
        for (var depth = 0u; depth < DEPTH; depth++) {
            let row = depth * TILE_CHANNELS + local.x;
            let at = depth * WINDOW_STRIDE + local.y * 8u;
            let v0 = window[at];
            let v1 = window[at + 1u];
            let v2 = window[at + 2u];
            let v3 = window[at + 3u];
            let v4 = window[at + 4u];
            let v5 = window[at + 5u];
            let v6 = window[at + 6u];
            let v7 = window[at + 7u];
            let k0 = kernel[row];
            let k1 = kernel[row + TILE_CHANNELS / 4u];
            let k2 = kernel[row + TILE_CHANNELS / 2u];
            let k3 = kernel[row + TILE_CHANNELS / 4u * 3u];
            a0 = products(v0, k0, k1, k2, k3, a0);
            a1 = products(v1, k0, k1, k2, k3, a1);
            a2 = products(v2, k0, k1, k2, k3, a2);
            a3 = products(v3, k0, k1, k2, k3, a3);
            a4 = products(v4, k0, k1, k2, k3, a4);
            a5 = products(v5, k0, k1, k2, k3, a5);
            a6 = products(v6, k0, k1, k2, k3, a6);
            a7 = products(v7, k0, k1, k2, k3, a7);
            let half = row + TILE_CHANNELS / 8u;
            let l0 = kernel[half];
            let l1 = kernel[half + TILE_CHANNELS / 4u];
            let l2 = kernel[half + TILE_CHANNELS / 2u];
            let l3 = kernel[half + TILE_CHANNELS / 4u * 3u];
            b0 = products(v0, l0, l1, l2, l3, b0);
            b1 = products(v1, l0, l1, l2, l3, b1);
            b2 = products(v2, l0, l1, l2, l3, b2);
            b3 = products(v3, l0, l1, l2, l3, b3);
            b4 = products(v4, l0, l1, l2, l3, b4);
            b5 = products(v5, l0, l1, l2, l3, b5);
            b6 = products(v6, l0, l1, l2, l3, b6);
            b7 = products(v7, l0, l1, l2, l3, b7);
        }
        workgroupBarrier();
    }

    let pixel = first_pixel + local.y * 8u;
    let channel = first_channel + local.x * 4u;
    finish(job, pixel, channel, a0);
    finish(job, pixel + 1u, channel, a1);
    finish(job, pixel + 2u, channel, a2);
    finish(job, pixel + 3u, channel, a3);
    finish(job, pixel + 4u, channel, a4);
    finish(job, pixel + 5u, channel, a5);
    finish(job, pixel + 6u, channel, a6);
    finish(job, pixel + 7u, channel, a7);
    finish(job, pixel, channel + TILE_CHANNELS / 2u, b0);
    finish(job, pixel + 1u, channel + TILE_CHANNELS / 2u, b1);
    finish(job, pixel + 2u, channel + TILE_CHANNELS / 2u, b2);
    finish(job, pixel + 3u, channel + TILE_CHANNELS / 2u, b3);
    finish(job, pixel + 4u, channel + TILE_CHANNELS / 2u, b4);
    finish(job, pixel + 5u, channel + TILE_CHANNELS / 2u, b5);
    finish(job, pixel + 6u, channel + TILE_CHANNELS / 2u, b6);
    finish(job, pixel + 7u, channel + TILE_CHANNELS / 2u, b7);
}
