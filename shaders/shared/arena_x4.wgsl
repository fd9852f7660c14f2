// All activations of a picture, where every pixel of every operand begins at a multiple of four elements. Same functions
// as the other arenas.

@group(0) @binding(1) var<storage, read_write> arena: array<vec4<Element>>;

// 1: some operand's channels are no multiple of four, and what lies behind its last one is not its own.
override RAGGED: u32 = 0u;

// Four channels from element `at` on, of which `n` exist, as they lie in memory.
fn ask4(at: u32, n: u32) -> vec4<Element> {
    return arena[at / 4u];
}

// What was asked for, as numbers; those that do not exist are zero.
fn known4(value: vec4<Element>, n: u32) -> vec4<f32> {
    let numbers = vec4<f32>(value);
    if RAGGED == 1u {
        // Whatever the others hold, it may be no number.
        return select(vec4<f32>(0.0), numbers, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(n));
    }
    return numbers;
}

// Four channels from element `at` on, of which `n` exist; the others are zero.
fn load4(at: u32, n: u32) -> vec4<f32> {
    return known4(ask4(at, n), n);
}

fn load1(at: u32) -> f32 {
    return f32(arena[at / 4u][at % 4u]);
}

// Writes four channels from element `at` on, as far as the first `n` go.
fn store4(at: u32, n: u32, value: vec4<f32>) {
    if RAGGED == 1u && n < 4u {
        // Written out, since what is indexed by a variable does not stay in registers.
        if n > 0u {
            arena[at / 4u].x = Element(value.x);
        }
        if n > 1u {
            arena[at / 4u].y = Element(value.y);
        }
        if n > 2u {
            arena[at / 4u].z = Element(value.z);
        }
        note(select(vec4<f32>(0.0), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(n)));
        return;
    }
    arena[at / 4u] = vec4<Element>(value);
    note(value);
}

// Tells the host, at the end of the arena, of a value that memory can't hold. All who do so write the same.
fn note(value: vec4<f32>) {
    if is_too_large(value) {
        arena[arrayLength(&arena) - 1u] = vec4<Element>(1.0, 0.0, 0.0, 0.0);
    }
}
