//! `--save`, `--save-txt`, `--save-crop`: the files, and that none replaces another.

use crate::support::{Place, arg, demo, sample};

#[test]
fn annotated_pictures_are_pictures_of_the_same_size() {
    let place = Place::new();
    place.picture("in/a.jpg", 120, 90);
    place.picture("in/b.png", 50, 70);
    place.picture("in/c.gif", 30, 30);
    let run =
        place.run(&["predict", "-s", "in", "--save", "out/deep"]).expect(0).says(&["saved", "out/deep"]);
    assert_eq!(run.stdout.lines().count(), 3);
    assert_eq!(place.files("out"), ["deep/a.jpg", "deep/b.png", "deep/c.png"]);
    for (name, size) in [("a.jpg", (120, 90)), ("b.png", (50, 70)), ("c.png", (30, 30))] {
        let saved = image::open(place.path("out/deep").join(name)).expect("a picture");
        assert_eq!((saved.width(), saved.height()), size, "{name}");
    }
    assert!(!place.path("runs").exists());
}

#[test]
fn boxes_are_drawn() {
    let place = Place::new();
    place.write("in/sample.png", sample());
    place.run(&["predict", "-s", "in/sample.png", "--save", "out"]).expect(0);
    let drawn = image::open(place.path("out/sample.png")).expect("a picture").to_rgb8();
    let plain = image::load_from_memory(sample()).expect("a picture").to_rgb8();
    assert_eq!(drawn.dimensions(), plain.dimensions());
    let changed = drawn.pixels().zip(plain.pixels()).filter(|(a, b)| a != b).count();
    assert!(changed > 100, "{changed} pixels changed");
    // Without boxes nothing is drawn.
    place.run(&["predict", "-s", "in/sample.png", "--save", "none", "--conf", "1"]).expect(0);
    assert_eq!(image::open(place.path("none/sample.png")).expect("a picture").to_rgb8(), plain);
}

#[test]
fn pictures_of_one_name_do_not_replace_each_other() {
    let place = Place::new();
    place.picture("x/a.png", 20, 20);
    place.picture("y/a.png", 40, 40);
    place.picture("y/A.jpg", 60, 60);
    place.run(&["predict", "-s", "x", "y", "--save", "out", "--save-txt"]).expect(0);
    assert_eq!(place.files("out").len(), 6, "{:?}", place.files("out"));
    let width = |name: &str| image::open(place.path("out").join(name)).expect("a picture").width();
    assert_eq!((width("a.png"), width("A_2.jpg"), width("a_3.png")), (20, 60, 40));
}

#[test]
fn the_sources_own_directory_is_refused() {
    let place = Place::new();
    let picture = place.picture("in/a.png", 20, 20);
    let before = std::fs::read(&picture).expect("the picture");
    for (source, save) in [("in", "in"), ("in/a.png", "in/../in"), ("in/*.png", "./in")] {
        place.run(&["predict", "-s", source, "--save", save]).expect(2).says(&["source pictures"]);
    }
    place.picture("b.png", 20, 20);
    place
        .run(&["predict", "-s", "b.png", "--save", "."])
        .expect(2)
        .says(&["--save .: . holds source pictures"]);
    let run = place.run_with_input(&["predict", "-s", "-", "--save", "in"], b"in/a.png\n").expect(1);
    assert!(
        run.stdout.starts_with("image 1/? in/a.png: "),
        "the result is told all the same: {}",
        run.stdout
    );
    assert_eq!(std::fs::read(&picture).expect("the picture"), before);
}

#[cfg(unix)]
#[test]
fn a_source_behind_a_link_is_not_overwritten() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    let picture = place.picture("out/a.png", 60, 60);
    place.picture("out/b.png", 60, 60);
    let before = std::fs::read(&picture).expect("the picture");
    std::fs::create_dir(place.path("in")).expect("a directory");
    symlink(&picture, place.path("in/a.png")).expect("a link");
    std::fs::hard_link(place.path("out/b.png"), place.path("in/b.png")).expect("a link");
    place.picture("in/c.png", 60, 60);
    let run = place.run(&["predict", "-s", "in", "--save", "out"]).expect(1);
    let run = run.says(&["in/a.png: not saved, out/a.png is the source itself", "in/b.png: not saved"]);
    assert_eq!(run.stdout.lines().count(), 3, "{}", run.stdout);
    assert!(run.stderr.contains("saved out/c.png"), "{}", run.stderr);
    for name in ["out/a.png", "out/b.png"] {
        assert_eq!(std::fs::read(place.path(name)).expect("the picture"), before, "{name}");
    }
}

/// Whatever kind of file it is that would be written, and whichever source it would be.
#[cfg(unix)]
#[test]
fn another_source_is_not_overwritten() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    place.write("in/a.png", sample());
    place.write("other/kept", sample());
    let model = place.run(&["predict", "--task", "segment", "--json", "-", "-s", "in/a.png"]).expect(0);
    let name = model.json_lines()[0]["results"][0]["name"].as_str().expect("an object").to_owned();
    let crop = format!("out/crops/{name}/a.jpg");
    for (target, is_hard) in [
        ("out/a.png", false),
        ("out/a.png", true),
        ("out/labels/a.txt", false),
        ("out/masks/a_1.png", true),
        (&crop, false),
    ] {
        // Makes the directory above it.
        std::fs::remove_file(place.write(target, b"")).expect("a file");
        let (kept, link) = (place.path("other/kept"), place.path(target));
        if is_hard { std::fs::hard_link(kept, link) } else { symlink(kept, link) }.expect("a link");
        let args = ["predict", "--task", "segment", "-s", "in", "other/kept", "--save", "out"];
        let more = ["--save-txt", "--save-crop", "--save-masks"];
        let told = format!("in/a.png: not saved, {target} is the input other/kept");
        let run = place.run(&[&args[..], &more].concat()).expect(1).says(&[&told]);
        assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
        assert_eq!(std::fs::read(place.path("other/kept")).expect("the source"), sample(), "{target}");
        std::fs::remove_file(place.path(target)).expect("the link");
    }
    // The model is read as well.
    place.write("m.safetensors", &demo());
    std::fs::remove_file(place.path("out/a.png")).expect("the picture");
    symlink(place.path("m.safetensors"), place.path("out/a.png")).expect("a link");
    let args = ["predict", "-m", "m.safetensors", "-s", "in", "--save", "out"];
    place.run(&args).expect(1).says(&["in/a.png: not saved, out/a.png is the input m.safetensors"]);
    assert_eq!(std::fs::read(place.path("m.safetensors")).expect("the model"), demo());
}

#[test]
fn sources_where_other_files_are_saved_are_refused() {
    let place = Place::new();
    place.picture("out/masks/a_1.png", 20, 20);
    place.picture("out/crops/cat/a.jpg", 20, 20);
    let before = place.files("out");
    for (source, flag) in [
        ("out/masks", "--save-masks"),
        ("out/crops/*/*", "--save-crop"),
        ("out/crops/cat/a.jpg", "--save-crop"),
    ] {
        let args = ["predict", "--task", "segment", "-s", source, "--save", "out", flag];
        let told = ["source pictures", "--save out: out/"];
        place.run(&args).expect(2).says(&told);
        assert_eq!(place.files("out"), before);
    }
    // Where nothing of the kind is saved they are as good as others.
    place.run(&["predict", "-s", "out/masks", "out/crops/cat", "--save", "out"]).expect(0);
}

#[test]
fn a_source_from_stdin_that_was_overwritten_is_told() {
    let place = Place::new();
    place.write("in/a.png", sample());
    place.picture("out/a.png", 60, 60);
    let args = ["predict", "-s", "-", "--json", "-", "--save", "out"];
    let run = place.run_with_input(&args, b"in/a.png\nout/a.png\n").expect(1);
    let objects = run.json_lines();
    assert!(objects[0]["results"].is_array());
    assert_eq!(objects[1]["path"], "out/a.png");
    let error = objects[1]["error"].as_str().expect("an error");
    assert!(error.contains("overwritten by what is saved about an earlier source"), "{error}");
}

#[test]
fn labels_are_shares_of_the_picture() {
    let place = Place::new();
    let find = place.run(&["predict", "--json", "-", "--save-txt", "--save-conf", "--save", "out"]).expect(0);
    let object = find.json_lines().remove(0);
    let [height, width] = [0, 1].map(|idx| object["shape"][idx].as_f64().expect("a number"));
    let results = object["results"].as_array().expect("an array");
    let labels = std::fs::read_to_string(place.path("out/labels/sample.txt")).expect("labels");
    assert_eq!(labels.lines().count(), results.len());
    for (line, found) in labels.lines().zip(results) {
        let values: Vec<f64> = line.split(' ').map(|value| value.parse().expect("a number")).collect();
        let [class, x, y, w, h, conf] = values[..] else { panic!("{line}") };
        let expected = |key: &str| found["box"][key].as_f64().expect("a number");
        for (value, expected) in [
            (class, found["class"].as_f64().expect("a number")),
            ((x - w / 2.0) * width, expected("x1")),
            ((y - h / 2.0) * height, expected("y1")),
            ((x + w / 2.0) * width, expected("x2")),
            ((y + h / 2.0) * height, expected("y2")),
            (conf, found["confidence"].as_f64().expect("a number")),
        ] {
            assert!((value - expected).abs() < 2e-3, "{line}: {value} is not {expected}");
        }
    }
    // Without --save-conf there are five columns; without --save, a directory of its own.
    place
        .run(&["predict", "-s", arg(&place.picture("a.png", 64, 64)), "--save-txt", "--conf", "1"])
        .expect(0);
    assert_eq!(place.files("runs"), ["predict/labels/a.txt"]);
    place.run(&["predict", "--save-txt"]).expect(0);
    let labels = std::fs::read_to_string(place.path("runs/predict2/labels/sample.txt")).expect("labels");
    assert!(!labels.is_empty() && labels.lines().all(|line| line.split(' ').count() == 5), "{labels}");
}

#[test]
fn crops_are_parts_of_the_picture() {
    let place = Place::new();
    let run = place.run(&["predict", "--json", "-", "--save-crop", "--save", "out"]).expect(0);
    let object = run.json_lines().remove(0);
    let results = object["results"].as_array().expect("an array");
    let crops = place.files("out/crops");
    assert_eq!(crops.len(), results.len(), "{crops:?}");
    let best = &results[0];
    let crop =
        image::open(place.path("out/crops").join(best["name"].as_str().expect("a name")).join("sample.jpg"));
    let crop = crop.expect("the best box's crop");
    let side = |from: &str, to: &str| {
        let at = |key: &str| best["box"][key].as_f64().expect("a number");
        at(to).ceil() - at(from).floor()
    };
    assert_eq!((f64::from(crop.width()), f64::from(crop.height())), (side("x1", "x2"), side("y1", "y2")));
}

#[test]
fn a_place_that_can_not_be_written_is_told() {
    let place = Place::new();
    place.write("file", b"");
    place.run(&["predict", "--save", "file"]).expect(1).says(&["file"]);
    place.run(&["predict", "--save", "file/below"]).expect(1).says(&["file/below"]);
}

#[test]
fn json_overwrites_no_input() {
    let place = Place::new();
    place.picture("in/a.png", 20, 20);
    place.write("m.safetensors", &demo());
    place.write("in/old.json", b"old");
    let before = |name: &str| std::fs::read(place.path(name)).expect("a file");
    let check = |args: &[&str], name: &str| {
        let bytes = before(name);
        place.run(args).expect(2).says(&["would overwrite the input"]);
        assert_eq!(before(name), bytes, "{args:?}");
    };
    check(&["predict", "-s", "in/a.png", "--json", "in/a.png"], "in/a.png");
    check(&["predict", "-s", "in", "--json", "./in/../in/a.png"], "in/a.png");
    check(&["predict", "-m", "m.safetensors", "--json", "m.safetensors"], "m.safetensors");
    check(&["bench", "-m", "m.safetensors", "--json", "m.safetensors"], "m.safetensors");
    check(&["inspect", "m.safetensors", "--json", "m.safetensors"], "m.safetensors");
    place.run(&["predict", "-s", "in/a.png", "--json", "in/old.json"]).expect(0);
    assert_ne!(before("in/old.json"), b"old");
}

#[test]
fn json_overwrites_nothing_that_stdin_may_name() {
    let place = Place::new();
    place.write("a.png", sample());
    place.write("before.json", b"{\"path\": \"b.png\"}\n");
    place.write("empty.json", b"");
    let run = |json: &str| place.run_with_input(&["predict", "-q", "-s", "-", "--json", json], b"a.png\n");
    run("a.png").expect(2).says(&["--json a.png: holds no JSON objects", "stdin"]);
    assert_eq!(std::fs::read(place.path("a.png")).expect("the picture"), sample());
    for json in ["before.json", "empty.json", "new.json", "-"] {
        run(json).expect(0);
    }
    let written = std::fs::read_to_string(place.path("before.json")).expect("objects");
    assert!(written.starts_with("{\"path\":\"a.png\""), "{written}");
}

#[test]
fn what_is_saved_overwrites_no_json() {
    let place = Place::new();
    place.write("a.png", sample());
    for json in ["out/a.png", "out/labels/a.txt"] {
        let args = ["predict", "-q", "-s", "a.png", "--save", "out", "--save-txt", "--json", json];
        let told = format!("a.png: not saved, {json} is the file of --json");
        place.run(&args).expect(1).says(&[&told]);
        let written = std::fs::read_to_string(place.path(json)).expect("objects");
        assert!(written.starts_with("{\"path\":\"a.png\""), "{written}");
    }
}

#[test]
fn the_longest_names_are_saved() {
    let place = Place::new();
    let name = format!("{}.png", "n".repeat(251));
    place.picture(&format!("in/{name}"), 40, 40);
    place.run(&["predict", "-s", "in", "--save", "out", "--save-txt"]).expect(0);
    assert_eq!(place.files("out"), [format!("labels/{}.txt", "n".repeat(251)), name]);
}
