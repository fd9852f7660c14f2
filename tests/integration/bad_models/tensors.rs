//! Tensors that are absent, left over, or not what their layer needs.

use std::collections::BTreeMap;

use serde_json::json;

use super::{File, Stored, check_document, check_tensors, insert_layers};

#[test]
fn missing_tensors() {
    let weights = |name: &String| name.ends_with(".weight");
    let names: Vec<String> = File::golden().tensors.into_keys().filter(weights).collect();
    assert!(names.len() > 50);
    for name in names {
        check_tensors(&[&name, "missing"], |tensors| {
            tensors.remove(&name);
        });
    }
    check_tensors(&["model.0.conv.weight", "missing"], BTreeMap::clear);
}

#[test]
fn surplus_tensors() {
    let extra = || Stored { dtype: "F32", shape: vec![1], data: vec![0; 4] };
    for name in ["model.0.bn.weight", "model.0.conv.scales", "model.22.dfl.conv.weight", "", "…"] {
        check_tensors(&[name, "belongs to no layer"], |tensors| {
            tensors.insert(name.into(), extra());
        });
    }
    check_tensors(&["a0", "99 other"], |tensors| {
        tensors.extend((0..100).map(|idx| (format!("a{idx}"), extra())));
    });
}

#[test]
fn tensors_used_twice() {
    check_document(&["model.0.conv.weight", "two layers"], |document| {
        let again = document["layers"][0]["module"].clone();
        insert_layers(document, [(vec![-1], again)]);
        document["layers"][1]["path"] = json!("model.0");
    });
}

#[test]
fn wrong_shapes() {
    for shape in [vec![], vec![216], vec![3, 8, 3, 3], vec![8, 3, 3, 3, 1], vec![8, 27]] {
        check_tensors(&["model.0.conv.weight", "expected [8, 3, 3, 3]"], |tensors| {
            let tensor = tensors.get_mut("model.0.conv.weight").expect("the stem");
            tensor.data.truncate(2 * shape.iter().product::<usize>());
            tensor.shape = shape;
        });
    }
    for name in ["model.0.conv.scale", "model.0.conv.bias"] {
        for shape in [vec![], vec![0], vec![7], vec![8, 1]] {
            check_tensors(&[name, "expected [8]"], |tensors| {
                let tensor = tensors.get_mut(name).expect("a tensor of the stem");
                tensor.data.truncate(4 * shape.iter().product::<usize>());
                tensor.shape = shape;
            });
        }
    }
}

#[test]
fn wrong_types() {
    for (dtype, size) in [("I8", 1), ("U8", 1), ("BOOL", 1), ("I16", 2), ("I32", 4), ("I64", 8), ("F64", 8)] {
        check_tensors(&["model.0.conv.weight", dtype], |tensors| {
            let tensor = tensors.get_mut("model.0.conv.weight").expect("the stem");
            *tensor = Stored { dtype, shape: tensor.shape.clone(), data: vec![1; 216 * size] };
        });
    }
}

#[test]
fn values_that_are_not_finite() {
    // 0x7e00 is NaN, 0x7c00 infinite, 0xfc00 infinite and negative.
    for (bits, shown) in [(0x7e00u16, "NaN"), (0x7c00, "inf"), (0xfc00, "-inf")] {
        check_tensors(&["model.0.conv.weight", shown, "element 100"], |tensors| {
            let tensor = tensors.get_mut("model.0.conv.weight").expect("the stem");
            tensor.data[200..202].copy_from_slice(&bits.to_le_bytes());
        });
    }
    for name in ["model.0.conv.scale", "model.0.conv.bias", "model.22.cv2.0.2.bias"] {
        for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            check_tensors(&[name, shown, "element 2"], |tensors| {
                tensors.get_mut(name).expect("a tensor").data[8..12].copy_from_slice(&value.to_le_bytes());
            });
        }
    }
    // Each finite, their product not.
    check_tensors(&["model.0.conv"], |tensors| {
        let scale = tensors.get_mut("model.0.conv.scale").expect("a scale");
        scale.data[8..12].copy_from_slice(&f32::MAX.to_le_bytes());
        let kernel = tensors.get_mut("model.0.conv.weight").expect("a kernel");
        // 0x7bff is the largest finite half.
        kernel.data[2 * 2 * 27..][..2].copy_from_slice(&0x7bffu16.to_le_bytes());
    });
}
