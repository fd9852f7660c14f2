//! The transforms that a classifier's pictures went through, as its checkpoint carries them.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::fold::channel_values;
use crate::pickle::Pickle;
use crate::pickle::value::{Id, Node};
use crate::torch::TensorRef;

/// Mean and deviation of each channel.
pub(super) type MeanStd = ([f64; 3], [f64; 3]);

/// Reads the normalisation among the transforms of a model, if there is one that changes anything.
///
/// The engine scales the shorter side bilinearly to the input's size and cuts out the middle; errors with
/// `ErrorKind::Unsupported` if the transforms do anything else to the size.
pub(super) fn mean_std(checkpoint: &Checkpoint, state: Id) -> Result<Option<MeanStd>> {
    let pickle = &checkpoint.pickle;
    let steps = pickle
        .get(state, "transforms")
        .and_then(|id| state_of(pickle, id))
        .and_then(|state| pickle.get(state, "transforms"));
    let mut result = None;
    let (mut resize, mut crop) = (None, None);
    for step in steps.and_then(|steps| pickle.sequence(steps)).unwrap_or_default() {
        let Node::Object { global, state, .. } = *pickle.node(*step) else { continue };
        match pickle.global(global).1 {
            "Normalize" => {
                let mean = triple(checkpoint, state, "mean")?;
                let std = triple(checkpoint, state, "std")?;
                result = Some((mean, std)).filter(|of| *of != ([0.0; 3], [1.0; 3]));
            }
            "Resize" => {
                if interpolation(pickle, state).is_some_and(|name| name != "bilinear") {
                    return Err(unsupported(
                        "the network's pictures have to be scaled other than bilinearly",
                    ));
                }
                resize = sizes(pickle, state);
            }
            "CenterCrop" => crop = sizes(pickle, state),
            _ => {}
        }
    }
    match (resize.as_deref(), crop.as_deref()) {
        (Some([scaled]), Some([height, width])) if [scaled, scaled] != [height, width] => Err(unsupported(
            &format!("the network's pictures have to be scaled to {scaled} and cut to {height}x{width}"),
        )),
        _ => Ok(result),
    }
}

fn unsupported(message: &str) -> Error {
    Error::unsupported("transforms", message)
}

fn state_of(pickle: &Pickle, id: Id) -> Option<Id> {
    match *pickle.node(id) {
        Node::Object { state, .. } => Some(state),
        _ => None,
    }
}

/// One number for each channel, from a list or a tensor.
fn triple(checkpoint: &Checkpoint, state: Id, key: &str) -> Result<[f64; 3]> {
    let pickle = &checkpoint.pickle;
    let malformed = || unsupported(&format!("the normalisation's `{key}` is not three numbers"));
    let id = pickle.get(state, key).ok_or_else(malformed)?;
    let values = match TensorRef::read(pickle, &checkpoint.storages(), id) {
        Some(tensor) => channel_values(&checkpoint.bytes, &tensor?, &format!("transforms.{key}"), 3)?,
        None => {
            let items = pickle.sequence(id).filter(|items| items.len() == 3).ok_or_else(malformed)?;
            items.iter().map(|&id| number(pickle, id)).collect::<Option<_>>().ok_or_else(malformed)?
        }
    };
    let is_usable = |value: &f64| value.is_finite() && (key != "std" || *value > 0.0);
    if !values.iter().all(is_usable) {
        return Err(malformed());
    }
    values.try_into().map_err(|_| malformed())
}

/// The name of the scaling's method.
fn interpolation(pickle: &Pickle, state: Id) -> Option<&str> {
    let Node::Object { args, .. } = *pickle.node(pickle.get(state, "interpolation")?) else { return None };
    pickle.str(*pickle.sequence(args)?.first()?)
}

/// A size of one or two numbers.
fn sizes(pickle: &Pickle, state: Id) -> Option<Vec<i64>> {
    let id = pickle.get(state, "size")?;
    match pickle.sequence(id) {
        Some(items) => items.iter().take(2).map(|&item| pickle.int(item)).collect(),
        None => pickle.int(id).map(|size| vec![size]),
    }
}

/// An integer or a float.
fn number(pickle: &Pickle, id: Id) -> Option<f64> {
    match *pickle.node(id) {
        Node::Float(value) => Some(value),
        _ => pickle.int(id).map(|value| value as f64),
    }
}
