//! Blocks and heads of all families whose parts do not fit together.

use serde_json::{Value, json};

use super::{File, check};

/// Spoils the document of the golden `name`.
#[track_caller]
fn check_golden(name: &str, expected: &[&str], edit: impl FnOnce(&mut Value)) {
    let file = File::open(name);
    let mut document = file.document();
    edit(&mut document);
    check(&file.with_document(document.to_string()).bytes(), expected);
}

/// The child at the end of a path of names.
fn child<'a>(module: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(module, |module, name| {
        let children = module["children"].as_array_mut().expect("children");
        &mut children.iter_mut().find(|child| child[0] == *name).expect("a child of this name")[1]
    })
}

fn layer(document: &mut Value, index: usize) -> &mut Value {
    &mut document["layers"][index]["module"]
}

fn head(document: &mut Value) -> &mut Value {
    let layers = document["layers"].as_array_mut().expect("layers");
    &mut layers.last_mut().expect("a head")["module"]
}

fn remove(module: &mut Value, name: &str) {
    module["children"].as_array_mut().expect("children").retain(|child| child[0] != name);
}

#[test]
fn transposed_convolutions() {
    for (name, value) in [
        ("stride", json!([1, 1])),
        ("padding", json!([1, 1])),
        ("output_padding", json!(1)),
        ("groups", json!(2)),
    ] {
        check_golden("pose8", &["model.10", "windows overlap"], |document| {
            layer(document, 10)["attrs"][name] = value;
        });
    }
    check_golden("pose8", &["model.10", "16"], |document| {
        layer(document, 10)["attrs"]["in_channels"] = json!(16);
    });
    check_golden("segment9", &["model.18.proto.upsample", "\"Conv9\""], |document| {
        child(head(document), &["proto", "upsample"])["class"] = json!("Conv9");
    });
}

#[test]
fn padding() {
    for value in [json!([1, 1]), json!([0, 1, 0, 1000]), json!([-1, 0, 0, 0]), json!("all")] {
        check_golden("pose8", &["model.8"], |document| layer(document, 8)["attrs"]["padding"] = value);
    }
}

#[test]
fn features_of_another_backbone() {
    check_golden("segment9", &["model.10", "sum of [16, 25]"], |document| {
        layer(document, 10)["attrs"]["c2s"] = json!([16, 25]);
    });
    for idx in [json!([0]), json!([0, 1]), json!([2, 0]), json!([0, 0, 0])] {
        check_golden("segment9", &["model.12"], |document| layer(document, 12)["attrs"]["idx"] = idx);
    }
    // What several maps come from can be taken by a fusing layer only.
    check_golden("segment9", &["model.13", "one input"], |document| {
        document["layers"][13]["from"] = json!([10]);
    });
    check_golden("segment9", &["model.12", "last input"], |document| {
        document["layers"][12]["from"] = json!([11, 5, 10]);
    });
}

#[test]
fn area_attention() {
    let set = |name: &'static str, value: Value| {
        move |document: &mut Value| {
            child(layer(document, 4), &["m", "0", "0", "attn"])["attrs"][name] = value;
        }
    };
    check_golden("obb12", &["model.4.m.0.0.attn", "areas"], set("area", json!(0)));
    // 4 x 6 cells.
    check_golden("obb12", &["model.4.m.0.0.attn", "5 equal areas"], set("area", json!(5)));
    check_golden("obb12", &["model.4.m.0.0.attn", "3 heads"], set("num_heads", json!(3)));
    check_golden("obb12", &["model.4.m.0.0.attn", "head_dim"], set("head_dim", json!(null)));
    // Without its factor the block would be another one.
    let mut file = File::open("obb12");
    file.tensors.remove("model.4.gamma");
    check(&file.bytes(), &["model.4.gamma", "missing"]);
    check_golden("obb12", &["model.4.gamma"], |document| layer(document, 4)["attrs"]["gamma"] = json!(null));
    check_golden("obb12", &["model.6.gamma", "missing"], |document| layer(document, 6)["attrs"] = json!({}));
}

#[test]
fn what_comes_with_boxes() {
    for (name, task, head_class) in
        [("segment9", "detect", "Detect"), ("obb12", "detect", "Detect"), ("pose8", "obb", "OBB")]
    {
        check_golden(name, &[], |document| {
            document["task"] = json!(task);
            head(document)["class"] = json!(head_class);
        });
    }
    check_golden("pose8", &["kpt_shape"], |document| document["kpt_shape"] = json!(null));
    for shape in [json!([3, 4]), json!([0, 3]), json!([3]), json!([1 << 20, 3]), json!([4, 3]), json!("3x3")]
    {
        check_golden("pose8", &[], |document| document["kpt_shape"] = shape);
    }
    for (name, list) in
        [("segment9", "cv4"), ("obb12", "cv4"), ("pose26", "cv4_kpts"), ("obb26", "one2one_cv4")]
    {
        check_golden(name, &["model."], |document| remove(head(document), list));
    }
    check_golden("segment9", &["model.18", "proto"], |document| remove(head(document), "proto"));
    check_golden("segment9", &["model.18.proto", "\"Proto9\""], |document| {
        child(head(document), &["proto"])["class"] = json!("Proto9");
    });
    check_golden("segment26", &["model.8.proto.feat_refine"], |document| {
        remove(child(head(document), &["proto", "feat_refine"]), "1");
    });
}

/// What only one of two branches has is looked at when the file is loaded, too.
#[test]
fn branches_for_one_box_per_object() {
    check_golden("detect26", &["model.23", "level 1 of stride"], |document| {
        child(head(document), &["one2one_cv2", "1", "2"])["attrs"]["stride"] = json!([2, 2]);
    });
}

#[test]
fn classifiers() {
    check_golden("classify", &["model.5.linear", "40 features"], |document| {
        child(head(document), &["linear"])["attrs"]["in_features"] = json!(39);
    });
    check_golden("classify", &["model.5.linear"], |document| {
        child(head(document), &["linear"])["attrs"]["out_features"] = json!(8);
    });
    check_golden("classify", &["model.5.pool", "mean"], |document| {
        child(head(document), &["pool"])["attrs"]["output_size"] = json!(7);
    });
    check_golden("classify", &["model.5", "7 channels"], |document| document["names"] = json!(["a", "b"]));
}

#[test]
fn maps() {
    check_golden("semantic26", &["model.11", "5 channels"], |document| document["names"] = json!(["a", "b"]));
    check_golden("semantic26", &["model.11"], |document| document["layers"][11]["from"] = json!([]));
    check_golden("depth26", &["model.5", "\"refine\""], |document| remove(head(document), "refine"));
    check_golden("depth26", &["model.5.proj.2.conv", "16 input channels"], |document| {
        document["layers"][5]["from"] = json!([4, 3, 2]);
    });
    check_golden("depth26", &["model.5"], |document| document["layers"][5]["from"] = json!([]));
    for name in ["cal_a", "cal_b"] {
        let mut file = File::open("depth26");
        file.tensors.remove(&format!("model.5.{name}"));
        check(&file.bytes(), &[name, "missing"]);
    }
}
