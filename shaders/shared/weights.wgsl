// Trained values of the whole network, in groups of four output channels.

@group(0) @binding(2) var<storage, read> weights: array<vec4<Element>>;

fn weight4(at: u32) -> vec4<f32> {
    return vec4<f32>(weights[at]);
}
