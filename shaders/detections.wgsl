// Cells of a detection head whose best class passes. An invocation looks at one cell, and writes a row of words for what
// it finds; the order of rows is by chance, so each row names its cell.
//
// Scores are compared as the keys of their logits, and nothing is done to a value that the host can do as well: rows hold
// logits, and the place of a box relative to its cell.

struct Job {
    first_workgroup: u32,
    // Cells of all images, and of one image.
    pixels: u32,
    image_pixels: u32,
    // Cells of an image on finer levels, and on all levels.
    first_anchor: u32,
    anchors: u32,
    // Of each map the element of the first channel of the first pixel, elements from a pixel to the next, and what there
    // is for a cell: logits, values of the distribution of each side (one: the side itself), 0 or 1, other values.
    classes: u32,
    classes_stride: u32,
    n_classes: u32,
    boxes: u32,
    boxes_stride: u32,
    reg_max: u32,
    objectness: u32,
    objectness_stride: u32,
    n_objectness: u32,
    extra: u32,
    extra_stride: u32,
    n_extra: u32,
    // 1: rows are for `top_k.wgsl`, a list for each image, and name the element of the first logit; else they are for the
    // host, in one list for all images, and name the best class.
    is_staged: u32,
    // Words of `found`: how many rows there are (of each image, if they are staged), the first row, and words of a row.
    counter: u32,
    rows: u32,
    row_words: u32,
}

// Words of `found`: the key that logits have to reach, and behind it a bit for each class that is wanted.
const LEAST: u32 = 0u;
const WANTED: u32 = 1u;

override THREADS: u32 = 64u;

// The mean of a distribution that is given by logits: how far a side of the box is away, in cells.
fn expectation(at: u32, n: u32) -> u32 {
    var largest = load1(at);
    var is_number = true;
    for (var i = 0u; i < n; i++) {
        let logit = load1(at + i);
        is_number = is_number && is_below_infinity(logit);
        largest = max(largest, logit);
    }
    if !is_number {
        return NAN_BITS;
    }
    var sum = 0.0;
    var weighted = 0.0;
    for (var i = 0u; i < n; i++) {
        let share = exp(load1(at + i) - largest);
        sum += share;
        weighted += share * f32(i);
    }
    return bitcast<u32>(weighted / sum);
}

@compute @workgroup_size(THREADS, 1, 1)
fn detections(
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
    let logits = job.classes + pixel * job.classes_stride;
    var best = 0u;
    var class_idx = 0u;
    var logit = 0u;
    for (var first = 0u; first < job.n_classes; first += 4u) {
        let rest = job.n_classes - first;
        let four = bitcast<vec4<u32>>(load4(logits + first, rest));
        let all = vec4<u32>(key_of(four.x), key_of(four.y), key_of(four.z), key_of(four.w));
        // Every key is above zero, so what is behind the last class never wins. Of equal ones the first stays.
        let keys = select(vec4<u32>(0u), all, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(rest));
        let largest = max(max(keys.x, keys.y), max(keys.z, keys.w));
        if largest > best {
            best = largest;
            let of_two = select(vec2<u32>(1u, 3u), vec2<u32>(0u, 2u), keys.xz >= keys.yw);
            let place = select(of_two.y, of_two.x, max(keys.x, keys.y) == largest);
            class_idx = first + place;
            logit = four[place];
        }
    }
    let is_wanted = (word_at(WANTED + class_idx / 32u) >> (class_idx % 32u) & 1u) == 1u;
    if best < word_at(LEAST) || !is_wanted {
        return;
    }

    let image = pixel / job.image_pixels;
    let list = image * job.is_staged;
    let slot = atomicAdd(&found[job.counter + list], 1u);
    let row = job.rows + (list * job.anchors + slot) * job.row_words;
    put(row + CELL, image * job.anchors + job.first_anchor + pixel % job.image_pixels);
    put(row + CLASS, select(class_idx, logits, job.is_staged == 1u));
    put(row + LOGIT, logit);
    if job.n_objectness == 1u {
        put(row + OBJECTNESS, bits_at(job.objectness + pixel * job.objectness_stride));
    }
    let sides = job.boxes + pixel * job.boxes_stride;
    for (var side = 0u; side < 4u; side++) {
        if job.reg_max == 1u {
            put(row + SIDES + side, bits_at(sides + side));
        } else {
            put(row + SIDES + side, expectation(sides + side * job.reg_max, job.reg_max));
        }
    }
    let extra = job.extra + pixel * job.extra_stride;
    for (var i = 0u; i < job.n_extra; i++) {
        put(row + EXTRA + i, bits_at(extra + i));
    }
}
