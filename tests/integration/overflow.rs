//! Values that 16-bit floats can't hold: a picture that leads to some is an error, and no other is.

use ferroyolo::{Error, ErrorKind, Head, Image, Model, Precision, PredictOptions, Results, Session, Tensor};
use ferroyolo_tests::{gpu, load, read, root};
use serde_json::{Map, Value};

/// The channel of the first convolution that is made too large: the one that is missed least.
const CHANNEL: usize = 5;

/// What is wanted: few pixels, for which a network has to be as unsure as it is then.
fn options() -> PredictOptions {
    PredictOptions { imgsz: Some([160, 160]), conf: 0.05, ..PredictOptions::default() }
}

fn sample() -> Image {
    Image::open(root().join("crates/cli/assets/sample.png")).expect("the sample picture")
}

/// A picture of one value, of the sample's size.
fn plain(value: u8) -> Image {
    let [height, width] = sample().shape();
    Image::from_rgb8(width, height, vec![value; height * width * 3]).expect("a picture")
}

/// A built-in model that is changed.
struct File {
    bytes: Vec<u8>,
    header: Map<String, Value>,
    /// Where tensors begin.
    first: usize,
}

impl File {
    fn open(name: &str) -> Self {
        let bytes = read(&root().join(format!("crates/cli/assets/{name}.safetensors")));
        let (length, rest) = bytes.split_first_chunk::<8>().expect("a header's length");
        let length = u64::from_le_bytes(*length) as usize;
        let header = serde_json::from_slice(&rest[..length]).expect("a header");
        Self { bytes, header, first: 8 + length }
    }

    fn numbers(&self, tensor: &str, what: &str) -> Vec<usize> {
        serde_json::from_value(self.header[tensor][what].clone()).expect("numbers")
    }

    fn data(&mut self, tensor: &str) -> &mut [u8] {
        let offsets = self.numbers(tensor, "data_offsets");
        &mut self.bytes[self.first + offsets[0]..self.first + offsets[1]]
    }

    /// Writes part `idx` of a tensor, of as many bytes as `values`.
    fn write(&mut self, tensor: &str, idx: usize, values: &[u8]) {
        self.data(tensor)[idx * values.len()..][..values.len()].copy_from_slice(values);
    }

    /// Multiplies a tensor of 32-bit floats.
    fn multiply(&mut self, tensor: &str, factor: f32) {
        assert_eq!(self.header[tensor]["dtype"], "F32", "{tensor}");
        for value in self.data(tensor).as_chunks_mut::<4>().0 {
            *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
        }
    }
}

/// A built-in model whose first layer has a channel of 66,900 in white and of less than 65,504 in whatever is darker.
/// Nothing is made of this channel: weights are zero where it is read.
fn shy_of_light(name: &str) -> Vec<u8> {
    let mut file = File::open(name);
    // Weights are 16-bit floats, times a scale for each channel of the output.
    let one = [0x00, 0x3c];
    assert_eq!(file.numbers("model.0.conv.weight", "shape")[1..], [3, 3, 3]);
    file.write("model.0.conv.weight", CHANNEL, &one.repeat(27));
    file.write("model.0.conv.scale", CHANNEL, &4700.0f32.to_le_bytes());
    file.write("model.0.conv.bias", CHANNEL, &(-60_000.0f32).to_le_bytes());
    let [n_out, n_in, 3, 3] = file.numbers("model.1.conv.weight", "shape")[..] else {
        panic!("{name}: another second layer")
    };
    (0..n_out).for_each(|out| file.write("model.1.conv.weight", out * n_in + CHANNEL, &[0; 18]));
    file.bytes
}

/// Such a model on a GPU.
fn model(test: &str, name: &str, precision: Precision) -> Option<Model> {
    gpu(test, precision).map(|options| load(name, &shy_of_light(name), &options))
}

fn check(got: Result<Vec<Results>, Error>, whose: &str) {
    let error = got.expect_err("a value is too large");
    assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
    assert!(error.at().starts_with("model.0"), "{error}");
    let message = format!("values{whose} are too large for 16-bit floats, which end at 65504; use f32");
    assert_eq!(error.message(), message);
}

/// Runs two pictures of one value each.
fn run(session: &mut Session, values: [f32; 2]) -> Result<Vec<Results>, Error> {
    let data = values.into_iter().flat_map(|value| vec![value; 3 * 64 * 64]).collect();
    let tensor = Tensor::new(vec![2, 3, 64, 64], data).expect("a shape");
    session.run_head(&tensor, Head::Auto).map(|_| Vec::new())
}

fn json(results: &[Results]) -> Vec<String> {
    results.iter().map(|results| results.to_json()["results"].to_string()).collect()
}

#[test]
fn a_picture_that_is_too_bright_is_told() {
    let test = "a_picture_that_is_too_bright_is_told";
    let [sample, white, black] = [sample(), plain(255), plain(0)];
    let mut n_objects = 0;
    for name in ["demo", "segment", "pose", "obb", "classify", "depth", "semantic"] {
        let Some(model) = model(test, name, Precision::F16) else { return };
        let (mut session, options) = (model.session(), options());
        let mut predict = |images: &[&Image]| session.predict(images, &options);
        let alone = predict(&[&sample]).expect("values that fit");
        n_objects += alone[0].boxes.len();
        check(predict(&[&white]), "");
        check(predict(&[&sample, &white, &black]), " of picture 2 of 3");
        check(predict(&[&white, &sample, &white]), " of pictures 1, 3 of 3");
        let again = predict(&[&sample, &black]).expect("values that fit");
        assert_eq!(json(&again)[0], json(&alone)[0], "{name}");
    }
    assert!(n_objects > 3, "found only {n_objects} objects");
}

/// Alike layers of all levels go together; it is one of them, by its weights, that gives values beyond all others'.
#[test]
fn the_layer_is_named() {
    let Some(on_gpu) = gpu("the_layer_is_named", Precision::F16) else { return };
    for (layer, factor) in [("model.23.cv3.1.1.1.conv", 5e4), ("model.23.cv2.2.1.conv", 2.5e5)] {
        let mut file = File::open("demo");
        file.multiply(&format!("{layer}.scale"), factor);
        let mut session = load("demo", &file.bytes, &on_gpu).session();
        let error = session.predict(&[&sample()], &options()).expect_err("a value is too large");
        assert_eq!((error.kind(), error.at()), (ErrorKind::Overflow, layer), "{error}");
    }
}

#[test]
fn raw_maps_and_whole_objects_are_told_of() {
    let test = "raw_maps_and_whole_objects_are_told_of";
    let Some(model) = model(test, "segment", Precision::F16) else { return };
    let [sample, white] = [sample(), plain(255)];
    let multi_label = PredictOptions { multi_label: true, ..options() };
    let mut session = model.session();
    for _ in 0..2 {
        check(session.predict_whole(&[&white], &options()), "");
        check(session.predict(&[&sample, &white], &multi_label), " of picture 2 of 2");
        session.predict_whole(&[&sample], &options()).expect("values that fit");
        session.predict(&[&sample], &multi_label).expect("values that fit");
    }
    check(run(&mut session, [0.5, 1.0]), " of picture 2 of 2");
    run(&mut session, [0.5, 0.9]).expect("values that fit");
    let error = run(&mut session, [0.5, 7e4]).expect_err("no value of a picture");
    assert_eq!((error.kind(), error.at()), (ErrorKind::Overflow, "images"), "{error}");
}

#[test]
fn there_is_room_in_32_bits() {
    let Some(model) = model("there_is_room_in_32_bits", "demo", Precision::F32) else { return };
    let mut session = model.session();
    session.predict(&[&sample(), &plain(255)], &options()).expect("values that fit");
    run(&mut session, [1.0, 7e4]).expect("values that fit");
}

#[test]
fn other_batches_go_on() {
    let Some(model) = model("other_batches_go_on", "segment", Precision::F16) else { return };
    let [sample, white] = [sample(), plain(255)];
    let mut session = model.session();
    let want = json(&session.predict(&[&sample], &options()).expect("values that fit"));
    assert!(want[0].contains("confidence"), "nothing was found: {want:?}");
    let images = [&sample, &white, &sample, &white, &white, &sample];
    for image in images {
        session.enqueue(&[image], &options()).expect("a start");
    }
    for (idx, image) in images.into_iter().enumerate() {
        let got = session.dequeue().expect("a batch");
        if std::ptr::eq(image, &white) {
            check(got, "");
        } else {
            assert_eq!(json(&got.expect("values that fit")), want, "batch {idx}");
        }
    }
    assert!(session.dequeue().is_none());
}
