//! `Upsample`, `MaxPool2d` and `ZeroPad2d`.

use super::ModuleNode;
use crate::error::{Error, Result};
use crate::graph::{Builder, ValueId};
use crate::ops::{MaxPool2d, Op, Upsample, ZeroPad};

/// Zeros on one side of a map at most.
const MAX_PAD: usize = 64;

/// Enlarges by a whole factor, nearest neighbour.
pub(super) fn build_upsample(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    if m.attr("mode").is_some() && m.text("mode")? != "nearest" {
        return Err(Error::unsupported(m.path(), format!("upsampling of mode {:?}", m.text("mode")?)));
    }
    let factor = m.square("scale_factor")?;
    if !(1..=64).contains(&factor) {
        return Err(Error::format(m.path(), format!("a scale factor of {factor}, expected 1 to 64")));
    }
    b.push(m.path(), Op::Upsample(Upsample { factor }), &[x])
}

/// Largest value of each window.
pub(super) fn build_max_pool(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let (kernel, stride, padding) = (m.square("kernel_size")?, m.square("stride")?, m.square("padding")?);
    if m.attr("dilation").is_some() && m.square("dilation")? != 1 {
        return Err(Error::unsupported(m.path(), "a dilated pool"));
    }
    if m.flag_or("ceil_mode", false)? {
        return Err(Error::unsupported(m.path(), "a pool that rounds its output size up"));
    }
    if !(1..=64).contains(&kernel) || !(1..=64).contains(&stride) || padding > kernel / 2 {
        return Err(Error::format(
            m.path(),
            format!("a pool of {kernel} with stride {stride} and padding {padding}"),
        ));
    }
    b.push(m.path(), Op::MaxPool2d(MaxPool2d { kernel, stride, padding }), &[x])
}

/// Rows and columns of zeros; `padding` is left, right, top, bottom.
pub(super) fn build_zero_pad(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    let sides = m.usizes("padding")?;
    let &[left, right, top, bottom] = sides.as_slice() else {
        return Err(Error::format(m.path(), format!("padding of {sides:?}, expected four sides")));
    };
    if sides.iter().any(|&side| side > MAX_PAD) {
        return Err(Error::limit(m.path(), format!("padding of {sides:?}, expected at most {MAX_PAD}")));
    }
    b.push(m.path(), Op::ZeroPad(ZeroPad { top, bottom, left, right }), &[x])
}
