// Activations and weights are 16-bit floats in memory; sums are not.

enable f16;

alias Element = f16;

// Whether one of these is infinite in memory, or would be if the device did not cut it off: from half a step above the
// largest number on. What is no number does not count, since none comes of finite ones. Floats are compared as bits, since
// a compiler may take it that there is nothing infinite.
fn is_too_large(values: vec4<f32>) -> bool {
    let first = vec4<u32>(0x477ff000u);
    let infinity = vec4<u32>(0x7f800000u);
    let sizes = bitcast<vec4<u32>>(values) & vec4<u32>(0x7fffffffu);
    return any((sizes >= first) & (sizes <= infinity));
}
