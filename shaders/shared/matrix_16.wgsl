// Matrices of 16 x 16 elements, read from arrays of four elements each, which are written at once.

const SIDE: u32 = 16u;
alias Left = coop_mat16x16<Element, A>;
alias Right = coop_mat16x16<Element, B>;
alias Sum = coop_mat16x16<f32, C>;

// What operands are kept in on their way to matrices, and how many of these make four elements.
alias Cell = vec4<Element>;
const CELLS: u32 = 1u;

fn put_window(at: u32, value: vec4<f32>) {
    window[at] = vec4<Element>(value);
}

fn put_kernel(at: u32, value: vec4<f32>) {
    kernel[at] = vec4<Element>(value);
}
