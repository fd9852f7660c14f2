// Pictures as they come from the host: for each picture of the batch a header, and where its members say, tables and
// samples. Samples are bytes, red, green and blue of a pixel one after the other, four to a word.

@group(0) @binding(2) var<storage, read> picture: array<u32>;

// The sample at a place in bytes.
fn sample(at: u32) -> i32 {
    return i32((picture[at / 4u] >> (at % 4u * 8u)) & 255u);
}
