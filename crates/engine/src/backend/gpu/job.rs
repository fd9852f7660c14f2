//! Work for a shader, and trained values as shaders read them.

use std::ops::Range;

use ferroyolo_kernels::View;
use ferroyolo_shaders::{Lanes, Shader};

use super::variant::Product;

/// A piece of work for one shader.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The shader; of a product any that does such.
    pub shader: Shader,
    /// Values of override constants; those that are absent keep the shader's own.
    pub overrides: Vec<(&'static str, u32)>,
    pub lanes: Lanes,
    pub workgroups: usize,
    /// Workgroup memory, where it depends on the op; others need less than the smallest limit there is.
    pub workgroup_bytes: usize,
    /// The members of the shader's `Job`. The first one is filled in when the job gets its place in a dispatch.
    pub words: Vec<u32>,
    /// The weights that are read, in vectors of four, and the members that count from the first of all weights.
    pub weights: Option<(Range<u32>, &'static [usize])>,
    /// Of what is cut into workgroups by the dispatch that it gets into, which adds overrides, too.
    pub product: Option<Product>,
}

/// Declares the `Job` of a shader: words with the names and the order of the WGSL struct.
macro_rules! job_struct {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct $name { $(pub $field: u32),+ }

        impl $name {
            /// The members' names.
            #[cfg(test)]
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// The members in order.
            pub fn words(&self) -> Vec<u32> {
                vec![$(self.$field),+]
            }
        }
    };
}
pub(crate) use job_struct;

/// A size or place as a shader's number. An arena has fewer than 2^32 elements, so all of them fit.
pub(crate) fn word(n: usize) -> u32 {
    u32::try_from(n).expect("a number below 2^32: programs are made for arenas of fewer elements")
}

/// Pixels of all images of a view.
pub(crate) fn pixels(view: &View) -> usize {
    view.n * view.pixels()
}

/// Whether a shader may take operands in fours, and the override that says whether some of them end within a vector.
pub(crate) fn lanes_for(views: &[View]) -> (Lanes, Vec<(&'static str, u32)>) {
    let is_aligned = |view: &View| view.offset.is_multiple_of(4) && view.pixel_stride.is_multiple_of(4);
    if !views.iter().all(is_aligned) {
        return (Lanes::One, Vec::new());
    }
    let is_ragged = views.iter().any(|view| !view.c.is_multiple_of(4));
    (Lanes::Four, if is_ragged { vec![("RAGGED", 1)] } else { Vec::new() })
}

/// Invocations of a workgroup of shaders that compute four channels of a pixel each.
pub(crate) const THREADS: usize = 64;

/// A job without weights whose invocations compute four channels of an output pixel each.
pub(crate) fn elementwise(shader: Shader, words: Vec<u32>, inputs: &[View], output: &View) -> Job {
    let views: Vec<View> = inputs.iter().copied().chain([*output]).collect();
    let (lanes, overrides) = lanes_for(&views);
    Job {
        shader,
        overrides,
        lanes,
        workgroups: (pixels(output) * output.c.div_ceil(4)).div_ceil(THREADS),
        workgroup_bytes: 0,
        words,
        weights: None,
        product: None,
    }
}

/// Where the trained values of an op lie, in vectors of four from the first of all weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub weights: u32,
    pub bias: u32,
}

/// The trained values of a network in the order in which shaders read them.
#[derive(Debug, Default)]
pub(crate) struct GpuWeights {
    /// By the index that an op has.
    pub places: Vec<Packed>,
    /// Groups of four output channels.
    pub values: Vec<f32>,
}

/// Appends the values of one op.
pub(crate) struct Packer<'a>(pub &'a mut GpuWeights);

impl Packer<'_> {
    /// Rows of `n_columns` values each, as `value(row, column)`, then the bias.
    pub(crate) fn push(
        &mut self,
        n_rows: usize,
        n_columns: usize,
        bias: &[f32],
        value: impl Fn(usize, usize) -> f32,
    ) {
        self.push_parts(1, n_rows, n_columns, bias, |_, row, column| value(row, column));
    }

    /// As [`Packer::push`] for several matrices `value(part, row, column)` one after the other, each with the bias
    /// behind it; the place is that of the first.
    pub(crate) fn push_parts(
        &mut self,
        n_parts: usize,
        n_rows: usize,
        n_columns: usize,
        bias: &[f32],
        value: impl Fn(usize, usize, usize) -> f32,
    ) {
        let weights = self.0.values.len() / 4;
        let padded = n_columns.next_multiple_of(4);
        let bias_at = |part: usize| weights + (part * (n_rows + 1) + n_rows) * padded / 4;
        for part in 0..n_parts {
            for row in 0..n_rows {
                let columns = (0..padded).map(|c| if c < n_columns { value(part, row, c) } else { 0.0 });
                self.0.values.extend(columns);
            }
            debug_assert_eq!(self.0.values.len(), bias_at(part) * 4);
            self.0.values.extend_from_slice(bias);
            self.0.values.resize(self.0.values.len().next_multiple_of(4), 0.0);
        }
        self.0.places.push(Packed { weights: word(weights), bias: word(bias_at(0)) });
    }
}
