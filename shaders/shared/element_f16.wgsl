// Activations and weights are 16-bit floats in memory; sums are not.

enable f16;

alias Element = f16;
