// The best boxes of a branch that needs no suppression. A workgroup is for an image, and takes its rows from
// `detections.wgsl`: first the `k` cells with the best class, then the best `k` pairs of these cells and any of their
// classes. Cells and classes that don't reach the threshold come behind all others, so leaving them out changes nothing.
//
// What is ranked has a rank of four words, no two the same. The rank of the last one that is taken is found digit by
// digit, by counting how many have each value of a digit of eight bits.

struct Job {
    first_workgroup: u32,
    images: u32,
    k: u32,
    // Cells of an image, and logits of a cell.
    anchors: u32,
    n_classes: u32,
    // Words of `found`: rows of each image and the first of them, rows that are given to the host and the first of them,
    // and words of a row.
    staged_counter: u32,
    staged: u32,
    counter: u32,
    rows: u32,
    row_words: u32,
}

const LEAST: u32 = 0u;

const N_BINS: u32 = 256u;
// Bins that are summed up one by one.
const ROW: u32 = 16u;
const N_DIGITS: u32 = 16u;
const MAX_K: u32 = 1024u;

// An invocation for each bin.
override THREADS: u32 = N_BINS;

var<workgroup> bins: array<atomic<u32>, N_BINS>;
// How many are in a bin and in those of larger digits of the same row.
var<workgroup> sums: array<u32, N_BINS>;
// First words of the rows of the best cells.
var<workgroup> chosen: array<u32, MAX_K>;
var<workgroup> n_chosen: atomic<u32>;
var<workgroup> n_items: u32;
var<workgroup> known: Known;

// What is known of the last rank that is taken.
struct Known {
    // Its digits so far, and how many are taken of those that begin with them.
    prefix: vec4<u32>,
    n_open: u32,
    // 1: all that begin with them.
    is_done: u32,
}

// What is ranked, by its number: a row of the image, or a pair of a chosen row and a class.
struct Item {
    // First word of the row.
    row: u32,
    class_idx: u32,
    logit: u32,
    // All zeros if it does not reach the threshold.
    rank: vec4<u32>,
}

fn cell_of(job: Job, first_row: u32, idx: u32) -> Item {
    let row = first_row + idx * job.row_words;
    let logit = word_at(row + LOGIT);
    return Item(row, 0u, logit, vec4<u32>(key_of(logit), ~word_at(row + CELL), 0u, 0u));
}

fn pair_of(job: Job, idx: u32) -> Item {
    let row = chosen[idx / job.n_classes];
    let class_idx = idx % job.n_classes;
    let logit = bits_at(word_at(row + CLASS) + class_idx);
    let key = key_of(logit);
    var rank = vec4<u32>(0u);
    if key >= word_at(LEAST) {
        rank = vec4<u32>(key, key_of(word_at(row + LOGIT)), ~word_at(row + CELL), ~class_idx);
    }
    return Item(row, class_idx, logit, rank);
}

fn item_of(job: Job, first_row: u32, is_pair: bool, idx: u32) -> Item {
    if is_pair {
        return pair_of(job, idx);
    }
    return cell_of(job, first_row, idx);
}

fn shift_of(digit: u32) -> u32 {
    return 24u - digit % 4u * 8u;
}

// Whether the digits before `digit` are those of `start`.
fn begins_with(rank: vec4<u32>, start: vec4<u32>, digit: u32) -> bool {
    let last = digit / 4u;
    let counts = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(last);
    if any((rank != start) & counts) {
        return false;
    }
    // Shifted in two steps, since all 32 bits at once are not shifted at all.
    let shift = shift_of(digit);
    return rank[last] >> shift >> 8u == start[last] >> shift >> 8u;
}

fn is_taken(rank: vec4<u32>, last: vec4<u32>) -> bool {
    if rank.x == 0u {
        return false;
    }
    for (var word = 0u; word < 4u; word++) {
        if rank[word] != last[word] {
            return rank[word] > last[word];
        }
    }
    return true;
}

// How many are in a bin and in all of larger digits.
fn sum_from(bin: u32) -> u32 {
    let next_row = bin / ROW * ROW + ROW;
    var sum = 0u;
    for (var other = bin; other < next_row; other++) {
        sum += atomicLoad(&bins[other]);
    }
    sums[bin] = sum;
    workgroupBarrier();
    for (var other = next_row; other < N_BINS; other += ROW) {
        sum += sums[other];
    }
    return sum;
}

// The rank of the `k`-th of `n` items; of fewer, one that is below all of them.
fn last_rank(job: Job, first_row: u32, is_pair: bool, n: u32, thread: u32) -> vec4<u32> {
    if thread == 0u {
        known = Known(vec4<u32>(0u), job.k, 0u);
    }
    for (var digit = 0u; digit < N_DIGITS; digit++) {
        atomicStore(&bins[thread], 0u);
        let start = workgroupUniformLoad(&known);
        if start.is_done == 1u {
            break;
        }
        for (var idx = thread; idx < n; idx += THREADS) {
            let rank = item_of(job, first_row, is_pair, idx).rank;
            if rank.x != 0u && begins_with(rank, start.prefix, digit) {
                atomicAdd(&bins[rank[digit / 4u] >> shift_of(digit) & 255u], 1u);
            }
        }
        workgroupBarrier();
        // The bin of the last one that is taken; the lowest one if there are fewer.
        let n_from = sum_from(thread);
        let n_in = atomicLoad(&bins[thread]);
        let n_above = n_from - n_in;
        if n_above < start.n_open && (n_from >= start.n_open || thread == 0u) {
            known.prefix[digit / 4u] |= thread << shift_of(digit);
            known.n_open = start.n_open - n_above;
            // All that begin like this are taken, whatever the other digits are.
            known.is_done = u32(n_in <= start.n_open - n_above);
        }
    }
    return workgroupUniformLoad(&known).prefix;
}

@compute @workgroup_size(THREADS, 1, 1)
fn top_k(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let image = workgroup - job.first_workgroup;
    if image >= job.images {
        return;
    }
    let first_row = job.staged + image * job.anchors * job.row_words;
    if thread == 0u {
        n_items = word_at(job.staged_counter + image);
        atomicStore(&n_chosen, 0u);
    }
    let n_cells = workgroupUniformLoad(&n_items);
    let last_cell = last_rank(job, first_row, false, n_cells, thread);
    for (var idx = thread; idx < n_cells; idx += THREADS) {
        let cell = cell_of(job, first_row, idx);
        if is_taken(cell.rank, last_cell) {
            chosen[atomicAdd(&n_chosen, 1u)] = cell.row;
        }
    }
    workgroupBarrier();
    if thread == 0u {
        n_items = atomicLoad(&n_chosen) * job.n_classes;
    }
    let n_pairs = workgroupUniformLoad(&n_items);
    let last_pair = last_rank(job, first_row, true, n_pairs, thread);
    for (var idx = thread; idx < n_pairs; idx += THREADS) {
        let pair = pair_of(job, idx);
        if is_taken(pair.rank, last_pair) {
            let row = job.rows + atomicAdd(&found[job.counter], 1u) * job.row_words;
            put(row + CELL, word_at(pair.row + CELL));
            put(row + CLASS, pair.class_idx);
            put(row + LOGIT, pair.logit);
            for (var word = OBJECTNESS; word < job.row_words; word++) {
                put(row + word, word_at(pair.row + word));
            }
        }
    }
}
