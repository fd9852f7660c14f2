// Softmax attention in one pass over the keys: the running sums are rescaled whenever a larger score appears. A workgroup
// computes eight queries of one head, and takes two keys at a time for each of its invocations: first each of them scores
// two keys, then each sums the values of some keys in four channels.

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

// Queries of a workgroup: two vectors of four, or what is called `Eight`.
const QUERIES: u32 = 8u;
// Below all scores. WGSL has no infinities.
const NO_SCORE: vec4<f32> = vec4<f32>(-3.0e38);
const LOG2_E: f32 = 1.4426950408889634;

override THREADS: u32 = 64u;
// The largest dimension of keys that there is memory for, in whole fours.
override KEY_DIM: u32 = 32u;
// Keys that a workgroup takes at a time.
override KEYS: u32 = THREADS * 2u;

// Of each channel the values of all queries.
var<workgroup> queries: array<vec4<f32>, KEY_DIM * 2u>;
// Of each key the shares of the first four queries, then of each those of the others. At the end, what each invocation
// has summed of four queries.
var<workgroup> shares: array<vec4<f32>, KEYS * 2u>;

// Four channels of what four queries take of the values. By name, not in an array: only so they surely stay in registers.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// The scores of two keys, for powers of two.
struct Scores {
    first: Eight,
    second: Eight,
}

// The channels that an invocation sums, and the part of the keys. Some may have no part.
struct Place {
    column: u32,
    n_columns: u32,
    part: u32,
    n_parts: u32,
}

// Where the results go.
struct Results {
    // Element of the first channel of the first query, and elements from a query to the next.
    output: u32,
    stride: u32,
    n_queries: u32,
    // Channels from the first one on.
    rest: u32,
}

fn run(workgroup: u32, me: Invocation) {
    let job = jobs[find_job(workgroup)];
    let blocks = (job.area + QUERIES - 1u) / QUERIES;
    let areas = job.tokens / job.area;
    // Heads of more channels than the invocations can sum are cut.
    let groups = (job.head_dim + 3u) / 4u;
    let slices = (groups + THREADS - 1u) / THREADS;
    let idx = workgroup - job.first_workgroup;
    let block = idx % blocks;
    let slice = idx / blocks % slices;
    let head = idx / (blocks * slices) % job.heads;
    let area = idx / (blocks * slices * job.heads) % areas;
    let image = idx / (blocks * slices * job.heads * areas);
    if image >= job.images {
        return;
    }
    let first_token = image * job.tokens + area * job.area;
    let first_query = first_token + block * QUERIES;
    let n_queries = min(QUERIES, job.area - block * QUERIES);
    let n_columns = min(THREADS, groups - slice * THREADS);
    let place = Place(me.thread % n_columns, n_columns, me.thread / n_columns, THREADS / n_columns);
    let first_channel = slice * THREADS * 4u;
    let channel = first_channel + place.column * 4u;
    let key_channel = (job.heads + head) * job.key_dim;
    let value_channel = 2u * job.heads * job.key_dim + head * job.head_dim + channel;

    // Queries beyond the last one are the last one once more, and channels beyond the last one are zero.
    for (var i = me.thread; i < KEY_DIM * 2u; i += THREADS) {
        var four = vec4<f32>(0.0);
        if i / 2u < job.key_dim {
            for (var c = 0u; c < 4u; c++) {
                let query = first_query + min(i % 2u * 4u + c, n_queries - 1u);
                four[c] = load1(job.input + query * job.input_stride + head * job.key_dim + i / 2u);
            }
        }
        queries[i] = four;
    }
    workgroupBarrier();

    // Of each query the largest score so far, and the sum of the shares of this invocation's keys.
    var largest = Eight(NO_SCORE, NO_SCORE);
    var totals = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    var low = Sums();
    var high = Sums();
    for (var done = 0u; done < job.area; done += KEYS) {
        let n_keys = min(KEYS, job.area - done);
        let tokens = job.input + (first_token + done) * job.input_stride;
        let exists = vec2<u32>(me.thread, me.thread + THREADS) < vec2<u32>(n_keys);
        var scores = Scores(Eight(NO_SCORE, NO_SCORE), Eight(NO_SCORE, NO_SCORE));
        if exists.x {
            // Where there is no second key, the last one is scored once more, which changes no maximum.
            let keys = vec2<u32>(me.thread, min(me.thread + THREADS, n_keys - 1u));
            scores = scores_of(job, keys * job.input_stride + tokens + key_channel);
        }
        let before = largest;
        largest = largest_of_all(me, larger(before, larger(scores.first, scores.second)));
        let first = shares_of(scores.first, largest, exists.x);
        let second = shares_of(scores.second, largest, exists.y);
        shares[me.thread] = first.low;
        shares[me.thread + THREADS] = second.low;
        shares[me.thread + KEYS] = first.high;
        shares[me.thread + KEYS + THREADS] = second.high;
        if any(before.low != largest.low) || any(before.high != largest.high) {
            let factors = shares_of(before, largest, true);
            totals = Eight(totals.low * factors.low, totals.high * factors.high);
            low = scaled(low, factors.low);
            high = scaled(high, factors.high);
        }
        totals = Eight(totals.low + first.low + second.low, totals.high + first.high + second.high);
        workgroupBarrier();
        // Two keys at a time, so that reads wait for each other less.
        var key = select(n_keys, place.part, place.part < place.n_parts);
        for (; key + place.n_parts < n_keys; key += 2u * place.n_parts) {
            let other = key + place.n_parts;
            let value = load4(tokens + key * job.input_stride + value_channel, job.head_dim - channel);
            let next = load4(tokens + other * job.input_stride + value_channel, job.head_dim - channel);
            low = plus(plus(low, value, shares[key]), next, shares[other]);
            high = plus(plus(high, value, shares[key + KEYS]), next, shares[other + KEYS]);
        }
        if key < n_keys {
            let value = load4(tokens + key * job.input_stride + value_channel, job.head_dim - channel);
            low = plus(low, value, shares[key]);
            high = plus(high, value, shares[key + KEYS]);
        }
    }

    let output = job.output + first_query * job.output_stride + head * job.head_dim + first_channel;
    let results = Results(output, job.output_stride, n_queries, job.head_dim - first_channel);
    let all = sums_of_all(me, totals);
    finish(me, place, results, 0u, low, all.low);
    finish(me, place, results, 4u, high, all.high);
}

// The scores of the two keys whose first channels are these elements.
fn scores_of(job: Job, keys: vec2<u32>) -> Scores {
    var scores = Scores();
    for (var i = 0u; i < job.key_dim; i += 4u) {
        let key = load4(keys.x + i, job.key_dim - i);
        let other = load4(keys.y + i, job.key_dim - i);
        scores = with_channel(scores, i, key.x, other.x);
        scores = with_channel(scores, i + 1u, key.y, other.y);
        scores = with_channel(scores, i + 2u, key.z, other.z);
        scores = with_channel(scores, i + 3u, key.w, other.w);
    }
    let scale = bitcast<f32>(job.scale) * LOG2_E;
    let first = Eight(scores.first.low * scale, scores.first.high * scale);
    return Scores(first, Eight(scores.second.low * scale, scores.second.high * scale));
}

fn with_channel(scores: Scores, channel: u32, key: f32, other: f32) -> Scores {
    let low = queries[channel * 2u];
    let high = queries[channel * 2u + 1u];
    return Scores(
        Eight(fma(vec4<f32>(key), low, scores.first.low), fma(vec4<f32>(key), high, scores.first.high)),
        Eight(fma(vec4<f32>(other), low, scores.second.low), fma(vec4<f32>(other), high, scores.second.high)),
    );
}

fn larger(a: Eight, b: Eight) -> Eight {
    return Eight(max(a.low, b.low), max(a.high, b.high));
}

fn shares_of(scores: Eight, largest: Eight, exists: bool) -> Eight {
    let none = vec4<f32>(0.0);
    let low = select(none, exp2(scores.low - largest.low), exists);
    return Eight(low, select(none, exp2(scores.high - largest.high), exists));
}

fn scaled(sums: Sums, factors: vec4<f32>) -> Sums {
    return Sums(sums.a * factors.x, sums.b * factors.y, sums.c * factors.z, sums.d * factors.w);
}

// The sums with one more value, of which the queries take these shares.
fn plus(sums: Sums, value: vec4<f32>, shares: vec4<f32>) -> Sums {
    return Sums(
        fma(vec4<f32>(shares.x), value, sums.a),
        fma(vec4<f32>(shares.y), value, sums.b),
        fma(vec4<f32>(shares.z), value, sums.c),
        fma(vec4<f32>(shares.w), value, sums.d),
    );
}

// Adds what all parts have summed of four queries, from number `query` on, and writes the results.
fn finish(me: Invocation, place: Place, results: Results, query: u32, sums: Sums, totals: vec4<f32>) {
    workgroupBarrier();
    shares[me.thread] = sums.a;
    shares[me.thread + THREADS] = sums.b;
    shares[me.thread + THREADS * 2u] = sums.c;
    shares[me.thread + THREADS * 3u] = sums.d;
    workgroupBarrier();
    for (var i = me.thread; i < place.n_columns * 4u; i += THREADS) {
        let row = i / place.n_columns;
        let column = i % place.n_columns;
        if query + row < results.n_queries {
            var sum = vec4<f32>(0.0);
            for (var part = 0u; part < place.n_parts; part++) {
                sum += shares[row * THREADS + part * place.n_columns + column];
            }
            let at = results.output + (query + row) * results.stride + column * 4u;
            store4(at, results.rest - column * 4u, sum / totals[row]);
        }
    }
}
