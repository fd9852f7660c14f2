// Activations and weights are 32-bit floats in memory. Sums always are.

alias Element = f32;
