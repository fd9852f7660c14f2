// Scales pictures of 8-bit samples into the network's input, with padding around them. An invocation computes a pixel.
//
// Scaling is bilinear in whole numbers: across with weights of 11 bits, of which four bits are dropped, then down, where
// each product loses 16 bits before the sum is rounded. The host says which samples a pixel is made of, and which numbers
// the values from 0 to 255 stand for.

struct Job {
    first_workgroup: u32,
    // Which picture of the batch.
    image: u32,
    // Pixels of the input, and of one row.
    pixels: u32,
    row_pixels: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    output: u32,
    output_stride: u32,
}

// Words of a picture's header.
const HEADER_WORDS: u32 = 8u;
const TOP: u32 = 0u;
const LEFT: u32 = 1u;
// Size of the scaled picture.
const HEIGHT: u32 = 2u;
const WIDTH: u32 = 3u;
// The value of the padding.
const PAD: u32 = 4u;
// First words of the tables: for each scaled row the bytes at which the two source rows begin, and their weights; for each
// scaled column the place of its left sample in a row in bytes, and the weights of the left and the right one.
const ROWS: u32 = 5u;
const COLUMNS: u32 = 6u;
// Numbers that the 8-bit values stand for, as bits.
const VALUES: u32 = 7u;

override THREADS: u32 = 64u;

// The two weights of a pair, 16 bits each.
fn weights_of(word: u32) -> vec2<i32> {
    return vec2<i32>(i32(word & 0xffffu), i32(word >> 16u));
}

fn across(left: u32, weights: vec2<i32>) -> vec3<i32> {
    let first = vec3<i32>(sample(left), sample(left + 1u), sample(left + 2u));
    let second = vec3<i32>(sample(left + 3u), sample(left + 4u), sample(left + 5u));
    return (first * weights.x + second * weights.y) >> vec3<u32>(4u);
}

@compute @workgroup_size(THREADS, 1, 1)
fn letterbox(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let pixel = (workgroup - job.first_workgroup) * THREADS + thread;
    if pixel >= job.pixels {
        return;
    }
    let header = job.image * HEADER_WORDS;
    // Pixels above and left of the picture wrap around to numbers beyond it.
    let y = pixel / job.row_pixels - picture[header + TOP];
    let x = pixel % job.row_pixels - picture[header + LEFT];
    var value = vec3<u32>(picture[header + PAD]);
    if y < picture[header + HEIGHT] && x < picture[header + WIDTH] {
        let row = picture[header + ROWS] + y * 3u;
        let column = picture[header + COLUMNS] + x * 2u;
        let down = weights_of(picture[row + 2u]);
        let weights = weights_of(picture[column + 1u]);
        let above = (across(picture[row] + picture[column], weights) * down.x) >> vec3<u32>(16u);
        let below = (across(picture[row + 1u] + picture[column], weights) * down.y) >> vec3<u32>(16u);
        value = vec3<u32>((above + below + vec3<i32>(2)) >> vec3<u32>(2u));
    }
    let table = vec3<u32>(picture[header + VALUES]) + value;
    let color = bitcast<vec3<f32>>(vec3<u32>(picture[table.x], picture[table.y], picture[table.z]));
    store4(job.output + pixel * job.output_stride, 3u, vec4<f32>(color, 0.0));
}
