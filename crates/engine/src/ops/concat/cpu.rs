//! Concatenation on the CPU: copies what was not written in place.

use ferroyolo_kernels::{Arena, Context, View, copy};

use crate::ops::StepIo;

pub(super) fn run(context: Context<'_>, arena: &mut Arena, io: &StepIo<'_>) {
    for (input, part) in parts(io.inputs, io.output) {
        copy(context, arena, input, part);
    }
}

/// The inputs that have to be copied, each with its place in the output.
pub(crate) fn parts(inputs: &[View], output: View) -> impl Iterator<Item = (View, View)> {
    let mut from = 0;
    inputs.iter().filter_map(move |&input| {
        let part = output.channels(from, input.c);
        from += input.c;
        (input != part).then_some((input, part))
    })
}
