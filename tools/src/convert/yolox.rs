//! YOLOX checkpoints: a state dict, from whose names and shapes the architecture follows.
//!
//! Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430, and the published checkpoints.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::checkpoint::Checkpoint;
use crate::convert::Dtype;
use crate::convert::emit::{Emitter, join};
use crate::credit::{Credit, check_name_len};
use crate::document::{Document, Input, Layer, Module, Provenance};
use crate::error::{Error, Result, printable};
use crate::pickle::Pickle;
use crate::pickle::value::{Id, Node};
use crate::torch::{TensorRef, TreeModule};
use crate::write::OutTensor;

/// Epsilon of all batch norms; it is not in the state dict.
const BATCH_NORM_EPS: f64 = 1e-3;

/// Whether the value is a tensor.
pub(super) fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    use crate::pickle::allow::Kind;
    matches!(*pickle.node(id), Node::Object { global, .. }
        if matches!(pickle.kind(global), Kind::RebuildTensor | Kind::RebuildParameter))
}

pub(super) fn convert(
    checkpoint: &Checkpoint,
    state_dict: Id,
    dtype: Dtype,
) -> Result<(Document, Vec<OutTensor>)> {
    let mut credit = Credit::of(&checkpoint.pickle);
    let tensors = read_tensors(checkpoint, state_dict, &mut credit)?;
    let mut builder = Builder { tensors, emitter: Emitter::new(&checkpoint.bytes, dtype, credit) };
    let stem = builder.tensors.get("backbone.backbone.stem.conv.conv.weight");
    let Some(&[stem_width, stem_channels, ..]) = stem.map(|tensor| tensor.shape.as_slice()) else {
        let message =
            "state dict without a module tree, and not one of YOLOX: its architecture can't be known";
        return Err(Error::unsupported("", message));
    };
    // The stem looks at the four pixels of each 2x2 block as four times the channels.
    if stem_channels % 4 != 0 || stem_channels == 0 {
        return Err(Error::unsupported(
            "backbone.backbone.stem",
            format!("stem takes {stem_channels} channels"),
        ));
    }
    let layers = builder.layers()?;
    let n_classes =
        match layers.last().and_then(|head| head.module.attrs.get("num_classes")).and_then(Value::as_u64) {
            Some(n) => n as usize,
            None => return Err(Error::unsupported("head", "number of classes is unknown")),
        };
    if let Some(name) = builder.tensors.keys().min() {
        return Err(Error::unsupported(printable(name), "tensor is not a part of YOLOX as it is known here"));
    }
    // Each class is a string, in the list and twice where it is written.
    builder.emitter.pay(n_classes * (size_of::<String>() + 64), "head")?;
    let names = match n_classes {
        80 => COCO.iter().map(|&name| name.to_owned()).collect(),
        n => (0..n).map(|idx| format!("class{idx}")).collect(),
    };
    // Nano and tiny, the two narrowest, were trained for smaller pictures than the others.
    let imgsz = if stem_width <= 24 { 416 } else { 640 };
    let document = Document {
        task: "detect".to_owned(),
        names,
        stride: vec![8, 16, 32],
        imgsz: [imgsz; 2],
        input: Input {
            channels: (stem_channels / 4) as u32,
            color: "bgr",
            divisor: 1.0,
            letterbox: "top-left",
            pad_value: 114,
            mean: None,
            std: None,
        },
        kpt_shape: None,
        provenance: Provenance {
            file: checkpoint.file_name(),
            sha256: checkpoint.sha256(),
            producer: "yolox".to_owned(),
            version: None,
            license: None,
            date: None,
        },
        layers,
    };
    Ok((document, builder.emitter.into_tensors()))
}

fn read_tensors(
    checkpoint: &Checkpoint,
    state_dict: Id,
    credit: &mut Credit,
) -> Result<HashMap<String, TensorRef>> {
    let pickle = &checkpoint.pickle;
    let mut tensors = HashMap::new();
    for &(name, value) in pickle.dict(state_dict).unwrap_or_default() {
        check_name_len(pickle.str_len(name).unwrap_or(0), "a tensor", "")?;
        let Some(name) = pickle.str(name) else {
            return Err(Error::corrupt("", "state dict has a key that is not a string"));
        };
        let place = printable(name);
        let Some(tensor) = TensorRef::read(pickle, &checkpoint.storages(), value) else {
            return Err(Error::tensor(
                place,
                format!("{} stands where a tensor should", pickle.describe(value)),
            ));
        };
        let tensor = tensor.map_err(|error| error.within(&place))?;
        // Counts the training steps, nothing more.
        if name.ends_with(".num_batches_tracked") {
            continue;
        }
        // The map is up to half empty.
        credit.pay(2 * tensor.n_own_bytes() + name.len(), &place)?;
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(Error::corrupt(place, "tensor is there twice"));
        }
    }
    Ok(tensors)
}

/// How a convolution's output is scaled down; what the state dict does not tell.
#[derive(Clone, Copy)]
enum Stride {
    One = 1,
    Two = 2,
}

/// Takes tensors out of the state dict while it builds the modules they belong to.
struct Builder<'a> {
    tensors: HashMap<String, TensorRef>,
    emitter: Emitter<'a>,
}

impl Builder<'_> {
    fn layers(&mut self) -> Result<Vec<Layer>> {
        let mut layers: Vec<Layer> = Vec::with_capacity(25);
        let mut add = |from: &[i64], path: &str, module: Module| {
            layers.push(Layer { index: layers.len(), from: from.to_vec(), path: path.to_owned(), module });
        };
        let dark = "backbone.backbone";

        let path = format!("{dark}.stem");
        let stem = self.base_conv(&format!("{path}.conv"), Stride::One)?;
        add(&[-1], &path, Module::new("yolox.Focus", []).with("conv", stem));
        let mut last = 0;
        for stage in ["dark2", "dark3", "dark4", "dark5"] {
            let path = format!("{dark}.{stage}.0");
            let conv = self.conv(&path, Stride::Two)?;
            add(&[last], &path, conv);
            if stage == "dark5" {
                let path = format!("{dark}.{stage}.1");
                let pooling = self.spp(&path)?;
                add(&[last + 1], &path, pooling);
                last += 1;
            }
            let path = format!("{dark}.{stage}.{}", if stage == "dark5" { 2 } else { 1 });
            let csp = self.csp(&path, stage != "dark5")?;
            add(&[last + 1], &path, csp);
            last += 2;
        }
        // dark3, dark4 and dark5 end in layers 4, 6 and 9.
        let (fine, middle, coarse) = (4, 6, 9);
        let lateral = self.base_conv("backbone.lateral_conv0", Stride::One)?;
        add(&[coarse], "backbone.lateral_conv0", lateral);
        add(&[10], "backbone.upsample0", upsample());
        add(&[11, middle], "backbone.concat0", concat());
        let csp = self.csp("backbone.C3_p4", false)?;
        add(&[12], "backbone.C3_p4", csp);
        let reduce = self.base_conv("backbone.reduce_conv1", Stride::One)?;
        add(&[13], "backbone.reduce_conv1", reduce);
        add(&[14], "backbone.upsample1", upsample());
        add(&[15, fine], "backbone.concat1", concat());
        let csp = self.csp("backbone.C3_p3", false)?;
        add(&[16], "backbone.C3_p3", csp);
        let down = self.conv("backbone.bu_conv2", Stride::Two)?;
        add(&[17], "backbone.bu_conv2", down);
        add(&[18, 14], "backbone.concat2", concat());
        let csp = self.csp("backbone.C3_n3", false)?;
        add(&[19], "backbone.C3_n3", csp);
        let down = self.conv("backbone.bu_conv1", Stride::Two)?;
        add(&[20], "backbone.bu_conv1", down);
        add(&[21, 10], "backbone.concat3", concat());
        let csp = self.csp("backbone.C3_n4", false)?;
        add(&[22], "backbone.C3_n4", csp);
        let head = self.head()?;
        add(&[17, 20, 23], "head", head);
        Ok(layers)
    }

    fn head(&mut self) -> Result<Module> {
        let n_levels = 3;
        let mut head = Module::new("yolox.Head", []);
        let list = |children| Module { class: "ModuleList".to_owned(), attrs: Map::new(), children };
        let mut stems = Vec::new();
        for level in 0..n_levels {
            stems.push((level.to_string(), self.base_conv(&format!("head.stems.{level}"), Stride::One)?));
        }
        head = head.with("stems", list(stems));
        for branch in ["cls_convs", "reg_convs"] {
            let mut levels = Vec::new();
            for level in 0..n_levels {
                let mut chain = Module::new("Sequential", []);
                for step in 0..2 {
                    let conv = self.conv(&format!("head.{branch}.{level}.{step}"), Stride::One)?;
                    chain = chain.with(step.to_string(), conv);
                }
                levels.push((level.to_string(), chain));
            }
            head = head.with(branch, list(levels));
        }
        let mut n_classes = 0;
        for (branch, expected) in [("cls_preds", None), ("reg_preds", Some(4)), ("obj_preds", Some(1))] {
            let mut levels = Vec::new();
            for level in 0..n_levels {
                let path = format!("head.{branch}.{level}");
                let (conv, n_out) = self.plain_conv(&path)?;
                let expected = expected.or((n_classes > 0).then_some(n_classes)).unwrap_or(n_out);
                if n_out != expected {
                    return Err(Error::tensor(path, format!("predicts {n_out} values, expected {expected}")));
                }
                if branch == "cls_preds" {
                    n_classes = n_out;
                }
                levels.push((level.to_string(), conv));
            }
            head = head.with(branch, list(levels));
        }
        head.attrs.insert("num_classes".to_owned(), n_classes.into());
        Ok(head)
    }

    /// 1x1, pools of 5, 9 and 13, 1x1.
    fn spp(&mut self, path: &str) -> Result<Module> {
        let (conv1, conv2) = (
            self.base_conv(&join(path, "conv1"), Stride::One)?,
            self.base_conv(&join(path, "conv2"), Stride::One)?,
        );
        let module = Module::new("yolox.SPPBottleneck", [("kernel_sizes", json!([5, 9, 13]))]);
        Ok(module.with("conv1", conv1).with("conv2", conv2))
    }

    /// A cross-stage-partial layer with as many bottlenecks as the state dict has.
    fn csp(&mut self, path: &str, shortcut: bool) -> Result<Module> {
        let mut module = Module::new("yolox.CSPLayer", []);
        for name in ["conv1", "conv2", "conv3"] {
            module = module.with(name, self.base_conv(&join(path, name), Stride::One)?);
        }
        let mut chain = Module::new("Sequential", []);
        for idx in 0.. {
            let path = format!("{path}.m.{idx}");
            let Some(hidden) = self.tensors.get(&format!("{path}.conv1.conv.weight")) else { break };
            let n_in = hidden.shape.get(1).copied();
            let conv1 = self.base_conv(&join(&path, "conv1"), Stride::One)?;
            let conv2 = self.conv(&join(&path, "conv2"), Stride::One)?;
            let use_add = shortcut && n_out(&conv2) == n_in;
            let bottleneck = Module::new("yolox.Bottleneck", [("use_add", use_add.into())]);
            chain = chain.with(idx.to_string(), bottleneck.with("conv1", conv1).with("conv2", conv2));
        }
        Ok(module.with("m", chain))
    }

    /// A convolution, or its depthwise form where the state dict has that one.
    fn conv(&mut self, path: &str, stride: Stride) -> Result<Module> {
        if !self.tensors.contains_key(&format!("{path}.dconv.conv.weight")) {
            return self.base_conv(path, stride);
        }
        let dconv = self.base_conv(&join(path, "dconv"), stride)?;
        let pconv = self.base_conv(&join(path, "pconv"), Stride::One)?;
        Ok(Module::new("yolox.DWConv", []).with("dconv", dconv).with("pconv", pconv))
    }

    /// Convolution, batch norm, SiLU.
    fn base_conv(&mut self, path: &str, stride: Stride) -> Result<Module> {
        let conv_path = join(path, "conv");
        let conv = self.conv2d(&conv_path, stride)?;
        let mut bn = module("BatchNorm2d", Map::from_iter([("eps".to_owned(), BATCH_NORM_EPS.into())]));
        for name in ["weight", "bias", "running_mean", "running_var"] {
            let full = format!("{path}.bn.{name}");
            let tensor =
                self.tensors.remove(&full).ok_or_else(|| Error::tensor(full, "tensor is missing"))?;
            bn.tensors.push((name.to_owned(), tensor));
        }
        let mut base = module("yolox.BaseConv", Map::new());
        base.children.push(("conv".to_owned(), conv));
        base.children.push(("bn".to_owned(), bn));
        base.children.push(("act".to_owned(), module("SiLU", Map::new())));
        self.emitter.emit(path, base)
    }

    fn plain_conv(&mut self, path: &str) -> Result<(Module, usize)> {
        let conv = self.conv2d(path, Stride::One)?;
        let n_out = conv.tensor("weight").map_or(0, |weight| weight.shape[0]);
        Ok((self.emitter.emit(path, conv)?, n_out))
    }

    /// The attributes of a convolution from its kernel: depthwise if the state dict calls it so, padded to keep the
    /// size.
    fn conv2d(&mut self, path: &str, stride: Stride) -> Result<TreeModule> {
        let full = format!("{path}.weight");
        let weight = self.tensors.remove(&full).ok_or_else(|| Error::tensor(&*full, "tensor is missing"))?;
        let &[n_out, n_in, kh, kw] = weight.shape.as_slice() else {
            return Err(Error::tensor(
                full,
                format!("shape is {:?}, expected four dimensions", weight.shape),
            ));
        };
        if kh != kw || kh % 2 == 0 {
            return Err(Error::tensor(full, format!("kernel of {kh}x{kw}, expected an odd square")));
        }
        let groups = if path.ends_with(".dconv.conv") { n_out } else { 1 };
        let n_in = n_in.checked_mul(groups).ok_or_else(|| Error::tensor(&*full, "shape is absurd"))?;
        let (stride, padding) = (stride as usize, (kh - 1) / 2);
        let attrs = json!({
            "in_channels": n_in, "out_channels": n_out, "kernel_size": [kh, kw], "stride": [stride, stride],
            "padding": [padding, padding], "dilation": [1, 1], "groups": groups,
        });
        let Value::Object(attrs) = attrs else { unreachable!("a JSON object") };
        let mut conv = module("Conv2d", attrs);
        conv.tensors.push(("weight".to_owned(), weight));
        if let Some(bias) = self.tensors.remove(&format!("{path}.bias")) {
            conv.tensors.push(("bias".to_owned(), bias));
        }
        Ok(conv)
    }
}

fn module(class: &str, attrs: Map<String, Value>) -> TreeModule {
    TreeModule { class: class.to_owned(), attrs, tensors: Vec::new(), children: Vec::new(), state: Id::NONE }
}

fn upsample() -> Module {
    Module::new("Upsample", [("scale_factor", 2.0.into()), ("mode", "nearest".into())])
}

fn concat() -> Module {
    Module::new("Concat", [("d", 1.into())])
}

/// Output channels of a convolution of either kind.
fn n_out(module: &Module) -> Option<usize> {
    let module = module.child("pconv").unwrap_or(module);
    Some(module.child("conv")?.attrs.get("out_channels")?.as_u64()? as usize)
}

/// The classes of COCO, in the order in which YOLOX was trained on them.
const COCO: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];
