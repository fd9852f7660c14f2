//! Tests of the conversion on small made-up checkpoints.

mod transforms;
mod yolox;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::{ConvertOptions, Converted, Dtype, convert};
use crate::checkpoint::Checkpoint;
use crate::document::Module;
use crate::error::{ErrorKind, Result};
use crate::testing::{Builder, Py, contiguous, dict, doubled, global, ints, with_attrs, with_tensor};

fn run(bytes: Vec<u8>, dtype: Dtype) -> Result<Converted> {
    convert(&Checkpoint::from_bytes("folder/m.pt", bytes)?, &ConvertOptions { dtype })
}

/// Shape and values of a tensor of the written file.
fn tensor(converted: &Converted, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = converted.to_bytes().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let values = match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::F16 => view
            .data()
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        other => panic!("{name}: {other:?}"),
    };
    (view.shape().to_vec(), values)
}

fn names(converted: &Converted) -> Vec<&str> {
    converted.tensors().map(|(name, _, _)| name).collect()
}

#[track_caller]
fn check_error(bytes: Vec<u8>, kind: ErrorKind, message: &str) {
    let error = run(bytes, Dtype::Keep).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(error.kind(), kind);
}

const ROW: [f32; 4] = [2.0, 0.5, 1.0, 3.999]; // gamma, beta, mean, variance; with eps the deviation is 2

/// A model of one layer, `Conv` of one channel with the kernel 3, changed by `change`.
fn one_conv(change: impl FnOnce(&mut Builder) -> Py) -> Vec<u8> {
    let mut builder = Builder::default();
    let layer = change(&mut builder);
    let model = builder.model(vec![(layer, Py::Int(-1))]);
    builder.checkpoint(model)
}

#[test]
fn batch_norm_becomes_scale_and_bias() {
    let converted = run(one_conv(|b| b.conv([1, 1, 1, 1], 1, &[3.0], &[ROW], "SiLU")), Dtype::Keep).unwrap();
    assert_eq!(names(&converted), ["model.0.conv.weight", "model.0.conv.scale", "model.0.conv.bias"]);
    assert_eq!(tensor(&converted, "model.0.conv.weight"), (vec![1, 1, 1, 1], vec![3.0]));
    let (_, scale) = tensor(&converted, "model.0.conv.scale");
    let (_, bias) = tensor(&converted, "model.0.conv.bias");
    assert!((scale[0] - 1.0).abs() < 1e-6 && (bias[0] + 0.5).abs() < 1e-6, "{scale:?} {bias:?}");
    let module = &converted.document().layers[0].module;
    assert_eq!(module.children.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["conv", "act"]);
    assert_eq!(module.child("act"), Some(&Module::new("SiLU", [])));
}

#[test]
fn a_bias_before_the_batch_norm_is_folded_too() {
    let layer = |b: &mut Builder| {
        let conv = b.conv2d([1, 1, 1, 1], 1, &[3.0], Some(&[5.0]));
        let bn = b.batch_norm(&[ROW]);
        let children = vec![("conv", conv), ("bn", bn), ("act", Builder::act("ReLU"))];
        Builder::module(("ultralytics.nn.modules", "Conv"), vec![], vec![], children)
    };
    let (_, bias) = tensor(&run(one_conv(layer), Dtype::Keep).unwrap(), "model.0.conv.bias");
    assert!((bias[0] - 4.5).abs() < 1e-6, "{bias:?}");
}

#[test]
fn the_document_says_what_the_engine_needs() {
    let converted =
        run(one_conv(|b| b.conv([1, 3, 1, 1], 1, &[3.0; 3], &[ROW], "SiLU")), Dtype::Keep).unwrap();
    let document = converted.document();
    assert_eq!(
        (document.task.as_str(), document.imgsz, document.stride.as_slice()),
        ("detect", [320, 320], &[8, 16][..])
    );
    assert_eq!(document.names, ["cat", "dog"]);
    assert_eq!((document.input.channels, document.input.color), (3, "rgb"));
    assert_eq!(document.provenance.file, "m.pt");
    assert_eq!(document.provenance.sha256.len(), 64);
    assert_eq!(document.provenance.version.as_deref(), Some("8.3.0"));
    assert_eq!(document.provenance.license, None);
    assert_eq!(document.layers[0].from, [-1]);
    assert_eq!((document.layers[1].from.as_slice(), document.layers[1].path.as_str()), (&[0][..], "model.1"));
    let conv = document.layers[0].module.child("conv").unwrap();
    assert_eq!(conv.attrs["kernel_size"], serde_json::json!([1, 1]));
    let json = serde_json::to_value(&document.layers[0].module).unwrap();
    assert_eq!(json["children"][0][0], "conv");
    assert_eq!(
        json["children"][1],
        serde_json::json!(["act", {"class": "SiLU", "attrs": {}, "children": []}])
    );
    assert_eq!(converted.summary().n_layers, 2);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let convert = || run(one_conv(|b| b.conv([1, 1, 1, 1], 1, &[3.0], &[ROW], "SiLU")), Dtype::Keep).unwrap();
    assert_eq!(convert().to_bytes().unwrap(), convert().to_bytes().unwrap());
}

#[test]
fn the_averaged_model_is_preferred() {
    let mut builder = Builder::default();
    let mut model = |value| {
        let layer = builder.conv2d([1, 1, 1, 1], 1, &[value], None);
        builder.model(vec![(layer, Py::Int(-1))])
    };
    let (first, second) = (model(1.0), model(2.0));
    for (key, ema, want) in [("ema", second.clone(), 2.0), ("ema", Py::None, 1.0)] {
        let bytes = builder.archive(&dict([("model", first.clone()), (key, ema)]));
        assert_eq!(tensor(&run(bytes, Dtype::Keep).unwrap(), "model.0.weight").1, [want]);
    }
    let bytes = builder.archive(&dict([("model", Py::None), ("ema", second)]));
    assert_eq!(tensor(&run(bytes, Dtype::Keep).unwrap(), "model.0.weight").1, [2.0]);
    let bytes = builder.archive(&first);
    assert_eq!(tensor(&run(bytes, Dtype::Keep).unwrap(), "model.0.weight").1, [1.0]);
}

#[test]
fn kernels_keep_or_change_their_type() {
    let half = |values: &'static [f32]| {
        one_conv(move |b| {
            let conv = b.conv2d([values.len(), 1, 1, 1], 1, values, None);
            let kernel = b.half(&[values.len(), 1, 1, 1], values);
            with_tensor(conv, "weight", kernel)
        })
    };
    let check = |bytes: Vec<u8>, dtype, want: &str| {
        let converted = run(bytes, dtype).unwrap();
        assert_eq!(converted.tensors().next().unwrap().1, want);
        assert_eq!(tensor(&converted, "model.0.weight").1, [1.5, -2.0]);
    };
    check(half(&[1.5, -2.0]), Dtype::Keep, "F16");
    check(half(&[1.5, -2.0]), Dtype::F16, "F16");
    check(half(&[1.5, -2.0]), Dtype::F32, "F32");
    let single =
        |values: &'static [f32]| one_conv(move |b| b.conv2d([values.len(), 1, 1, 1], 1, values, None));
    check(single(&[1.5, -2.0]), Dtype::Keep, "F32");
    check(single(&[1.5, -2.0]), Dtype::F16, "F16");
    let error = run(single(&[1.0, 70_000.0]), Dtype::F16).unwrap_err();
    assert_eq!(error.to_string(), "folder/m.pt: model.0.weight: element 1 is 70000, which does not fit F16");
}

#[test]
fn views_are_gathered_and_storages_shared() {
    // Two kernels in one storage, the second one stored with its axes swapped.
    let mut builder = Builder::default();
    let values: Vec<u8> = (0..8u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
    let storage = builder.storage("FloatStorage", 8, values);
    let mut layer = |offset, strides: &[usize]| {
        let conv = builder.conv2d([2, 2, 1, 1], 1, &[0.0; 4], None);
        with_tensor(conv, "weight", Builder::view(storage.clone(), offset, &[2, 2, 1, 1], strides))
    };
    let (first, second) = (layer(1, &[2, 1, 1, 1]), layer(4, &[1, 2, 1, 1]));
    let model = builder.model(vec![(first, Py::Int(-1)), (second, Py::Int(-1))]);
    let converted = run(builder.checkpoint(model), Dtype::Keep).unwrap();
    assert_eq!(tensor(&converted, "model.0.weight").1, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(tensor(&converted, "model.1.weight").1, [4.0, 6.0, 5.0, 7.0]);
}

#[test]
fn absurd_tensors_are_refused_by_name() {
    let with_view = |shape: Vec<usize>, strides: Vec<usize>, offset| {
        one_conv(move |b| {
            let conv = b.conv2d([1, 1, 1, 1], 1, &[1.0], None);
            let storage = b.storage("FloatStorage", 2, vec![0; 8]);
            with_tensor(conv, "weight", Builder::view(storage, offset, &shape, &strides))
        })
    };
    for (shape, strides, offset) in [
        (vec![1 << 30, 1 << 30, 1, 1], vec![1; 4], 0),
        (vec![1 << 40, 1, 1, 1], vec![0; 4], 0), // repeats one element
        (vec![1, 1, 1, 1], vec![1; 4], 2),
        (vec![2, 1, 1, 1], vec![2, 1, 1, 1], 0),
        (vec![2, 1, 1, 1], vec![1 << 62, 1, 1, 1], 1 << 62),
        (vec![0, 1 << 62, 1 << 62, 1], vec![1; 4], 0),
    ] {
        let error = run(with_view(shape.clone(), strides, offset), Dtype::Keep).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tensor);
        assert!(error.to_string().starts_with("folder/m.pt: model.0.weight: "), "{shape:?}: {error}");
    }
    let bad_size = one_conv(|b| {
        let conv = b.conv2d([1, 1, 1, 1], 1, &[1.0], None);
        let storage = b.storage("FloatStorage", 1 << 40, vec![0; 8]);
        with_tensor(conv, "weight", Builder::view(storage, 0, &[1, 1, 1, 1], &[1; 4]))
    });
    let error = run(bad_size, Dtype::Keep).unwrap_err().to_string();
    assert!(
        error.contains("model.0.weight: x/data/") && error.contains("declares 1099511627776 elements"),
        "{error}"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    check_error(
        one_conv(|b| b.conv2d([1, 1, 1, 1], 1, &[f32::NAN], None)),
        ErrorKind::Tensor,
        "folder/m.pt: model.0.weight: element 0 is NaN",
    );
    check_error(
        one_conv(|b| b.conv([1, 1, 1, 1], 1, &[1.0], &[[1.0, f32::INFINITY, 0.0, 1.0]], "SiLU")),
        ErrorKind::Tensor,
        "folder/m.pt: model.0.bn.bias: element 0 is inf",
    );
    check_error(
        one_conv(|b| b.conv([1, 1, 1, 1], 1, &[1.0], &[[1.0, 0.0, 0.0, -1.0]], "SiLU")),
        ErrorKind::Tensor,
        "folder/m.pt: model.0.bn.running_var: batch norm has a variance of -1 in channel 0",
    );
    check_error(
        one_conv(|b| b.conv([2, 1, 1, 1], 1, &[1.0; 2], &[ROW], "SiLU")),
        ErrorKind::Tensor,
        "folder/m.pt: model.0.bn.weight: shape is [1], expected [2]",
    );
}

#[test]
fn kernels_have_to_fit_their_convolution() {
    let wrong = one_conv(|b| {
        let conv = b.conv2d([1, 2, 1, 1], 1, &[1.0; 2], None);
        let kernel = b.tensor(&[2, 1, 1, 1], &[1.0; 2]);
        with_tensor(conv, "weight", kernel)
    });
    let message =
        "folder/m.pt: model.0.weight: shape is [2, 1, 1, 1], expected [1, 2 / 1] and the kernel size";
    check_error(wrong, ErrorKind::Tensor, message);
}

#[test]
fn a_batch_norm_alone_is_unsupported() {
    let message = "folder/m.pt: model.0: batch norm does not follow a convolution it can be folded into";
    check_error(one_conv(|b| b.batch_norm(&[ROW])), ErrorKind::Unsupported, message);
}

#[test]
fn places_are_made_absolute() {
    let mut builder = Builder::default();
    let concat = || {
        Builder::module(("ultralytics.nn.modules.conv", "Concat"), vec![("d", Py::Int(1))], vec![], vec![])
    };
    let conv = builder.conv2d([1, 1, 1, 1], 1, &[1.0], None);
    let mut from = |layers: Vec<Py>| {
        let layers = layers.into_iter().map(|f| (concat(), f));
        let model = builder.model([(conv.clone(), Py::Int(-1))].into_iter().chain(layers).collect());
        run(builder.checkpoint(model), Dtype::Keep).map(|converted| {
            converted.document().layers.iter().map(|layer| layer.from.clone()).collect::<Vec<_>>()
        })
    };
    let list = |items: &[i64]| Py::List(items.iter().map(|&item| Py::Int(item)).collect());
    let got = from(vec![list(&[-1, -2]), list(&[-1, 0])]).unwrap();
    assert_eq!(got, [vec![-1], vec![0, -1], vec![1, 0], vec![2]]);
    for (bad, place) in
        [(list(&[1]), "layer 1 takes"), (list(&[-3]), "of layer -2"), (list(&[]), "`f`"), (Py::None, "`f`")]
    {
        let error = from(vec![bad]).unwrap_err();
        assert!(error.to_string().contains("model.1: ") && error.to_string().contains(place), "{error}");
    }
}

#[test]
fn class_names_have_to_be_complete() {
    let with_names = |names: Py| {
        let mut builder = Builder::default();
        let conv = builder.conv2d([1, 1, 1, 1], 1, &[1.0], None);
        let model = builder.model(vec![(conv, Py::Int(-1))]);
        let model = with_attrs(model, vec![("names", names)]);
        run(builder.checkpoint(model), Dtype::Keep).map(|converted| converted.document().names.clone())
    };
    let item = |key: i64, name: &str| (Py::Int(key), Py::from(name));
    assert_eq!(with_names(Py::List(vec!["a".into(), "b".into()])).unwrap(), ["a", "b"]);
    assert_eq!(with_names(Py::Dict(vec![item(1, "b"), item(0, "a")])).unwrap(), ["a", "b"]);
    for (names, part) in [
        (Py::Dict(vec![item(0, "a"), item(2, "c")]), "index 2"),
        (Py::Dict(vec![item(0, "a"), item(0, "c")]), "index 0 twice"),
        (Py::Dict(vec![(Py::from("a"), Py::from("b"))]), "not an integer"),
        (Py::List(vec![Py::None]), "strings"),
        (Py::None, "neither"),
    ] {
        let error = with_names(names).unwrap_err();
        assert!(
            error.to_string().starts_with("folder/m.pt: names: ") && error.to_string().contains(part),
            "{error}"
        );
    }
}

#[test]
fn attributes_are_kept_and_caches_dropped() {
    let attrs = vec![
        ("c", Py::Int(4)),
        ("scale", Py::Float(0.5)),
        ("add", Py::Bool(true)),
        ("size", Py::None),
        ("c2s", Py::List(vec![Py::Int(1), Py::Int(2)])),
        ("kernel", Py::Call(Box::new(global("torch", "Size")), vec![ints(&[3, 3])])),
        ("nested", Py::List(vec![Py::List(vec![])])),
        ("np", Py::Int(99)),
        ("_hidden", Py::Int(1)),
        ("anchors", Py::Int(1)),
    ];
    let bytes = one_conv(|b| {
        let conv = b.conv2d([1, 1, 1, 1], 1, &[1.0], None);
        let children = vec![("cv1", conv), ("gone", Py::None)];
        Builder::module(("ultralytics.nn.modules.block", "C2f"), attrs, vec![], children)
    });
    let converted = run(bytes, Dtype::Keep).unwrap();
    let module = &converted.document().layers[0].module;
    let want =
        serde_json::json!({"c": 4, "scale": 0.5, "add": true, "size": null, "c2s": [1, 2], "kernel": [3, 3]});
    assert_eq!(serde_json::Value::Object(module.attrs.clone()), want);
    assert_eq!(module.children.len(), 1);
    let infinite =
        one_conv(|b| with_attrs(b.conv2d([1, 1, 1, 1], 1, &[1.0], None), vec![("x", Py::Float(f64::NAN))]));
    check_error(infinite, ErrorKind::Corrupt, "folder/m.pt: model.0.x: attribute is NaN");
}

#[test]
fn parts_for_training_are_dropped() {
    let bytes = one_conv(|b| {
        let conv = b.conv2d([1, 1, 1, 1], 1, &[1.0], None);
        let inner = b.conv2d([1, 1, 1, 1], 1, &[1.0], None);
        let flow = Builder::module(
            ("ultralytics.nn.modules.block", "RealNVP"),
            vec![],
            vec![],
            vec![("s", inner.clone())],
        );
        let dfl_attrs = vec![("c1", Py::Int(16))];
        let dfl = Builder::module(
            ("ultralytics.nn.modules.block", "DFL"),
            dfl_attrs,
            vec![],
            vec![("conv", inner.clone())],
        );
        let children = vec![("cv2", conv), ("flow_model", flow), ("dfl", dfl), ("one2one_cv4_sigma", inner)];
        Builder::module(("ultralytics.nn.modules.head", "Pose26"), vec![], vec![], children)
    });
    let converted = run(bytes, Dtype::Keep).unwrap();
    assert_eq!(names(&converted), ["model.0.cv2.weight"]);
    let children = &converted.document().layers[0].module.children;
    assert_eq!(children.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cv2", "dfl"]);
    assert_eq!(children[1].1, Module::new("DFL", [("c1", 16.into())]));
}

/// `y[o] = sum of w[o][i] * x[i + offset]` with zero padding: a convolution of `[n, h, w]` written as it is defined.
fn convolve(x: &[f64], [n, h, w]: [usize; 3], kernel: &[f32], [n_out, n_in, k, _]: [usize; 4]) -> Vec<f64> {
    let (per_out, per_in) = (n_out / (n / n_in), n_in);
    let mut out = vec![0.0; n_out * h * w];
    for o in 0..n_out {
        for (y, x_at, i, ky, kx) in (0..h * w * n_in * k * k).map(|idx| {
            let (kx, rest) = (idx % k, idx / k);
            let (ky, rest) = (rest % k, rest / k);
            let (i, rest) = (rest % n_in, rest / n_in);
            (rest / w, rest % w, i, ky, kx)
        }) {
            let (row, column) = ((y + ky).wrapping_sub(k / 2), (x_at + kx).wrapping_sub(k / 2));
            if row < h && column < w {
                let channel = o / per_out * per_in + i;
                let value = f64::from(kernel[((o * n_in + i) * k + ky) * k + kx]);
                out[(o * h + y) * w + x_at] += value * x[(channel * h + row) * w + column];
            }
        }
    }
    out
}

fn normalise(x: &[f64], rows: &[[f32; 4]], per_channel: usize) -> Vec<f64> {
    x.chunks(per_channel)
        .zip(rows)
        .flat_map(|(plane, row)| {
            let [gamma, beta, mean, var] = row.map(f64::from);
            plane.iter().map(move |x| (x - mean) / (var + 1e-3).sqrt() * gamma + beta)
        })
        .collect()
}

proptest! {
    /// The one convolution that is written computes what the branches computed together.
    #[test]
    fn folded_branches_equal_their_sum(
        kernels in proptest::collection::vec(-1.0f32..1.0, 2 * 2 * 9 + 2 * 2 + 2 * 2),
        rows in proptest::collection::vec([0.5f32..2.0, -1.0f32..1.0, -1.0f32..1.0, 0.1f32..2.0], 6),
        x in proptest::collection::vec(-1.0f64..1.0, 2 * 4 * 5),
        with_identity: bool,
        depthwise: bool,
    ) {
        let groups = if depthwise { 2 } else { 1 };
        let n_in = 2 / groups;
        let (wide, narrow) = ([2, n_in, 3, 3], [2, n_in, 1, 1]);
        let (wide_kernel, rest) = kernels.split_at(2 * n_in * 9);
        let narrow_kernel = &rest[..2 * n_in];
        let bytes = one_conv(|b| {
            let mut children = vec![
                ("conv1", b.conv(wide, groups, wide_kernel, &rows[..2], "Identity")),
                ("conv2", b.conv(narrow, groups, narrow_kernel, &rows[2..4], "Identity")),
                ("act", Builder::act("SiLU")),
            ];
            if with_identity {
                children.push(("bn", b.batch_norm(&rows[4..])));
            }
            Builder::module(("ultralytics.nn.modules.conv", "RepConv"), vec![], vec![], children)
        });
        let converted = run(bytes, Dtype::Keep).unwrap();
        prop_assert_eq!(names(&converted), ["model.0.conv.weight", "model.0.conv.bias"]);
        let (shape, kernel) = tensor(&converted, "model.0.conv.weight");
        let (_, bias) = tensor(&converted, "model.0.conv.bias");
        prop_assert_eq!(shape, wide.to_vec());

        let size = [2, 4, 5];
        let mut want = normalise(&convolve(&x, size, wide_kernel, wide), &rows[..2], 20);
        let others = [
            Some(normalise(&convolve(&x, size, narrow_kernel, narrow), &rows[2..4], 20)),
            with_identity.then(|| normalise(&x, &rows[4..], 20)),
        ];
        for other in others.into_iter().flatten() {
            want.iter_mut().zip(other).for_each(|(sum, addend)| *sum += addend);
        }
        let got = convolve(&x, size, &kernel, wide);
        for (idx, (got, want)) in got.iter().zip(&want).enumerate() {
            let got = got + f64::from(bias[idx / 20]);
            prop_assert!((got - want).abs() < 1e-4, "{idx}: {got} and {want}");
        }
    }

    /// A view reads the elements that its strides name.
    #[test]
    fn views_read_what_their_strides_name(axes in Just([0usize, 1, 2, 3]).prop_shuffle(), sizes in [1usize..4, 1usize..4, 1usize..3, 1usize..3]) {
        let n: usize = sizes.iter().product();
        let stored: Vec<f32> = (0..n).map(|value| value as f32).collect();
        // The tensor that is stored, seen with its axes in another order.
        let stored_strides = contiguous(&sizes);
        let shape = axes.map(|axis| sizes[axis]);
        let strides = axes.map(|axis| stored_strides[axis]);
        let bytes = one_conv(|b| {
            let conv = b.conv2d(shape, 1, &vec![0.0; n], None);
            let raw = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
            let storage = b.storage("FloatStorage", n, raw);
            with_tensor(conv, "weight", Builder::view(storage, 0, &shape, &strides))
        });
        let (got_shape, got) = tensor(&run(bytes, Dtype::Keep).unwrap(), "model.0.weight");
        prop_assert_eq!(got_shape, shape.to_vec());
        let own_strides = contiguous(&shape);
        for (idx, value) in got.iter().enumerate() {
            let source: usize = (0..4).map(|axis| idx / own_strides[axis] % shape[axis] * strides[axis]).sum();
            prop_assert_eq!(*value, stored[source]);
        }
    }

    /// Whatever byte of a checkpoint changes, the answer is a model or an error.
    #[test]
    fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), with in 1..=255u8) {
        let mut bytes = one_conv(|b| b.conv([1, 1, 1, 1], 1, &[3.0], &[ROW], "SiLU"));
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        if let Ok(converted) = run(bytes, Dtype::Keep) {
            prop_assert!(converted.to_bytes().is_ok());
        }
    }
}

#[test]
fn a_pickle_that_changes_never_panics() {
    // The checksum would catch a change in the archive, so the pickle is changed before it is put in.
    let mut builder = Builder::default();
    let layer = builder.conv([1, 1, 1, 1], 1, &[3.0], &[ROW], "SiLU");
    let model = builder.model(vec![(layer, Py::Int(-1))]);
    let sound = crate::testing::pickle(&dict([("model", model)]));
    for at in 0..sound.len() {
        for with in [1, 0x80, 0xff] {
            let mut changed = sound.clone();
            changed[at] ^= with;
            if let Ok(converted) = run(builder.archive_of(&changed), Dtype::Keep) {
                assert!(converted.to_bytes().is_ok());
            }
        }
    }
}

#[test]
fn a_tree_out_of_all_proportion_is_stopped() {
    let error_at = |levels| {
        let code = [&b"\x80\x02}X\x05\0\0\0model"[..], &doubled(levels), b"s."].concat();
        run(crate::testing::checkpoint(&code), Dtype::Keep).unwrap_err()
    };
    assert_eq!(error_at(2).kind(), ErrorKind::Unsupported); // small enough to be looked at: no layers under `model`
    let error = error_at(30);
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("takes more memory than"), "{error}");
    assert!(error_at(80).to_string().contains("nest deeper"));
}
