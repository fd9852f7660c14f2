// How the invocations of a workgroup put together what each of them has: within subgroups, then by workgroup memory. Same
// functions as reduce_barriers.wgsl. All invocations have to call them, and a barrier has to lie between one call and the
// next. Subgroups may have any size, and the driver says which invocations they have.

struct Invocation {
    // Its places in the workgroup and in its subgroup, the number of that, and how many there are.
    thread: u32,
    lane: u32,
    subgroup: u32,
    subgroups: u32,
}

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

// What each subgroup has; there may be as many as invocations.
var<workgroup> parts: array<vec4<f32>, THREADS * 2u>;

// What is built in is taken one by one: of members of a struct, naga tells DX12 nothing about subgroups.
@compute @workgroup_size(THREADS, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    run(workgroup_index(group, count), Invocation(thread, lane, subgroup, subgroups));
}

// The largest values of all invocations.
fn largest_of_all(me: Invocation, values: Eight) -> Eight {
    put_down(me, Eight(subgroupMax(values.low), subgroupMax(values.high)));
    var all = part(0u);
    for (var other = 1u; other < me.subgroups; other++) {
        let next = part(other);
        all = Eight(max(all.low, next.low), max(all.high, next.high));
    }
    return all;
}

// The sums over all invocations.
fn sums_of_all(me: Invocation, values: Eight) -> Eight {
    put_down(me, Eight(subgroupAdd(values.low), subgroupAdd(values.high)));
    var all = part(0u);
    for (var other = 1u; other < me.subgroups; other++) {
        let next = part(other);
        all = Eight(all.low + next.low, all.high + next.high);
    }
    return all;
}

fn put_down(me: Invocation, values: Eight) {
    if me.lane == 0u {
        parts[me.subgroup * 2u] = values.low;
        parts[me.subgroup * 2u + 1u] = values.high;
    }
    workgroupBarrier();
}

fn part(subgroup: u32) -> Eight {
    return Eight(parts[subgroup * 2u], parts[subgroup * 2u + 1u]);
}
