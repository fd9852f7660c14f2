//! Tests of the conversion of YOLOX state dicts.

use super::{names, run};
use crate::convert::Dtype;
use crate::error::ErrorKind;
use crate::testing::{Builder, Py, dict};

/// Names and tensors of a YOLOX with one bottleneck a stage and five classes.
struct StateDict<'a> {
    builder: &'a mut Builder,
    depthwise: bool,
    tensors: Vec<(String, Py)>,
}

impl StateDict<'_> {
    fn conv(&mut self, name: &str, shape: [usize; 4]) {
        let n = shape.iter().product();
        self.tensors.push((format!("{name}.conv.weight"), self.builder.tensor(&shape, &vec![0.5; n])));
        for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            let tensor = self.builder.tensor(&[shape[0]], &vec![value; shape[0]]);
            self.tensors.push((format!("{name}.bn.{part}"), tensor));
        }
        let count = self.builder.storage("LongStorage", 1, vec![0; 8]);
        self.tensors.push((format!("{name}.bn.num_batches_tracked"), Builder::view(count, 0, &[], &[])));
    }

    /// A 3x3 convolution, depthwise where the network is.
    fn spatial(&mut self, name: &str, from: usize, to: usize) {
        if self.depthwise {
            self.conv(&format!("{name}.dconv"), [from, 1, 3, 3]);
            self.conv(&format!("{name}.pconv"), [to, from, 1, 1]);
        } else {
            self.conv(name, [to, from, 3, 3]);
        }
    }

    fn csp(&mut self, name: &str, from: usize, to: usize) {
        self.conv(&format!("{name}.conv1"), [to / 2, from, 1, 1]);
        self.conv(&format!("{name}.conv2"), [to / 2, from, 1, 1]);
        self.conv(&format!("{name}.conv3"), [to, to, 1, 1]);
        self.conv(&format!("{name}.m.0.conv1"), [to / 2, to / 2, 1, 1]);
        self.spatial(&format!("{name}.m.0.conv2"), to / 2, to / 2);
    }

    /// The whole network, with a stem of `c` channels.
    fn network(&mut self, c: usize) {
        self.conv("backbone.backbone.stem.conv", [c, 12, 3, 3]);
        for (stage, k) in [("dark2", 1), ("dark3", 2), ("dark4", 4), ("dark5", 8)] {
            let (base, n) = (format!("backbone.backbone.{stage}"), 2 * c * k);
            self.spatial(&format!("{base}.0"), c * k, n);
            if stage == "dark5" {
                self.conv(&format!("{base}.1.conv1"), [n / 2, n, 1, 1]);
                self.conv(&format!("{base}.1.conv2"), [n, 2 * n, 1, 1]);
                self.csp(&format!("{base}.2"), n, n);
            } else {
                self.csp(&format!("{base}.1"), n, n);
            }
        }
        self.conv("backbone.lateral_conv0", [8 * c, 16 * c, 1, 1]);
        self.csp("backbone.C3_p4", 16 * c, 8 * c);
        self.conv("backbone.reduce_conv1", [4 * c, 8 * c, 1, 1]);
        self.csp("backbone.C3_p3", 8 * c, 4 * c);
        self.spatial("backbone.bu_conv2", 4 * c, 4 * c);
        self.csp("backbone.C3_n3", 8 * c, 8 * c);
        self.spatial("backbone.bu_conv1", 8 * c, 8 * c);
        self.csp("backbone.C3_n4", 16 * c, 16 * c);
        for (level, k) in [4, 8, 16].into_iter().enumerate() {
            self.conv(&format!("head.stems.{level}"), [4 * c, k * c, 1, 1]);
            for branch in ["cls_convs", "reg_convs"] {
                for step in 0..2 {
                    self.spatial(&format!("head.{branch}.{level}.{step}"), 4 * c, 4 * c);
                }
            }
            for (branch, n) in [("cls_preds", 5), ("reg_preds", 4), ("obj_preds", 1)] {
                let weight = self.builder.tensor(&[n, 4 * c, 1, 1], &vec![0.5; n * 4 * c]);
                self.tensors.push((format!("head.{branch}.{level}.weight"), weight));
                self.tensors
                    .push((format!("head.{branch}.{level}.bias"), self.builder.tensor(&[n], &vec![0.5; n])));
            }
        }
    }
}

fn state_dict(builder: &mut Builder, width: usize, depthwise: bool) -> Vec<(String, Py)> {
    let mut state_dict = StateDict { builder, depthwise, tensors: Vec::new() };
    state_dict.network(width);
    state_dict.tensors
}

fn archive(builder: &Builder, state_dict: Vec<(String, Py)>) -> Vec<u8> {
    let state_dict = Py::Dict(state_dict.into_iter().map(|(name, tensor)| (Py::Str(name), tensor)).collect());
    builder.archive(&dict([("start_epoch", Py::Int(300)), ("model", state_dict)]))
}

#[test]
fn the_architecture_follows_from_names_and_shapes() {
    for (width, depthwise, imgsz) in [(16, true, 416), (24, false, 416), (32, false, 640)] {
        let mut builder = Builder::default();
        let state_dict = state_dict(&mut builder, width, depthwise);
        let n_kernels = state_dict.iter().filter(|(name, _)| name.ends_with(".conv.weight")).count();
        let converted = run(archive(&builder, state_dict), Dtype::Keep).unwrap();
        let document = converted.document();
        assert_eq!((document.imgsz, document.names.len(), document.layers.len()), ([imgsz; 2], 5, 25));
        assert_eq!(
            (document.input.color, document.input.divisor, document.input.letterbox),
            ("bgr", 1.0, "top-left")
        );
        // Kernel, scale and bias each, and kernel and bias of the nine predictions.
        assert_eq!(names(&converted).len(), 3 * n_kernels + 18);
        let down = &document.layers[7].module;
        let conv = down.child("dconv").unwrap_or(down).child("conv").unwrap();
        assert_eq!(down.class, if depthwise { "yolox.DWConv" } else { "yolox.BaseConv" });
        assert_eq!(conv.attrs["stride"], serde_json::json!([2, 2]));
        assert_eq!(conv.attrs["groups"], if depthwise { 8 * width } else { 1 });
        let shortcuts: Vec<bool> = [2, 9]
            .map(|idx| {
                let bottleneck = document.layers[idx].module.child("m").unwrap().child("0").unwrap();
                bottleneck.attrs["use_add"].as_bool().unwrap()
            })
            .to_vec();
        assert_eq!(shortcuts, [true, false]);
        assert_eq!(document.layers[24].from, [17, 20, 23]);
        assert_eq!(document.layers[24].module.attrs["num_classes"], 5);
    }
}

#[test]
fn a_tensor_too_few_or_too_many_is_named() {
    let mut builder = Builder::default();
    let mut tensors = state_dict(&mut builder, 16, true);
    let (name, tensor) = tensors.remove(40);
    let error = run(archive(&builder, tensors.clone()), Dtype::Keep).unwrap_err();
    assert_eq!(error.to_string(), format!("folder/m.pt: {name}: tensor is missing"));
    tensors.push((name, tensor.clone()));
    tensors.push(("head.extra.weight".into(), tensor));
    let error = run(archive(&builder, tensors), Dtype::Keep).unwrap_err();
    assert!(error.to_string().starts_with("folder/m.pt: head.extra.weight: tensor is not a part"), "{error}");
}

#[test]
fn other_state_dicts_are_unsupported() {
    let mut builder = Builder::default();
    let tensor = builder.tensor(&[1], &[1.0]);
    let error = run(archive(&builder, vec![("layer1.weight".into(), tensor)]), Dtype::Keep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("not one of YOLOX"), "{error}");
    let error = run(builder.archive(&dict([("a", Py::None)])), Dtype::Keep).unwrap_err();
    assert!(error.to_string().contains("no network found"), "{error}");
}
