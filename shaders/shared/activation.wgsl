// Activations, the same as those of the CPU kernels. A prelude: put before the shaders that name ACTIVATION.

const ACTIVATION_NONE: u32 = 0u;
const ACTIVATION_SILU: u32 = 1u;
const ACTIVATION_RELU: u32 = 2u;
const ACTIVATION_SIGMOID: u32 = 3u;

override ACTIVATION: u32 = 0u;

fn activate(x: f32) -> f32 {
    switch ACTIVATION {
        case ACTIVATION_SILU: {
            return x / (1.0 + exp(-x));
        }
        case ACTIVATION_RELU: {
            return max(x, 0.0);
        }
        case ACTIVATION_SIGMOID: {
            return 1.0 / (1.0 + exp(-x));
        }
        default: {
            return x;
        }
    }
}
