//! One module for each command.

mod bench;
mod convert;
mod devices;
mod forward;
mod inspect;
mod predict;
mod worker;

use crate::args::{Command, ImgSize};
use crate::error::{Outcome, Result};
use crate::output::console;

/// Runs `command` to its end.
pub fn run(command: Command) -> Result<Outcome> {
    match command {
        Command::Predict(args) => predict::run(&args),
        Command::Val(args) => crate::val::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Worker(args) => worker::run(&args),
    }
}

/// The input size to use, `[height, width]`: each side as asked for, rounded up to a multiple of the largest stride.
pub fn input_size(asked: Option<ImgSize>, model: &ferroyolo::Model) -> [usize; 2] {
    let Some(ImgSize(asked)) = asked else { return model.imgsz() };
    let stride = model.stride().max(1);
    let sides = round_up(asked, stride);
    if sides != asked {
        let ([h, w], [new_h, new_w]) = (asked, sides);
        console::warning(&format!(
            "--imgsz {h},{w} is no multiple of the stride {stride}; using {new_h},{new_w}"
        ));
    }
    sides
}

fn round_up(sides: [usize; 2], stride: usize) -> [usize; 2] {
    sides.map(|side| side.div_ceil(stride) * stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_rounded_up_to_the_stride() {
        assert_eq!(round_up([1, 64], 32), [32, 64]);
        assert_eq!(round_up([641, 640], 64), [704, 640]);
    }
}
