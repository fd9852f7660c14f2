//! Where pictures come from: files, directories, patterns, lists, and broken ones among them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::support::{Place, arg, drawn};

fn jpeg() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    drawn(120, 90).write_to(&mut bytes, image::ImageFormat::Jpeg).expect("a JPEG");
    bytes.into_inner()
}

/// A directory with two good pictures and every kind of broken one.
fn mixed() -> Place {
    let place = Place::new();
    place.picture("in/a.png", 120, 90);
    place.picture("in/z.jpg", 90, 120);
    place.write("in/cut.jpg", &jpeg()[..jpeg().len() / 2]);
    place.write("in/empty.jpg", b"");
    place.write("in/null.png", b"");
    place.write("in/text.jpg", b"this is no picture at all");
    place.write("in/notes.txt", b"passed over");
    place.write("in/header.png", b"\x89PNG\r\n\x1a\n");
    place
}

const BROKEN: [&str; 5] = ["cut.jpg", "empty.jpg", "header.png", "null.png", "text.jpg"];

#[test]
fn broken_files_are_told_and_the_rest_goes_on() {
    let place = mixed();
    let run = place.run(&["predict", "-s", "in"]).expect(1);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", run.stdout);
    assert!(
        lines[0].starts_with("image 1/7 in/a.png: ") && lines[1].starts_with("image 7/7 in/z.jpg: "),
        "{lines:?}"
    );
    let errors: Vec<_> = run.stderr.lines().filter_map(|line| line.strip_prefix("error: in/")).collect();
    assert_eq!(errors.len(), BROKEN.len(), "{}", run.stderr);
    for (error, name) in errors.iter().zip(BROKEN) {
        let cause =
            error.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).expect("path, then cause");
        assert!(!cause.is_empty());
    }
}

#[test]
fn broken_files_are_objects_in_json() {
    let place = mixed();
    for batch in ["1", "3", "16"] {
        let run = place.run(&["predict", "-s", "in", "--json", "-", "--batch", batch]).expect(1);
        let objects = run.json_lines();
        let paths: Vec<_> = objects.iter().map(|object| object["path"].as_str().expect("a path")).collect();
        let order = ["a.png", "cut.jpg", "empty.jpg", "header.png", "null.png", "text.jpg", "z.jpg"];
        assert_eq!(paths, order.map(|name| format!("in/{name}")));
        for object in &objects[1..6] {
            let keys: Vec<_> = object.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["path", "error"]);
            let error = object["error"].as_str().expect("a text");
            assert!(!error.is_empty() && !error.starts_with("in/"), "{error}");
        }
        assert!(objects[0]["results"].is_array() && objects[6]["results"].is_array());
    }
}

#[test]
fn missing_sources_fail_in_their_place() {
    let place = Place::new();
    place.picture("a.png", 64, 64);
    std::fs::create_dir(place.path("none")).expect("a directory");
    let sources = ["absent.jpg", "a.png", "none", "*.webp", "absent/deep/x.png"];
    let run = place.run(&[&["predict", "--json", "-", "-s"], &sources[..]].concat()).expect(1);
    let objects = run.json_lines();
    assert_eq!(objects.len(), 5, "{}", run.stdout);
    for (object, source) in objects.iter().zip(sources) {
        assert_eq!(object["path"], source);
        assert_eq!(object["error"].is_string(), source != "a.png", "{object}");
    }
    run.says(&["absent.jpg: no such file", "none: ", "*.webp: "]);
}

#[test]
fn patterns_and_repeated_flags() {
    let place = Place::new();
    for name in ["p/b.png", "p/a.png", "p/c.jpg", "q/deep/d.png"] {
        place.picture(name, 40, 40);
    }
    let paths = |args: &[&str]| {
        let run = place.run(&[&["predict", "--json", "-"], args].concat()).expect(0);
        run.json_lines()
            .iter()
            .map(|object| object["path"].as_str().expect("a path").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&["-s", "p/*.png"]), ["p/a.png", "p/b.png"]);
    assert_eq!(paths(&["-s", "**/d.png"]), ["q/deep/d.png"]);
    assert_eq!(paths(&["-s", "q/deep", "p/c.jpg"]), ["q/deep/d.png", "p/c.jpg"]);
    assert_eq!(paths(&["-s", "p/c.jpg", "--source", "p/[ab].png"]), ["p/c.jpg", "p/a.png", "p/b.png"]);
}

#[test]
fn stdin_names_pictures() {
    let place = Place::new();
    place.picture("a b.png", 40, 30);
    place.picture("c.jpg", 30, 40);
    let run = place
        .run_with_input(&["predict", "-s", "-", "--json", "-"], b"c.jpg\r\n\na b.png\nabsent.png\nc.jpg");
    let run = run.expect(1);
    let objects = run.json_lines();
    let paths: Vec<_> = objects.iter().map(|object| object["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, ["c.jpg", "a b.png", "absent.png", "c.jpg"]);
    assert!(objects[2]["error"].is_string());
    let run = place.run_with_input(&["predict", "-s", "-"], b"").expect(0);
    assert!(run.stdout.is_empty());
}

#[test]
fn results_come_while_stdin_is_still_open() {
    let place = Place::new();
    place.picture("a.png", 40, 30);
    let mut command = place.command(&["predict", "-s", "-", "-q", "--json", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..3 {
        stdin.write_all(b"a.png\n").expect("it reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it answers");
        assert!(line.contains("\"a.png\""), "{line}");
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let place = Place::new();
    let picture = place.picture("a.png", 64, 64);
    let list = format!("{}\n", arg(&picture)).repeat(2000);
    place.write("list.txt", list.as_bytes());
    let input = std::fs::File::open(place.path("list.txt")).expect("the list");
    let mut command = place.command(&["predict", "-s", "-"]);
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("image 1/? "), "{line}");
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    // What came before the first picture, and no error.
    assert!(stderr.starts_with("running on the ") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn extreme_pictures_are_read() {
    let place = Place::new();
    for (name, width, height) in [("in/dot.png", 1, 1), ("in/line.png", 1000, 1), ("in/pole.png", 1, 1000)] {
        place.picture(name, width, height);
    }
    let run = place.run(&["predict", "-s", "in", "--json", "-"]).expect(0);
    let shapes: Vec<_> = run.json_lines().iter().map(|object| object["shape"].to_string()).collect();
    assert_eq!(shapes, ["[1,1]", "[1,1000]", "[1000,1]"]);
}

#[test]
fn names_that_would_steer_the_terminal_are_escaped() {
    let place = Place::new();
    if cfg!(unix) {
        place.picture("in/a\x1b[31mb.png", 20, 20);
        let run = place.run(&["predict", "-s", "in"]).expect(0);
        assert!(!run.stdout.contains('\x1b') && run.stdout.contains("a\\u{1b}[31mb.png"), "{}", run.stdout);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"a\xff.png");
    std::fs::rename(place.picture("a.png", 20, 20), place.path("").join(name)).expect("renamed");
    let output =
        place.command(&["predict", "--json", "-", "-s"]).arg(name).output().expect("the binary runs");
    assert!(output.status.success());
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(object["path"], "a\u{fffd}.png");
    assert!(object["results"].is_array());
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_harms_no_pattern() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    place.picture("in/a.jpg", 20, 20);
    std::fs::write(place.path("in").join(std::ffi::OsStr::from_bytes(b"x\xff.txt")), b"").expect("a file");
    let run = place.run(&["predict", "-s", "in/*.jpg"]).expect(0);
    assert!(run.stdout.starts_with("image 1/1 in/a.jpg: "), "{}", run.stdout);
}

#[cfg(unix)]
#[test]
fn a_pipe_named_like_a_picture_is_not_waited_for() {
    let place = Place::new();
    place.picture("in/a.jpg", 20, 20);
    let pipe = place.path("in/b.jpg");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    for source in ["in", "in/*.jpg"] {
        let run = place.run(&["predict", "-s", source]).expect(0);
        assert!(run.stdout.starts_with("image 1/1 in/a.jpg: "), "{}", run.stdout);
    }
    place.run(&["predict", "-s", "in/b.jpg"]).expect(1).says(&["in/b.jpg: is not a regular file"]);
    place.run(&["predict", "-m", "in/b.jpg"]).expect(1).says(&["in/b.jpg: is not a regular file"]);
    let args = ["forward", "--output", "out.safetensors", "--input", "in/b.jpg"];
    place.run(&args).expect(1).says(&["in/b.jpg: is not a regular file"]);
}
