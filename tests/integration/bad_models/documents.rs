//! Documents that are malformed, or that describe a network that can't be.

use ferroyolo::Tensor;
use serde_json::{Value, json};

use super::{File, MODEL, check, check_document, insert_layers, load};

/// Sets one attribute of the first convolution.
#[track_caller]
fn check_conv(name: &str, value: Value) {
    check_document(&["model.0.conv"], |document| *conv_attr(document, name) = value);
}

fn conv_attr<'a>(document: &'a mut Value, name: &str) -> &'a mut Value {
    &mut document["layers"][0]["module"]["children"][0][1]["attrs"][name]
}

#[test]
fn documents_that_are_not_json() {
    let whole = File::golden().document().to_string();
    for document in
        ["", "{", "null", "[]", "5", "\"\"", "{}", "\u{0}", &whole[..whole.len() - 1], &format!("{whole}}}")]
    {
        check(&File::golden().with_document(document).bytes(), &[MODEL]);
    }
}

#[test]
fn documents_without_a_field() {
    for field in ["task", "names", "stride", "imgsz", "input", "layers"] {
        check_document(&[MODEL, field], |document| {
            document.as_object_mut().expect("an object").remove(field);
        });
        check_document(&[MODEL], |document| document[field] = json!(-1.5));
    }
    for field in ["channels", "color", "divisor", "letterbox", "pad_value"] {
        check_document(&[MODEL, field], |document| {
            document["input"].as_object_mut().expect("an object").remove(field);
        });
    }
}

#[test]
fn other_tasks() {
    for task in ["segment", "classify", "", "detect "] {
        check_document(&["task", task], |document| document["task"] = json!(task));
    }
}

#[test]
fn numbers_of_classes() {
    check_document(&["names", "0 classes"], |document| document["names"] = json!([]));
    check_document(&["model.22", "5 channels of classes", "expected 3"], |document| {
        document["names"] = json!(["a", "b", "c"]);
    });
    check_document(&["names", "70000"], |document| document["names"] = json!(vec!["x"; 70_000]));
    check_document(&[MODEL], |document| document["names"] = json!({"0": "a"}));
}

#[test]
fn strides() {
    for stride in [json!([]), json!([0, 16, 32]), json!([8, 16, 5000])] {
        check_document(&["stride"], |document| document["stride"] = stride);
    }
    for stride in [json!([8, 16]), json!([8, 16, 32, 64])] {
        check_document(&["model.22", "strides"], |document| document["stride"] = stride);
    }
    // Levels that the network does not have: boxes would lie at wrong places.
    for stride in
        [json!([4, 8, 16]), json!([16, 32, 64]), json!([8, 16, 31]), json!([32, 16, 8]), json!([1, 1, 1])]
    {
        check_document(&["model.22", "stride"], |document| document["stride"] = stride);
    }
}

#[test]
fn input_sizes() {
    for imgsz in
        [json!([0, 64]), json!([64, 0]), json!([1_000_000_000, 1_000_000_000]), json!([u64::MAX, 64])]
    {
        check_document(&[MODEL], |document| document["imgsz"] = imgsz);
    }
    for imgsz in [json!([64]), json!([64, 64, 64]), json!(640), json!([-64, 64])] {
        check_document(&[MODEL], |document| document["imgsz"] = imgsz);
    }
    check_document(&["input"], |document| document["imgsz"] = json!([65_536, 65_536]));
    // No picture could be predicted at such a size.
    for imgsz in [[8193, 64], [64, 8193], [65_536, 64]] {
        let told = format!("imgsz: got {imgsz:?}");
        check_document(&[MODEL, &told, "8192"], |document| document["imgsz"] = json!(imgsz));
    }
}

#[test]
fn expectations_of_the_picture() {
    check_document(&["input.channels", "4"], |document| document["input"]["channels"] = json!(4));
    check_document(&["input.divisor"], |document| document["input"]["divisor"] = json!(0));
    check_document(&["input.divisor"], |document| document["input"]["divisor"] = json!(-1));
    check_document(&[MODEL], |document| document["input"]["divisor"] = json!(1e300));
    check_document(&["model.0.conv"], |document| document["input"]["divisor"] = json!(1e-38));
    check_document(&[MODEL, "cmyk"], |document| document["input"]["color"] = json!("cmyk"));
    check_document(&[MODEL, "left"], |document| document["input"]["letterbox"] = json!("left"));
    check_document(&[MODEL], |document| document["input"]["pad_value"] = json!(256));
}

#[test]
fn unknown_classes() {
    check_document(&["model.4", "\"C9f\""], |document| {
        document["layers"][4]["module"]["class"] = json!("C9f");
    });
    check_document(&["model.2.m.0", "\"Bottleneck9\""], |document| {
        document["layers"][2]["module"]["children"][2][1]["children"][0][1]["class"] = json!("Bottleneck9");
    });
    check_document(&["model.0.act", "\"Mish\""], |document| {
        document["layers"][0]["module"]["children"][1][1]["class"] = json!("Mish");
    });
    check_document(&["model.0.conv", "\"Linear\""], |document| {
        document["layers"][0]["module"]["children"][0][1]["class"] = json!("Linear");
    });
    check_document(&["model.22", "\"Segment\""], |document| {
        document["layers"][22]["module"]["class"] = json!("Segment");
    });
    check_document(&["model.3", "\"Detect\""], |document| {
        document["layers"][3]["module"]["class"] = json!("Detect");
    });
}

#[test]
fn missing_parts_of_modules() {
    for (layer, child) in [(0, "conv"), (2, "cv1"), (2, "m"), (9, "m"), (22, "cv2"), (22, "cv3")] {
        check_document(&[&format!("model.{layer}"), child], |document| {
            let children = document["layers"][layer]["module"]["children"].as_array_mut().expect("a list");
            children.retain(|named| named[0] != child);
        });
    }
    // The branches of the coarsest level.
    check_document(&["model.22.cv3", "\"2\""], |document| {
        document["layers"][22]["module"]["children"][1][1]["children"].as_array_mut().expect("a list").pop();
    });
    for attr in ["in_channels", "out_channels", "kernel_size", "stride", "padding", "groups"] {
        check_document(&["model.0.conv", attr], |document| {
            let attrs = &mut document["layers"][0]["module"]["children"][0][1]["attrs"];
            attrs.as_object_mut().expect("an object").remove(attr);
        });
    }
}

#[test]
fn absurd_convolutions() {
    for channels in
        [json!(0), json!(-1), json!(1.5), json!(1u64 << 40), json!("8"), json!(null), json!(65_536)]
    {
        check_conv("in_channels", channels.clone());
        check_conv("out_channels", channels);
    }
    for kernel in
        [json!([0, 0]), json!([3]), json!([3, 3, 3]), json!([99, 99]), json!([5, 3]), json!(1e9), json!([])]
    {
        check_conv("kernel_size", kernel);
    }
    for stride in [json!([0, 1]), json!(1000), json!([2, -2]), json!(true)] {
        check_conv("stride", stride);
    }
    for padding in [json!([3, 3]), json!([-1, 0]), json!(1u64 << 31), json!("same")] {
        check_conv("padding", padding);
    }
    for groups in [json!(0), json!(2), json!(3), json!(7), json!(1u64 << 30), json!(-1)] {
        check_conv("groups", groups);
    }
    check_conv("dilation", json!([2, 2]));
    check_conv("padding_mode", json!("reflect"));
}

#[test]
fn absurd_pools_and_scales() {
    let pool = |document: &mut Value, name: &str, value: Value| {
        document["layers"][9]["module"]["children"][2][1]["attrs"][name] = value;
    };
    for (name, value) in [
        ("kernel_size", json!(0)),
        ("kernel_size", json!(1_000_000)),
        ("kernel_size", json!([5, 3])),
        ("stride", json!(0)),
        ("stride", json!(2)),
        ("padding", json!(4)),
        ("padding", json!(-1)),
        ("ceil_mode", json!(true)),
        ("dilation", json!(2)),
    ] {
        check_document(&["model.9"], |document| pool(document, name, value));
    }
    for factor in [json!(0), json!(1.5), json!(1e6), json!(-2), json!([2, 3]), json!("2")] {
        check_document(&["model.10", "scale"], |document| {
            document["layers"][10]["module"]["attrs"]["scale_factor"] = factor;
        });
    }
    check_document(&["model.10", "bilinear"], |document| {
        document["layers"][10]["module"]["attrs"]["mode"] = json!("bilinear");
    });
    check_document(&["model.9"], |document| document["layers"][9]["module"]["attrs"]["n"] = json!(60));
}

#[test]
fn heads_that_do_not_fit() {
    for (reg_max, what) in [
        (json!(0), "reg_max"),
        (json!(300), "reg_max"),
        (json!(-16), "reg_max"),
        (json!("16"), "reg_max"),
        (json!(8), "64 channels of boxes, expected 32"),
        (json!(1), "64 channels of boxes, expected 4"),
    ] {
        check_document(&["model.22", what], |document| {
            document["layers"][22]["module"]["attrs"]["reg_max"] = reg_max;
        });
    }
    for max_det in [0, 1_000_000] {
        check_document(&["model.22", "max_det"], |document| {
            document["layers"][22]["module"]["attrs"]["max_det"] = json!(max_det);
        });
    }
    check_document(&["model.22"], |document| document["layers"][22]["from"] = json!([15, 18]));
    check_document(&["model.22"], |document| document["layers"][22]["from"] = json!([21, 18, 15]));
    check_document(&["model.22"], |document| document["layers"][22]["from"] = json!([]));
    // Boxes on a coarser map than classes.
    check_document(&["model.22"], |document| {
        let branch = &mut document["layers"][22]["module"]["children"][0][1]["children"][0][1];
        branch["children"][2][1]["attrs"]["stride"] = json!([2, 2]);
    });
    // Both on a coarser map than the stride says.
    check_document(&["model.22", "stride"], |document| {
        for branches in 0..2 {
            let branch = &mut document["layers"][22]["module"]["children"][branches][1]["children"][0][1];
            branch["children"][2][1]["attrs"]["stride"] = json!([2, 2]);
        }
    });
}

#[test]
fn wiring() {
    for from in [json!([-2]), json!([5]), json!([99]), json!([i64::MAX]), json!([i64::MIN])] {
        check_document(&["model.5"], |document| document["layers"][5]["from"] = from);
    }
    for from in [json!([]), json!([3, 4])] {
        check_document(&["model.5", "one input"], |document| document["layers"][5]["from"] = from);
    }
    check_document(&["model.11"], |document| document["layers"][11]["from"] = json!([]));
    // Maps of different sizes can't be joined.
    check_document(&["model.17"], |document| document["layers"][17]["from"] = json!([15, 12]));
    check_document(&["model.3"], |document| document["layers"][3]["from"] = json!([-1]));
    check_document(&["layer 4", "7"], |document| document["layers"][4]["index"] = json!(7));
    check_document(&["layers"], |document| document["layers"] = json!([]));
    check_document(&[], |document| document["layers"] = json!([document["layers"][0]]));
    check_document(&[], |document| {
        document["layers"].as_array_mut().expect("a list").truncate(10);
    });
}

#[test]
fn modules_nested_too_deep() {
    let nest = |depth: usize| {
        let mut document = File::golden().document();
        document["layers"][0]["module"] = json!("HERE");
        let open = r#"{"class":"Sequential","children":[["0","#.repeat(depth);
        let nested = format!("{open}{{\"class\":\"Identity\"}}{}", "]]}".repeat(depth));
        document.to_string().replace("\"HERE\"", &nested)
    };
    check(&File::golden().with_document(nest(40)).bytes(), &["model.1.conv"]);
    for depth in [60, 300, 200_000] {
        check(&File::golden().with_document(nest(depth)).bytes(), &[MODEL]);
    }
}

#[test]
fn sizes_that_overflow() {
    let upsample = json!({"class": "Upsample", "attrs": {"scale_factor": 64, "mode": "nearest"}});
    let upsamples = |n: i64| (0..n).map(|idx| (vec![idx], upsample.clone()));
    for n in [4, 12, 40] {
        check_document(&[], |document| insert_layers(document, upsamples(n)));
    }
    let concats = |n: i64| (0..n).map(|idx| (vec![idx; 64], json!({"class": "Concat"})));
    for n in [4, 12, 40] {
        check_document(&[], |document| insert_layers(document, concats(n)));
    }
}

#[test]
fn a_first_layer_that_takes_other_pictures() {
    for color in ["rgb", "bgr"] {
        check_document(&["model.0.conv", "1"], |document| {
            document["input"]["color"] = json!(color);
            document["layers"][0]["module"]["children"][0][1]["attrs"]["in_channels"] = json!(1);
        });
    }
}

#[test]
fn layers_without_end() {
    check_document(&["5000 operations"], |document| {
        let layers = document["layers"].as_array_mut().expect("layers");
        let head = layers.pop().expect("a head");
        let pool = json!({"class": "MaxPool2d", "attrs": {"kernel_size": 1, "stride": 1, "padding": 0}});
        for index in layers.len()..6000 {
            let layer = json!({"index": index, "from": [0], "path": format!("more.{index}"), "module": pool});
            layers.push(layer);
        }
        layers.push(
            json!({"index": 6000, "from": head["from"], "path": head["path"], "module": head["module"]}),
        );
    });
}

/// Not bad, but odd: a concatenation whose result nobody takes must not pull its inputs out of their place.
#[test]
fn a_layer_that_nobody_uses_changes_nothing() {
    let images =
        Tensor::new(vec![1, 3, 64, 64], (0..3 * 64 * 64).map(|idx| (idx % 97) as f32 / 97.0).collect());
    let images = images.expect("a picture");
    let run = |bytes: &[u8]| {
        let model = load(bytes).expect("a sound model");
        model.session().run(&images).expect("a run").output0().expect("the head").to_tensor()
    };
    let file = File::golden();
    let want = run(&file.bytes());
    let mut document = file.document();
    insert_layers(
        &mut document,
        [(vec![0], json!({"class": "Concat"})), (vec![0, 0], json!({"class": "Concat"}))],
    );
    // The layer after those takes the first one again.
    document["layers"][3]["from"] = json!([0]);
    assert_eq!(run(&file.with_document(document.to_string()).bytes()), want);
}
