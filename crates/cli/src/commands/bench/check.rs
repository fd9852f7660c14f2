//! Whether a device computes what the CPU computes.

use ferroyolo::{Device, Head, Isa, Outputs, Precision, Session, Tensor, TensorView};

use crate::args::{Bench, ModelArgs};
use crate::error::{Error, Result};
use crate::model;

/// Largest differences of raw outputs, relative to the larger of one and the largest value of a row.
const F32_TOLERANCE: f32 = 1e-3;
const F16_TOLERANCE: f32 = 5e-2;

/// The largest difference between the raw outputs of `session` and those of plain code on the CPU.
///
/// Errors if it is larger than rounding explains.
pub fn against_cpu(args: &Bench, session: &mut Session, images: &Tensor) -> Result<f32> {
    let plain = ModelArgs {
        device: Device::Cpu,
        precision: Precision::F32,
        isa: Some(Isa::scalar().name().to_owned()),
        ..args.model.clone()
    };
    let mut reference = model::load(&plain, args.model.threads, true)?.model.session();
    let want = reference.run_head(images, Head::Auto)?;
    let got = session.run_head(images, Head::Auto)?;
    let tolerance = if args.model.precision == Precision::F32 { F32_TOLERANCE } else { F16_TOLERANCE };
    let named =
        |outputs: Outputs<'_>| [("output0", outputs.output0()), ("proto", outputs.proto())].map(owned);
    let mut worst = 0.0f32;
    for ((name, got), (_, want)) in named(got).iter().zip(&named(want)) {
        let (got, want) = match (got, want) {
            (Some(got), Some(want)) => (got, want),
            (None, None) => continue,
            _ => return Err(Error::failed(format!("--check: only one of device and CPU gives {name}"))),
        };
        let difference = difference(got, want, tolerance).map_err(|what| {
            Error::failed(format!(
                "--check: {name} differs from the CPU's at {what}; this device or its driver computes wrong, use \
                 --device cpu"
            ))
        })?;
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn owned((name, view): (&'static str, Option<TensorView<'_>>)) -> (&'static str, Option<Tensor>) {
    (name, view.map(|view| view.to_tensor()))
}

/// The largest difference of two outputs, relative to the values of a row: one of the values of all anchors, one map.
///
/// Errors with the first place where it is above the tolerance, or no number. Coordinates and scores are rows of their
/// own, so that a score is not measured by the size of the picture.
fn difference(got: &Tensor, want: &Tensor, tolerance: f32) -> std::result::Result<f32, String> {
    if got.shape() != want.shape() {
        return Err(format!("its shape: got {:?}, expected {:?}", got.shape(), want.shape()));
    }
    let row = match want.shape() {
        [_, _, rest @ ..] if !rest.is_empty() => rest.iter().product(),
        _ => want.data().len(),
    };
    let mut worst = 0.0f32;
    for (idx, (got, want)) in got.data().chunks(row).zip(want.data().chunks(row)).enumerate() {
        let largest = want.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            let difference = (got - want).abs() / largest;
            if difference.is_nan() || difference > tolerance {
                return Err(format!("element {}: got {got}, expected {want}", idx * row + at));
            }
            worst = worst.max(difference);
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(vec![1, 2, values.len() / 2], values.to_vec()).expect("two rows")
    }

    #[test]
    fn rows_are_measured_by_themselves() {
        let want = tensor(&[600.0, 300.0, 0.5, 0.25]);
        assert_eq!(difference(&want, &want, F32_TOLERANCE), Ok(0.0));
        assert!(difference(&tensor(&[600.3, 300.0, 0.5, 0.25]), &want, F32_TOLERANCE).is_ok());
        for (wrong, at) in [
            ([601.0, 300.0, 0.5, 0.25], "element 0: got 601"),
            ([600.0, 300.0, 0.0, 0.25], "element 2: got 0"),
            ([600.0, 300.0, 0.5, f32::NAN], "element 3: got NaN"),
        ] {
            let told = difference(&tensor(&wrong), &want, F32_TOLERANCE).expect_err("a difference");
            assert!(told.starts_with(at), "{told}");
        }
        let other = Tensor::new(vec![1, 4], vec![0.0; 4]).expect("a row");
        assert!(difference(&other, &want, F32_TOLERANCE).expect_err("another shape").contains("its shape"));
    }
}
