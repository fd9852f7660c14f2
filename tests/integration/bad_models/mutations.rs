//! Random changes of good files: whatever comes of them, nothing panics.

use ferroyolo::{Task, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{File, golden_bytes, load};

const GOLDENS: &[&str] = &[
    "detect8",
    "detect26",
    "detectx",
    "detect10",
    "segment9",
    "segment26",
    "pose8",
    "pose26",
    "obb12",
    "obb26",
    "classify",
    "semantic26",
    "depth26",
];

/// Pictures that a model is tried on if it can be loaded.
const INPUT_HW: [usize; 2] = [64, 96];

/// Loads a file that may be anything, and runs the model if there is one. Only a panic is wrong.
fn survive(bytes: &[u8]) {
    let Ok(model) = load(bytes) else { return };
    let [h, w] = INPUT_HW;
    let images = Tensor::new(vec![1, 3, h, w], vec![0.5; 3 * h * w]).expect("a picture");
    if let Ok(outputs) = model.session().run(&images) {
        let output0 = outputs.output0().expect("the one-to-many head");
        let n_extra = match model.task() {
            Task::Detect => 0,
            Task::Segment => outputs.proto().expect("prototypes").shape[1],
            Task::Pose => model.kpt_shape().expect("keypoints").into_iter().product(),
            Task::Obb => 1,
            _ => {
                let n_channels = if model.task() == Task::Depth { 1 } else { model.n_classes() };
                assert_eq!(output0.shape[..2], [1, n_channels]);
                return;
            }
        };
        assert_eq!(output0.shape[..2], [1, 4 + model.n_classes() + n_extra]);
    }
}

/// Paths of all values of a document, parents before children.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, child)| pointers(child, &format!("{at}/{key}"), out));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(idx, child)| pointers(child, &format!("{at}/{idx}"), out));
        }
        _ => (),
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Replace(Value),
    /// With the value at another place.
    Copy(prop::sample::Index),
    Remove,
    Double,
}

fn edits() -> impl Strategy<Value = Edit> {
    let small =
        prop_oneof![0i64..10, prop::sample::select(vec![-1, 12, 16, 24, 30, 64, 1 << 24, 1 << 31, i64::MAX])];
    let classes = [
        "Conv",
        "C2f",
        "SPPF",
        "Concat",
        "Sequential",
        "Identity",
        "Detect",
        "Conv2d",
        "Attention",
        "C2PSA",
        "C3",
        "ELAN1",
        "ADown",
        "AConv",
        "CBLinear",
        "CBFuse",
        "SPPELAN",
        "SPP",
        "PSA",
        "CIB",
        "AAttn",
        "A2C2f",
        "Proto",
        "GhostConv",
        "GhostBottleneck",
        "ConvTranspose2d",
        "ZeroPad2d",
        "Segment",
        "Pose26",
        "OBB",
        "Classify",
        "SemanticSegment",
        "Depth",
    ];
    prop_oneof![
        6 => small.prop_map(|number| Edit::Replace(json!(number))),
        2 => (1i64..5, 1i64..5).prop_map(|(a, b)| Edit::Replace(json!([a, b]))),
        1 => prop::sample::select(vec![json!(null), json!(true), json!(false), json!(0.5), json!(1e300), json!(""),
            json!([]), json!({})]).prop_map(Edit::Replace),
        2 => prop::sample::select(classes.to_vec()).prop_map(|class| Edit::Replace(json!(class))),
        4 => any::<prop::sample::Index>().prop_map(Edit::Copy),
        2 => Just(Edit::Remove),
        2 => Just(Edit::Double),
    ]
}

fn apply(document: &mut Value, at: prop::sample::Index, edit: &Edit) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let target = at.get(&all).clone();
    let copied =
        |index: &prop::sample::Index| document.pointer(index.get(&all).as_str()).cloned().unwrap_or_default();
    let value = match edit {
        Edit::Replace(value) => value.clone(),
        Edit::Copy(index) => copied(index),
        Edit::Remove | Edit::Double => Value::Null,
    };
    let Some((parent, key)) = target.rsplit_once('/') else { return };
    match (edit, document.pointer_mut(parent)) {
        (Edit::Remove, Some(Value::Object(map))) => drop(map.remove(key)),
        (Edit::Remove, Some(Value::Array(items))) => {
            drop(items.remove(key.parse::<usize>().expect("an index")));
        }
        (Edit::Double, Some(Value::Array(items))) => {
            let idx = key.parse::<usize>().expect("an index");
            items.insert(idx, items[idx].clone());
        }
        (Edit::Replace(_) | Edit::Copy(_), _) => *document.pointer_mut(&target).expect("a value") = value,
        _ => (),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_of_the_document_is_survived(
        name in prop::sample::select(GOLDENS),
        edits in prop::collection::vec((any::<prop::sample::Index>(), edits()), 1..4)
    ) {
        let file = File::open(name);
        let mut document = file.document();
        for (at, edit) in &edits {
            apply(&mut document, *at, edit);
        }
        survive(&file.with_document(document.to_string()).bytes());
    }

    #[test]
    fn any_flipped_bytes_are_survived(
        name in prop::sample::select(GOLDENS),
        flips in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 1u8..=255), 1..6)
    ) {
        let mut bytes = golden_bytes(name);
        let header_len = bytes.len() / 4;
        for (in_header, at, bits) in flips {
            let len = if in_header { header_len } else { bytes.len() };
            bytes[at.index(len)] ^= bits;
        }
        survive(&bytes);
    }
}
