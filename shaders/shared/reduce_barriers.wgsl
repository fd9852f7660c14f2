// How the invocations of a workgroup put together what each of them has: by workgroup memory alone. Same functions as
// reduce_subgroups.wgsl. All invocations have to call them, and a barrier has to lie between one call and the next.
// The entry point is here, since the other one takes more.

struct Invocation {
    // Its place in the workgroup.
    thread: u32,
}

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

// What each invocation has, the upper halves behind all lower ones.
var<workgroup> own: array<vec4<f32>, THREADS * 2u>;
// What some of them have together. Eight invocations share a part, one for each value.
var<workgroup> parts: array<f32, THREADS>;

@compute @workgroup_size(THREADS, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    run(workgroup_index(group, count), Invocation(thread));
}

// The largest values of all invocations.
fn largest_of_all(me: Invocation, values: Eight) -> Eight {
    put_down(me, values);
    let first = me.thread / 8u;
    var largest = value_of(first, me.thread % 8u);
    for (var other = first + THREADS / 8u; other < THREADS; other += THREADS / 8u) {
        largest = max(largest, value_of(other, me.thread % 8u));
    }
    parts[me.thread] = largest;
    workgroupBarrier();
    var all = part(0u);
    for (var other = 8u; other < THREADS; other += 8u) {
        let next = part(other);
        all = Eight(max(all.low, next.low), max(all.high, next.high));
    }
    return all;
}

// The sums over all invocations.
fn sums_of_all(me: Invocation, values: Eight) -> Eight {
    put_down(me, values);
    let first = me.thread / 8u;
    var sum = value_of(first, me.thread % 8u);
    for (var other = first + THREADS / 8u; other < THREADS; other += THREADS / 8u) {
        sum += value_of(other, me.thread % 8u);
    }
    parts[me.thread] = sum;
    workgroupBarrier();
    var all = part(0u);
    for (var other = 8u; other < THREADS; other += 8u) {
        let next = part(other);
        all = Eight(all.low + next.low, all.high + next.high);
    }
    return all;
}

fn put_down(me: Invocation, values: Eight) {
    own[me.thread] = values.low;
    own[THREADS + me.thread] = values.high;
    workgroupBarrier();
}

// Value `idx` of eight of an invocation.
fn value_of(thread: u32, idx: u32) -> f32 {
    return own[idx / 4u * THREADS + thread][idx % 4u];
}

fn part(at: u32) -> Eight {
    return Eight(
        vec4<f32>(parts[at], parts[at + 1u], parts[at + 2u], parts[at + 3u]),
        vec4<f32>(parts[at + 4u], parts[at + 5u], parts[at + 6u], parts[at + 7u]),
    );
}
