// A dispatch carries out one job or several of the same kind, which have nothing to do with each other. Each takes a run
// of the dispatch's workgroups; the shader declares what a `Job` is, and its first member says where the run begins.

@group(0) @binding(0) var<storage, read> jobs: array<Job>;

// The place of a workgroup in the dispatch. Rows are full, so there may be more workgroups than jobs ask for.
fn workgroup_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}

// The job that a workgroup belongs to.
fn find_job(workgroup: u32) -> u32 {
    var job = 0u;
    // A large batch has a job for each picture.
    for (var n = arrayLength(&jobs); n > 1u; n -= n / 2u) {
        let next = job + n / 2u;
        if jobs[next].first_workgroup <= workgroup {
            job = next;
        }
    }
    return job;
}

// What an invocation computes of a map: a pixel, the first of four channels, and how many there are from it on.
struct Part {
    pixel: u32,
    channel: u32,
    rest: u32,
}

// The part number `idx` of a map with so many channels.
fn part_of(idx: u32, channels: u32) -> Part {
    let groups = (channels + 3u) / 4u;
    let channel = idx % groups * 4u;
    return Part(idx / groups, channel, channels - channel);
}
