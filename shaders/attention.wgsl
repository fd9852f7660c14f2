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

// Queries that a workgroup looks at together: two vectors of four.
const QUERIES: u32 = 8u;

// Keys that it looks at together, and the largest dimensions that its memory is for; that of keys in whole fours.
override THREADS: u32 = 64u;
override KEY_DIM: u32 = 32u;
override HEAD_DIM: u32 = 64u;

// Of each channel the values of all queries.
var<workgroup> queries: array<vec4<f32>, KEY_DIM * 2u>;
var<workgroup> sums: array<vec4<f32>, HEAD_DIM * 2u>;
// Of each key the scores of all queries, then their shares.
var<workgroup> scores: array<f32, THREADS * QUERIES>;
// What single invocations have found of a query.
var<workgroup> partials: array<f32, THREADS>;
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

    // Queries beyond the last one are the last one once more, and channels beyond the last one are zero.
    for (var i = thread; i < KEY_DIM * 2u; i += THREADS) {
        let channel = i / 2u;
        var four = vec4<f32>(0.0);
        if channel < job.key_dim {
            for (var c = 0u; c < 4u; c++) {
                let query = min(i % 2u * 4u + c, n_queries - 1u);
                let token = first_token + block * QUERIES + query;
                four[c] = load1(job.input + token * job.input_stride + query_channel + channel);
            }
        }
        queries[i] = four;
    }
    for (var i = thread; i < job.head_dim * 2u; i += THREADS) {
        sums[i] = vec4<f32>(0.0);
    }
    if thread < QUERIES {
        largest[thread] = -3.0e38;
        totals[thread] = 0.0;
    }
    // In the softmax, several invocations share a query and take its keys in turns.
    let query = thread % QUERIES;
    let part = thread / QUERIES;
    let n_parts = THREADS / QUERIES;
    for (var done = 0u; done < job.area; done += THREADS) {
        workgroupBarrier();
        let n_keys = min(THREADS, job.area - done);
        if thread < n_keys {
            let token = job.input + (first_token + done + thread) * job.input_stride + key_channel;
            var first = vec4<f32>(0.0);
            var second = vec4<f32>(0.0);
            for (var i = 0u; i < job.key_dim; i += 4u) {
                let key = load4(token + i, job.key_dim - i);
                first = fma(vec4<f32>(key.x), queries[i * 2u], first);
                second = fma(vec4<f32>(key.x), queries[i * 2u + 1u], second);
                first = fma(vec4<f32>(key.y), queries[i * 2u + 2u], first);
                second = fma(vec4<f32>(key.y), queries[i * 2u + 3u], second);
                first = fma(vec4<f32>(key.z), queries[i * 2u + 4u], first);
                second = fma(vec4<f32>(key.z), queries[i * 2u + 5u], second);
                first = fma(vec4<f32>(key.w), queries[i * 2u + 6u], first);
                second = fma(vec4<f32>(key.w), queries[i * 2u + 7u], second);
            }
            first *= bitcast<f32>(job.scale);
            second *= bitcast<f32>(job.scale);
            for (var c = 0u; c < 4u; c++) {
                scores[thread * QUERIES + c] = first[c];
                scores[thread * QUERIES + 4u + c] = second[c];
            }
        }
        workgroupBarrier();
        var top = -3.0e38;
        for (var key = part; key < n_keys; key += n_parts) {
            top = max(top, scores[key * QUERIES + query]);
        }
        partials[thread] = top;
        workgroupBarrier();
        let before = largest[query];
        top = before;
        for (var other = 0u; other < n_parts; other++) {
            top = max(top, partials[other * QUERIES + query]);
        }
        var total = 0.0;
        for (var key = part; key < n_keys; key += n_parts) {
            let share = exp(scores[key * QUERIES + query] - top);
            scores[key * QUERIES + query] = share;
            total += share;
        }
        workgroupBarrier();
        partials[thread] = total;
        if part == 0u {
            largest[query] = top;
            factors[query] = exp(before - top);
        }
        workgroupBarrier();
        if part == 0u {
            var all = totals[query] * factors[query];
            for (var other = 0u; other < n_parts; other++) {
                all += partials[other * QUERIES + query];
            }
            totals[query] = all;
        }
        for (var i = thread; i < job.head_dim; i += THREADS) {
            var first = sums[i * 2u] * vec4<f32>(factors[0], factors[1], factors[2], factors[3]);
            var second = sums[i * 2u + 1u] * vec4<f32>(factors[4], factors[5], factors[6], factors[7]);
            let values = job.input + (first_token + done) * job.input_stride + value_channel + i;
            for (var key = 0u; key < n_keys; key++) {
                let value = vec4<f32>(load1(values + key * job.input_stride));
                let at = key * QUERIES;
                let shares = vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
                first = fma(shares, value, first);
                let others = vec4<f32>(scores[at + 4u], scores[at + 5u], scores[at + 6u], scores[at + 7u]);
                second = fma(others, value, second);
            }
            sums[i * 2u] = first;
            sums[i * 2u + 1u] = second;
        }
    }
    workgroupBarrier();
    let groups = (job.head_dim + 3u) / 4u;
    for (var i = thread; i < n_queries * groups; i += THREADS) {
        let row = i / groups;
        let channel = i % groups * 4u;
        let rest = job.head_dim - channel;
        var value = vec4<f32>(0.0);
        for (var c = 0u; c < min(rest, 4u); c++) {
            value[c] = sums[(channel + c) * 2u + row / 4u][row % 4u] / totals[row];
        }
        let token = first_token + block * QUERIES + row;
        let at = job.output + token * job.output_stride + head * job.head_dim + channel;
        store4(at, rest, value);
    }
}
