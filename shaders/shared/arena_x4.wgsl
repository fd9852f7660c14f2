// All activations of a picture, where every operand begins at a multiple of four elements and has a multiple of four
// channels. Same functions as the other arenas.

@group(0) @binding(1) var<storage, read_write> arena: array<vec4<Element>>;

// Four channels from element `at` on, of which `n` exist.
fn load4(at: u32, n: u32) -> vec4<f32> {
    return vec4<f32>(arena[at / 4u]);
}

fn load1(at: u32) -> f32 {
    return f32(arena[at / 4u][at % 4u]);
}

// Writes four channels from element `at` on, as far as the first `n` go.
fn store4(at: u32, n: u32, value: vec4<f32>) {
    arena[at / 4u] = vec4<Element>(value);
}
