// Softmax attention in one pass over the keys: the running sums are rescaled whenever a larger score appears. A workgroup
// computes some queries of one head.

struct Job {
    first_workgroup: u32,
    images: u32,
    // Tokens of an image, and of an area, within which tokens attend to each other.
    tokens: u32,
    area: u32,
    heads: u32,
    key_dim: u32,
    head_dim: u32,
    // The factor of the scores, as bits.
    scale: u32,
    // Element of the first channel of the first pixel, and elements from a pixel to the next.
    input: u32,
    input_stride: u32,
    output: u32,
    output_stride: u32,
}

// Queries and keys that a workgroup looks at together, and the largest dimensions that its memory is for.
override QUERIES: u32 = 8u;
override THREADS: u32 = 64u;
override KEY_DIM: u32 = 32u;
override HEAD_DIM: u32 = 64u;

var<workgroup> queries: array<f32, QUERIES * KEY_DIM>;
var<workgroup> scores: array<f32, QUERIES * THREADS>;
var<workgroup> sums: array<f32, QUERIES * HEAD_DIM>;
// Of each query: the largest score so far, the sum of the shares, and the factor for what was summed before.
var<workgroup> largest: array<f32, QUERIES>;
var<workgroup> totals: array<f32, QUERIES>;
var<workgroup> factors: array<f32, QUERIES>;

@compute @workgroup_size(THREADS, 1, 1)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = workgroup_index(group, count);
    let job = jobs[find_job(workgroup)];
    let blocks = (job.area + QUERIES - 1u) / QUERIES;
    let areas = job.tokens / job.area;
    let idx = workgroup - job.first_workgroup;
    let block = idx % blocks;
    let head = idx / blocks % job.heads;
    let area = idx / (blocks * job.heads) % areas;
    let image = idx / (blocks * job.heads * areas);
    if image >= job.images {
        return;
    }
    let first_token = image * job.tokens + area * job.area;
    let n_queries = min(QUERIES, job.area - block * QUERIES);
    let query_channel = head * job.key_dim;
    let key_channel = (job.heads + head) * job.key_dim;
    let value_channel = 2u * job.heads * job.key_dim + head * job.head_dim;

    for (var i = thread; i < QUERIES * job.key_dim; i += THREADS) {
        let query = min(i / job.key_dim, n_queries - 1u);
        let token = first_token + block * QUERIES + query;
        queries[i] = load1(job.input + token * job.input_stride + query_channel + i % job.key_dim);
    }
    for (var i = thread; i < QUERIES * job.head_dim; i += THREADS) {
        sums[i] = 0.0;
    }
    if thread < QUERIES {
        largest[thread] = -3.0e38;
        totals[thread] = 0.0;
    }
    for (var done = 0u; done < job.area; done += THREADS) {
        workgroupBarrier();
        let key = done + thread;
        if key < job.area {
            let token = job.input + (first_token + key) * job.input_stride + key_channel;
            for (var query = 0u; query < QUERIES; query++) {
                var dot = 0.0;
                for (var i = 0u; i < job.key_dim; i++) {
                    dot = fma(queries[query * job.key_dim + i], load1(token + i), dot);
                }
                scores[query * THREADS + thread] = dot * bitcast<f32>(job.scale);
            }
        }
        workgroupBarrier();
        let n_keys = min(THREADS, job.area - done);
        if thread < QUERIES {
            var top = largest[thread];
            for (var i = 0u; i < n_keys; i++) {
                top = max(top, scores[thread * THREADS + i]);
            }
            let factor = exp(largest[thread] - top);
            var total = totals[thread] * factor;
            for (var i = 0u; i < n_keys; i++) {
                let share = exp(scores[thread * THREADS + i] - top);
                scores[thread * THREADS + i] = share;
                total += share;
            }
            largest[thread] = top;
            totals[thread] = total;
            factors[thread] = factor;
        }
        workgroupBarrier();
        for (var i = thread; i < job.head_dim; i += THREADS) {
            for (var query = 0u; query < QUERIES; query++) {
                sums[query * job.head_dim + i] *= factors[query];
            }
            for (var key = 0u; key < n_keys; key++) {
                let token = first_token + done + key;
                let value = load1(job.input + token * job.input_stride + value_channel + i);
                for (var query = 0u; query < QUERIES; query++) {
                    let at = query * job.head_dim + i;
                    sums[at] = fma(scores[query * THREADS + key], value, sums[at]);
                }
            }
        }
    }
    workgroupBarrier();
    let groups = (job.head_dim + 3u) / 4u;
    for (var i = thread; i < n_queries * groups; i += THREADS) {
        let query = i / groups;
        let channel = i % groups * 4u;
        let rest = job.head_dim - channel;
        var value = vec4<f32>(0.0);
        for (var c = 0u; c < min(rest, 4u); c++) {
            value[c] = sums[query * job.head_dim + channel + c] / totals[query];
        }
        let token = first_token + block * QUERIES + query;
        let at = job.output + token * job.output_stride + head * job.head_dim + channel;
        store4(at, rest, value);
    }
}
