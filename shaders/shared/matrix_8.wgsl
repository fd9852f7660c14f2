// Matrices of 8 x 8 elements. They are read from arrays of single elements, since Metal knows no others.

const SIDE: u32 = 8u;
alias Left = coop_mat8x8<Element, A>;
alias Right = coop_mat8x8<Element, B>;
alias Sum = coop_mat8x8<f32, C>;

// What operands are kept in on their way to matrices, and how many of these make four elements.
alias Cell = Element;
const CELLS: u32 = 4u;

fn put_window(at: u32, value: vec4<f32>) {
    window[at * 4u] = Element(value.x);
    window[at * 4u + 1u] = Element(value.y);
    window[at * 4u + 2u] = Element(value.z);
    window[at * 4u + 3u] = Element(value.w);
}

fn put_kernel(at: u32, value: vec4<f32>) {
    kernel[at * 4u] = Element(value.x);
    kernel[at * 4u + 1u] = Element(value.y);
    kernel[at * 4u + 2u] = Element(value.z);
    kernel[at * 4u + 3u] = Element(value.w);
}
