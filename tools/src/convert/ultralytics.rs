//! Checkpoints of the ultralytics package: a pickled module tree.

use crate::checkpoint::Checkpoint;
use crate::convert::emit::{Emitter, join};
use crate::convert::{Dtype, transforms};
use crate::credit::{Credit, check_name_len, text_size};
use crate::document::{Document, Input, Layer, Module, Provenance};
use crate::error::{Error, Result, printable};
use crate::pickle::Pickle;
use crate::pickle::value::{Id, Node};
use crate::torch::{Modules, TensorRef, TreeModule};
use crate::write::OutTensor;

const DEFAULT_IMGSZ: u32 = 640;

/// Strides that a network may have.
const MAX_STRIDES: usize = 16;

/// Layers whose outputs a layer may take.
const MAX_FROM: usize = 32;

/// What a layer takes in the document, and the document where it is written, beside its module.
const LAYER_SIZE: usize = size_of::<Layer>() + (size_of::<i64>() + 8) * MAX_FROM + 128;

pub(super) fn convert(checkpoint: &Checkpoint, id: Id, dtype: Dtype) -> Result<(Document, Vec<OutTensor>)> {
    let pickle = &checkpoint.pickle;
    let mut modules = Modules::new(pickle, checkpoint.storages());
    let mut model = modules.read(id, "")?;
    let mut credit = modules.into_credit();
    let mean_std = transforms::mean_std(checkpoint, model.state)?;
    let sequence =
        model.children.iter().position(|(name, child)| name == "model" && child.class == "Sequential");
    let Some((_, sequence)) = sequence.map(|idx| model.children.swap_remove(idx)) else {
        let message = format!("module {} has no sequence of layers under `model`", model.class);
        return Err(Error::unsupported("", message));
    };
    let Some((_, head)) = sequence.children.last() else {
        return Err(Error::unsupported("model", "sequence of layers is empty"));
    };
    let mut document = Document {
        task: task(&model, head)?,
        names: names(pickle, model.state, &mut credit)?,
        stride: stride(checkpoint, &model, head)?,
        imgsz: imgsz(pickle, model.state)?,
        input: Input {
            channels: 0,
            color: "rgb",
            divisor: 255.0,
            letterbox: "center",
            pad_value: 114,
            mean: mean_std.map(|(mean, _)| mean),
            std: mean_std.map(|(_, std)| std),
        },
        kpt_shape: kpt_shape(&model, head)?,
        provenance: provenance(checkpoint),
        layers: Vec::with_capacity(sequence.children.len()),
    };
    credit.pay(sequence.children.len() * LAYER_SIZE, "model")?;
    let mut emitter = Emitter::new(&checkpoint.bytes, dtype, credit);
    for (index, (name, module)) in sequence.children.into_iter().enumerate() {
        let path = join("model", &name);
        let from = layer_from(pickle, &module, index, &path)?;
        let module = emitter.emit(&path, module)?;
        document.layers.push(Layer { index, from, path, module });
    }
    let channels = document.layers.iter().find_map(|layer| input_channels(&layer.module));
    document.input.channels =
        channels.ok_or_else(|| Error::unsupported("model", "network has no convolution"))?;
    Ok((document, emitter.into_tensors()))
}

/// The layers that this one takes, from its own `f`: -1 is the one before, non-negative numbers are absolute.
fn layer_from(pickle: &Pickle, module: &TreeModule, index: usize, path: &str) -> Result<Vec<i64>> {
    let malformed = |key: &str| Error::corrupt(path, format!("layer's `{key}` is missing or malformed"));
    let i = pickle.get(module.state, "i").and_then(|id| pickle.int(id)).ok_or_else(|| malformed("i"))?;
    if usize::try_from(i) != Ok(index) {
        return Err(Error::corrupt(
            path,
            format!("layer says that its position is {i}, it stands at {index}"),
        ));
    }
    let f = pickle.get(module.state, "f").ok_or_else(|| malformed("f"))?;
    let from: Option<Vec<i64>> = match pickle.sequence(f) {
        Some(items) if items.len() > MAX_FROM => None,
        Some(items) => items.iter().map(|&item| pickle.int(item)).collect(),
        None => pickle.int(f).map(|f| vec![f]),
    };
    let from = from.filter(|from| !from.is_empty()).ok_or_else(|| malformed("f"))?;
    from.into_iter()
        .map(|f| {
            let absolute = if f < 0 { i.saturating_add(f) } else { f };
            match (-1..i).contains(&absolute) {
                true => Ok(absolute),
                false => Err(Error::corrupt(path, format!("layer {i} takes the output of layer {absolute}"))),
            }
        })
        .collect()
}

fn input_channels(module: &Module) -> Option<u32> {
    if module.class == "Conv2d" {
        return module.attrs.get("in_channels")?.as_u64()?.try_into().ok();
    }
    module.children.iter().find_map(|(_, child)| input_channels(child))
}

/// What the network predicts: by the head, which is what will run, and by the model's own word only where the head's
/// class is not a known one.
fn task(model: &TreeModule, head: &TreeModule) -> Result<String> {
    let by_head = match head.class.as_str() {
        "Detect" | "v10Detect" => Some("detect"),
        "Segment" | "Segment26" => Some("segment"),
        "Pose" | "Pose26" => Some("pose"),
        "OBB" | "OBB26" => Some("obb"),
        "Classify" => Some("classify"),
        "SemanticSegment" => Some("semantic"),
        "Depth" => Some("depth"),
        _ => None,
    };
    let by_model = match model.class.as_str() {
        "DetectionModel" => Some("detect"),
        "SegmentationModel" => Some("segment"),
        "PoseModel" => Some("pose"),
        "OBBModel" => Some("obb"),
        "ClassificationModel" => Some("classify"),
        "SemanticSegmentationModel" => Some("semantic"),
        "DepthModel" => Some("depth"),
        _ => None,
    };
    by_head.or(by_model).map(str::to_owned).ok_or_else(|| {
        Error::unsupported(
            "",
            format!("networks of class {} with the head {} are not supported", model.class, head.class),
        )
    })
}

fn names(pickle: &Pickle, state: Id, credit: &mut Credit) -> Result<Vec<String>> {
    let malformed = |what: &str| Error::corrupt("names", format!("class names {what}"));
    let names = pickle.get(state, "names").ok_or_else(|| malformed("are missing"))?;
    let n_items = pickle.sequence(names).map(<[_]>::len).or(pickle.dict(names).map(<[_]>::len));
    credit.pay(n_items.unwrap_or(0) * 2 * size_of::<Option<String>>(), "names")?;
    let mut text = |id| {
        check_name_len(pickle.str_len(id).unwrap_or(0), "a class", "names")?;
        let name = pickle.str(id).ok_or_else(|| malformed("are not all strings"))?;
        credit.pay(text_size(name), "names")?;
        Ok(name.to_owned())
    };
    if let Some(items) = pickle.sequence(names) {
        return items.iter().map(|&id| text(id)).collect();
    }
    let items = pickle.dict(names).ok_or_else(|| malformed("are neither a dict nor a list"))?;
    let mut out = vec![None; items.len()];
    for &(key, value) in items {
        let key = pickle.int(key).ok_or_else(|| malformed("have a key that is not an integer"))?;
        let slot = usize::try_from(key).ok().and_then(|key| out.get_mut(key));
        let slot =
            slot.ok_or_else(|| malformed(&format!("have the index {key}, but are {}", items.len())))?;
        if slot.replace(text(value)?).is_some() {
            return Err(malformed(&format!("have the index {key} twice")));
        }
    }
    out.into_iter()
        .enumerate()
        .map(|(idx, name)| name.ok_or_else(|| malformed(&format!("lack index {idx}"))))
        .collect()
}

/// Pixels per cell, from the model, else from its head.
fn stride(checkpoint: &Checkpoint, model: &TreeModule, head: &TreeModule) -> Result<Vec<u32>> {
    let pickle = &checkpoint.pickle;
    for state in [model.state, head.state] {
        let Some(id) = pickle.get(state, "stride") else { continue };
        let Some(tensor) = TensorRef::read(pickle, &checkpoint.storages(), id) else { continue };
        let tensor = tensor.map_err(|error| error.within("stride"))?;
        if tensor.n_elements() > MAX_STRIDES {
            return Err(Error::tensor("stride", format!("{} strides", tensor.n_elements())));
        }
        let values = tensor.values(&checkpoint.bytes);
        let whole = |value: &f64| value.fract() == 0.0 && (1.0..=4096.0).contains(value);
        if values.is_empty() || !values.iter().all(whole) {
            return Err(Error::tensor(
                "stride",
                format!("strides are {values:?}, expected whole numbers of pixels"),
            ));
        }
        return Ok(values.into_iter().map(|value| value as u32).collect());
    }
    Err(Error::tensor("stride", "neither model nor head has its strides"))
}

/// `[height, width]` of training: an integer or a pair under `imgsz` of the model's arguments or the training's.
fn imgsz(pickle: &Pickle, state: Id) -> Result<[u32; 2]> {
    let args = pickle.get(state, "args").and_then(|args| match *pickle.node(args) {
        Node::Object { state, .. } => Some(state),
        Node::Dict { .. } => Some(args),
        _ => None,
    });
    for args in [args, pickle.get(pickle.root, "train_args")].into_iter().flatten() {
        let Some(id) = pickle.get(args, "imgsz") else { continue };
        let sizes: Option<Vec<i64>> = match pickle.sequence(id) {
            Some(items) if items.len() > 2 => None,
            Some(items) => items.iter().map(|&item| pickle.int(item)).collect(),
            None => pickle.int(id).map(|size| vec![size, size]),
        };
        let sizes = match sizes.as_deref() {
            Some(&[size]) => Some([size, size]),
            Some(&[height, width]) => Some([height, width]),
            _ => None,
        };
        return match sizes {
            Some(sizes) if sizes.iter().all(|size| (1..=65_536).contains(size)) => {
                Ok(sizes.map(|size| size as u32))
            }
            _ => Err(Error::corrupt("imgsz", "input size is not one or two sensible numbers of pixels")),
        };
    }
    Ok([DEFAULT_IMGSZ; 2])
}

fn kpt_shape(model: &TreeModule, head: &TreeModule) -> Result<Option<[u32; 2]>> {
    let Some(value) = head.attrs.get("kpt_shape").or_else(|| model.attrs.get("kpt_shape")) else {
        return Ok(None);
    };
    if value.is_null() {
        return Ok(None);
    }
    let pair: Option<Vec<u32>> =
        value.as_array().and_then(|items| items.iter().map(|item| item.as_u64()?.try_into().ok()).collect());
    match pair.as_deref() {
        Some(&[n, values]) if n > 0 && (2..=3).contains(&values) => Ok(Some([n, values])),
        _ => Err(Error::corrupt("kpt_shape", format!("keypoint shape is {value}"))),
    }
}

fn provenance(checkpoint: &Checkpoint) -> Provenance {
    let pickle = &checkpoint.pickle;
    let text = |key| pickle.get(pickle.root, key).and_then(|id| pickle.str(id)).map(printable);
    Provenance {
        file: checkpoint.file_name(),
        sha256: checkpoint.sha256(),
        producer: "ultralytics".to_owned(),
        version: text("version"),
        license: text("license"),
        date: text("date"),
    }
}
