// All activations of a picture, where operands lie anywhere. Same functions as the other arenas.

@group(0) @binding(1) var<storage, read_write> arena: array<Element>;

// Four channels from element `at` on, of which `n` exist; the others are zero.
fn load4(at: u32, n: u32) -> vec4<f32> {
    var value = vec4<f32>(0.0);
    for (var i = 0u; i < min(n, 4u); i++) {
        value[i] = f32(arena[at + i]);
    }
    return value;
}

fn load1(at: u32) -> f32 {
    return f32(arena[at]);
}

// Writes four channels from element `at` on, as far as the first `n` go.
fn store4(at: u32, n: u32, value: vec4<f32>) {
    for (var i = 0u; i < min(n, 4u); i++) {
        arena[at + i] = Element(value[i]);
    }
    note(select(vec4<f32>(0.0), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(n)));
}

// Tells the host, at the end of the arena, of a value that memory can't hold. All who do so write the same.
fn note(value: vec4<f32>) {
    if is_too_large(value) {
        arena[arrayLength(&arena) - 4u] = Element(1.0);
    }
}
