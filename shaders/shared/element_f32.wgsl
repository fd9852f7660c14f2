// Activations and weights are 32-bit floats in memory. Sums always are.

alias Element = f32;

// Whether memory can't hold one of these.
fn is_too_large(values: vec4<f32>) -> bool {
    return false;
}
