// A map of another size: cells repeated, mixed from their neighbours, or moved into a border of zeros. An invocation
// computes four channels of a pixel.

const NEAREST: u32 = 0u;
const BILINEAR: u32 = 1u;
const BILINEAR_CORNERS: u32 = 2u;
const PLACE: u32 = 3u;

struct Job {
    first_workgroup: u32,
    // Output pixels of all images, of one image, and of one row.
    pixels: u32,
    image_pixels: u32,
    row_pixels: u32,
    in_h: u32,
    in_w: u32,
    channels: u32,
    // One of the constants above.
    mode: u32,
    // For PLACE, where the first cell goes.
    top: u32,
    left: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
    output: u32,
    output_stride: u32,
}

override THREADS: u32 = 64u;

// The two cells between which an output cell lies, and how far it is from the first.
struct Between {
    first: u32,
    second: u32,
    share: f32,
}

fn between(at: u32, n_in: u32, n_out: u32, keeps_corners: bool) -> Between {
    var position = (f32(at) + 0.5) * f32(n_in) / f32(n_out) - 0.5;
    if keeps_corners {
        position = f32(at) * f32(n_in - 1u) / f32(max(n_out, 2u) - 1u);
    }
    position = clamp(position, 0.0, f32(n_in - 1u));
    let first = u32(position);
    return Between(first, min(first + 1u, n_in - 1u), position - f32(first));
}

@compute @workgroup_size(THREADS, 1, 1)
fn resample(
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
    let rows = job.image_pixels / job.row_pixels;
    let y = part.pixel % job.image_pixels / job.row_pixels;
    let x = part.pixel % job.row_pixels;
    let first = job.input + part.pixel / job.image_pixels * job.in_h * job.in_w * job.input_stride + part.channel;
    var value = vec4<f32>(0.0);
    switch job.mode {
        case BILINEAR, BILINEAR_CORNERS: {
            let keeps_corners = job.mode == BILINEAR_CORNERS;
            let down = between(y, job.in_h, rows, keeps_corners);
            let across = between(x, job.in_w, job.row_pixels, keeps_corners);
            let top = first + down.first * job.in_w * job.input_stride;
            let bottom = first + down.second * job.in_w * job.input_stride;
            let left = across.first * job.input_stride;
            let right = across.second * job.input_stride;
            let upper = mix(load4(top + left, part.rest), load4(top + right, part.rest), across.share);
            let lower = mix(load4(bottom + left, part.rest), load4(bottom + right, part.rest), across.share);
            value = mix(upper, lower, down.share);
        }
        case PLACE: {
            // Cells before the first one wrap around to numbers beyond the map.
            let from_y = y - job.top;
            let from_x = x - job.left;
            if from_y < job.in_h && from_x < job.in_w {
                value = load4(first + (from_y * job.in_w + from_x) * job.input_stride, part.rest);
            }
        }
        default: {
            let cell = y * job.in_h / rows * job.in_w + x * job.in_w / job.row_pixels;
            value = load4(first + cell * job.input_stride, part.rest);
        }
    }
    store4(job.output + part.pixel * job.output_stride + part.channel, part.rest, value);
}
