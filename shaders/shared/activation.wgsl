// Activations, the same as those of the CPU kernels; numbered as in `Activation` of the kernels' crate.

const ACTIVATION_NONE: u32 = 0u;
const ACTIVATION_SILU: u32 = 1u;
const ACTIVATION_RELU: u32 = 2u;
const ACTIVATION_SIGMOID: u32 = 3u;

fn activate(x: vec4<f32>, activation: u32) -> vec4<f32> {
    switch activation {
        case ACTIVATION_SILU: {
            return x / (1.0 + exp(-x));
        }
        case ACTIVATION_RELU: {
            return max(x, vec4<f32>(0.0));
        }
        case ACTIVATION_SIGMOID: {
            return 1.0 / (1.0 + exp(-x));
        }
        default: {
            return x;
        }
    }
}
