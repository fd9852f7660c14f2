// All activations of a picture, where operands lie anywhere. Same functions as the other arenas.

@group(0) @binding(1) var<storage, read_write> arena: array<Element>;

// Four channels from element `at` on, of which `n` exist, as they lie in memory. Written out, since what is indexed by a
// variable does not stay in registers.
fn ask4(at: u32, n: u32) -> vec4<Element> {
    var value = vec4<Element>();
    if n > 0u {
        value.x = arena[at];
    }
    if n > 1u {
        value.y = arena[at + 1u];
    }
    if n > 2u {
        value.z = arena[at + 2u];
    }
    if n > 3u {
        value.w = arena[at + 3u];
    }
    return value;
}

// What was asked for, as numbers; those that do not exist are zero.
fn known4(value: vec4<Element>, n: u32) -> vec4<f32> {
    return vec4<f32>(value);
}

// Four channels from element `at` on, of which `n` exist; the others are zero.
fn load4(at: u32, n: u32) -> vec4<f32> {
    return known4(ask4(at, n), n);
}

fn load1(at: u32) -> f32 {
    return f32(arena[at]);
}

// Writes four channels from element `at` on, as far as the first `n` go.
fn store4(at: u32, n: u32, value: vec4<f32>) {
    if n > 0u {
        arena[at] = Element(value.x);
    }
    if n > 1u {
        arena[at + 1u] = Element(value.y);
    }
    if n > 2u {
        arena[at + 2u] = Element(value.z);
    }
    if n > 3u {
        arena[at + 3u] = Element(value.w);
    }
    note(select(vec4<f32>(0.0), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(n)));
}

// Tells the host, at the end of the arena, of a value that memory can't hold. All who do so write the same.
fn note(value: vec4<f32>) {
    if is_too_large(value) {
        arena[arrayLength(&arena) - 4u] = Element(1.0);
    }
}
