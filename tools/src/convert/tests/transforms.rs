//! The transforms of classifiers.

use super::run;
use crate::convert::Dtype;
use crate::error::ErrorKind;
use crate::testing::{Builder, Py, dict, global, ints, with_attrs};

/// A step of a transform with this state.
fn step(name: &str, state: Vec<(&str, Py)>) -> Py {
    Py::Object(Box::new(global("torchvision.transforms.transforms", name)), Box::new(dict(state)))
}

/// A checkpoint whose model carries the steps that `make` gives.
fn checkpoint(make: impl FnOnce(&mut Builder) -> Vec<Py>) -> Vec<u8> {
    let mut builder = Builder::default();
    let layer = builder.conv2d([1, 3, 1, 1], 1, &[1.0; 3], None);
    let steps = Py::List(make(&mut builder));
    let compose = step("Compose", vec![("transforms", steps)]);
    let model = with_attrs(builder.model(vec![(layer, Py::Int(-1))]), vec![("transforms", compose)]);
    builder.checkpoint(model)
}

fn floats(values: &[f64]) -> Py {
    Py::List(values.iter().map(|&value| Py::Float(value)).collect())
}

fn interpolation(name: &str) -> Py {
    Py::Call(Box::new(global("torchvision.transforms.functional", "InterpolationMode")), vec![name.into()])
}

#[track_caller]
fn check(make: impl FnOnce(&mut Builder) -> Vec<Py>, mean: Option<[f64; 3]>, std: Option<[f64; 3]>) {
    let converted = run(checkpoint(make), Dtype::Keep).unwrap();
    let input = &converted.document().input;
    assert_eq!((input.mean, input.std), (mean, std));
    let json = serde_json::to_value(input).unwrap();
    assert_eq!(json.get("mean").is_some(), mean.is_some(), "{json}");
}

#[track_caller]
fn check_refused(make: impl FnOnce(&mut Builder) -> Vec<Py>, message: &str) {
    let error = run(checkpoint(make), Dtype::Keep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), format!("folder/m.pt: {message}"));
}

#[test]
fn a_normalisation_is_kept_if_it_changes_anything() {
    let normalize = |mean: Py, std: Py| vec![step("Normalize", vec![("mean", mean), ("std", std)])];
    check(|_| vec![step("ToTensor", vec![])], None, None);
    check(|_| normalize(floats(&[0.0; 3]), floats(&[1.0; 3])), None, None);
    check(|_| normalize(ints(&[0, 0, 0]), ints(&[1, 1, 1])), None, None);
    let (mean, std) = ([0.25, 0.5, 0.75], [0.5, 0.25, 0.125]);
    check(|_| normalize(floats(&mean), floats(&std)), Some(mean), Some(std));
    let tensors =
        |b: &mut Builder| normalize(b.tensor(&[3], &[0.25, 0.5, 0.75]), b.tensor(&[3], &[0.5, 0.25, 0.125]));
    check(tensors, Some(mean), Some(std));
}

#[test]
fn a_normalisation_of_other_values_is_refused() {
    let normalize = |mean: Py, std: Py| vec![step("Normalize", vec![("mean", mean), ("std", std)])];
    let message = |key: &str| format!("transforms: the normalisation's `{key}` is not three numbers");
    check_refused(|_| normalize(floats(&[0.0; 2]), floats(&[1.0; 3])), &message("mean"));
    check_refused(|_| normalize(floats(&[f64::NAN; 3]), floats(&[1.0; 3])), &message("mean"));
    check_refused(|_| normalize(floats(&[0.0; 3]), floats(&[1.0, 0.0, 1.0])), &message("std"));
    check_refused(|_| vec![step("Normalize", vec![("mean", floats(&[0.0; 3]))])], &message("std"));
}

#[test]
fn only_what_the_engine_does_is_taken() {
    let steps = |scaled: Py, cut: Py, method: &str| {
        vec![
            step("Resize", vec![("size", scaled), ("interpolation", interpolation(method))]),
            step("CenterCrop", vec![("size", cut)]),
        ]
    };
    check(|_| steps(Py::Int(224), ints(&[224, 224]), "bilinear"), None, None);
    check(|_| steps(ints(&[64, 96]), ints(&[64, 96]), "bilinear"), None, None);
    check_refused(
        |_| steps(Py::Int(256), ints(&[224, 224]), "bilinear"),
        "transforms: the network's pictures have to be scaled to 256 and cut to 224x224",
    );
    check_refused(
        |_| steps(Py::Int(224), ints(&[224, 224]), "bicubic"),
        "transforms: the network's pictures have to be scaled other than bilinearly",
    );
}
