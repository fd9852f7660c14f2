// Masks of objects: prototypes are mixed by an object's coefficients, scaled, and cut out; a pixel is on where the result
// is positive. An invocation computes 32 pixels of a row, a bit each. A workgroup is for one object.
//
// Scaling mixes neighbours, down and across. However many steps it takes, a row or column of a mask is made of three of
// the prototypes that follow each other; the host says which, and their shares.

struct Job {
    first_workgroup: u32,
    // Cells of an image, and of a row.
    image_pixels: u32,
    row_pixels: u32,
    channels: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
}

// Words of `found`: how many objects there are, and a header for each of them.
const N_OBJECTS: u32 = 0u;
const OBJECTS: u32 = 1u;
const HEADER_WORDS: u32 = 8u;
const FIRST_WORKGROUP: u32 = 0u;
const IMAGE: u32 = 1u;
// Pixels of a row, and words of all rows; each row begins with a word of its own.
const WIDTH: u32 = 2u;
const N_WORDS: u32 = 3u;
// Where the coefficients are, the tables of rows and columns, and the first word of the mask.
const COEFFICIENTS: u32 = 4u;
const ROWS: u32 = 5u;
const COLUMNS: u32 = 6u;
const PIXELS: u32 = 7u;

// Words of a row or column in its table: the first source row or column, and the shares of three.
const TAP_WORDS: u32 = 4u;

const MAX_CHANNELS: u32 = 256u;

override THREADS: u32 = 64u;

// Groups of four, zeros behind the last one.
var<workgroup> coefficients: array<vec4<f32>, MAX_CHANNELS / 4u>;

fn float_at(at: u32) -> f32 {
    return bitcast<f32>(word_at(at));
}

fn shares_at(tap: u32) -> vec3<f32> {
    return vec3<f32>(float_at(tap + 1u), float_at(tap + 2u), float_at(tap + 3u));
}

// First word of the header of the object that a workgroup belongs to.
fn object_of(workgroup: u32) -> u32 {
    var first = 0u;
    var n = word_at(N_OBJECTS);
    while n > 1u {
        let half = n / 2u;
        if word_at(OBJECTS + (first + half) * HEADER_WORDS + FIRST_WORKGROUP) <= workgroup {
            first += half;
            n -= half;
        } else {
            n = half;
        }
    }
    return OBJECTS + first * HEADER_WORDS;
}

// The mix of one cell of a column and of the two below it. Rows without a share may not exist.
fn mix_at(job: Job, first: u32, column: u32, shares: vec3<f32>) -> f32 {
    var sum = 0.0;
    for (var row = 0u; row < 3u; row++) {
        let share = shares[row];
        if share != 0.0 {
            let cell = first + (row * job.row_pixels + min(column, job.row_pixels - 1u)) * job.input_stride;
            var part = vec4<f32>(0.0);
            for (var channel = 0u; channel < job.channels; channel += 4u) {
                part += load4(cell + channel, job.channels - channel) * coefficients[channel / 4u];
            }
            sum += share * (part.x + part.y + part.z + part.w);
        }
    }
    return sum;
}

@compute @workgroup_size(THREADS, 1, 1)
fn masks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let object = object_of(workgroup);
    let first_coefficient = word_at(object + COEFFICIENTS);
    for (var four = thread; four < (job.channels + 3u) / 4u; four += THREADS) {
        let at = first_coefficient + four * 4u;
        coefficients[four] = vec4<f32>(float_at(at), float_at(at + 1u), float_at(at + 2u), float_at(at + 3u));
    }
    workgroupBarrier();

    let idx = (workgroup - word_at(object + FIRST_WORKGROUP)) * THREADS + thread;
    if idx >= word_at(object + N_WORDS) {
        return;
    }
    let width = word_at(object + WIDTH);
    let row_words = (width + 31u) / 32u;
    let left = idx % row_words * 32u;
    let row = word_at(object + ROWS) + idx / row_words * TAP_WORDS;
    let down = shares_at(row);
    let first_cell = word_at(object + IMAGE) * job.image_pixels + word_at(row) * job.row_pixels;
    let first = job.input + first_cell * job.input_stride;
    let columns = word_at(object + COLUMNS) + left * TAP_WORDS;
    var column = word_at(columns);
    var logits = vec3<f32>(
        mix_at(job, first, column, down),
        mix_at(job, first, column + 1u, down),
        mix_at(job, first, column + 2u, down),
    );
    var pixels = 0u;
    for (var x = 0u; x < min(width - left, 32u); x++) {
        let tap = columns + x * TAP_WORDS;
        // Columns follow each other, most of them several times the same.
        while column < word_at(tap) {
            column++;
            logits = vec3<f32>(logits.y, logits.z, mix_at(job, first, column + 2u, down));
        }
        pixels |= u32(dot(logits, shares_at(tap)) > 0.0) << x;
    }
    put(word_at(object + PIXELS) + idx, pixels);
}
