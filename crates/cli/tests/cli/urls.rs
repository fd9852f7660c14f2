//! Pictures by URL.

use std::io::Cursor;

use serde_json::Value;

use crate::server::{Reply, Server};
use crate::support::{Place, drawn, sample};

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    drawn(120, 90).write_to(&mut bytes, format).expect("a picture");
    bytes.into_inner()
}

fn server() -> Server {
    Server::start(|path| match path {
        "photos/bus.jpg" | "other/bus.jpg" => Reply::File(encoded(image::ImageFormat::Jpeg)),
        "sample" | "sample.png?size=full" | "npm/a@2x.png" => Reply::File(sample().to_vec()),
        "moved.png" => Reply::Redirect("/sample".into()),
        "text.jpg" => Reply::File(b"no picture".to_vec()),
        "cut.jpg" => Reply::CutShort(encoded(image::ImageFormat::Jpeg)),
        "huge.jpg" => Reply::Length(1 << 40),
        "stall.jpg" => Reply::Stall(encoded(image::ImageFormat::Jpeg)),
        _ => Reply::Status(404),
    })
}

fn results(object: &Value) -> (&Value, &Value) {
    (&object["shape"], &object["results"])
}

#[test]
fn a_picture_by_url_is_a_picture() {
    let place = Place::new();
    place.write("sample.png", sample());
    let server = server();
    let urls = ["sample", "sample.png?size=full", "moved.png", "npm/a@2x.png"].map(|path| server.url(path));
    let [first, second, third, fourth] = &urls;
    let args = ["predict", "--json", "-", "-s", "sample.png", first, second, third, fourth];
    for policy in ["shared", "pool", "process"] {
        let mut command = place.online(&args, "");
        command.args(["--policy", policy, "--workers", "2"]);
        let objects = place.finish(command).expect(0).json_lines();
        assert_eq!(objects.len(), 5);
        assert!(objects[0]["results"].as_array().is_some_and(|found| !found.is_empty()));
        for (object, url) in objects[1..].iter().zip(&urls) {
            assert_eq!(object["path"], url.as_str());
            assert_eq!(results(object), results(&objects[0]), "{policy}");
        }
    }
    let run = place.finish(place.online(&["predict", "-s", second], "")).expect(0);
    assert!(run.stdout.starts_with(&format!("image 1/1 {second}: ")), "{}", run.stdout);
}

#[test]
fn urls_that_lead_to_no_picture_are_told_and_the_rest_goes_on() {
    let place = Place::new();
    let server = server();
    let paths = ["absent.jpg", "text.jpg", "cut.jpg", "huge.jpg", "stall.jpg", "photos/bus.jpg"];
    let urls = paths.map(|path| server.url(path));
    let mut command = place.online(&["predict", "--json", "-", "-s", "ftp://a.invalid/b.jpg"], "");
    command.env("FERROYOLO_TIMEOUT", "3").args(&urls);
    let run = place.finish(command).expect(1);
    let objects = run.json_lines();
    assert_eq!(objects.len(), 7);
    assert_eq!(objects[0]["path"], "ftp://a.invalid/b.jpg");
    assert!(objects[0]["error"].is_string());
    for ((object, url), text) in objects[1..6].iter().zip(&urls).zip([
        "HTTP status 404",
        "",
        "cut short after",
        "more than the",
        "no answer for 3 s",
    ]) {
        assert_eq!(object["path"], url.as_str());
        let error = object["error"].as_str().expect("an error");
        assert!(!error.is_empty() && error.contains(text) && !error.starts_with("http"), "{error}");
        assert!(run.stderr.contains(&format!("error: {url}: ")), "{}", run.stderr);
    }
    assert!(objects[6]["results"].is_array());
}

#[test]
fn urls_can_be_listed_on_stdin() {
    let place = Place::new();
    let server = server();
    place.write("list", format!("{}\nabsent.png\n", server.url("photos/bus.jpg")).as_bytes());
    let mut command = place.online(&["predict", "--json", "-", "-s", "-"], "");
    command.stdin(std::fs::File::open(place.path("list")).expect("the list"));
    let objects = place.finish(command).expect(1).json_lines();
    assert!(objects[0]["results"].is_array() && objects[1]["error"].is_string(), "{objects:?}");
}

#[test]
fn files_are_named_after_the_last_part() {
    let place = Place::new();
    let server = server();
    let urls =
        ["photos/bus.jpg", "other/bus.jpg", "sample.png?size=full", "sample"].map(|path| server.url(path));
    let mut command = place.online(&["predict", "--save", "out", "--save-txt", "-s"], "");
    command.args(&urls);
    place.finish(command).expect(0);
    let names = ["bus.jpg", "bus_2.jpg", "sample.png", "sample_2.png"];
    let labels = ["labels/bus.txt", "labels/bus_2.txt", "labels/sample.txt", "labels/sample_2.txt"];
    assert_eq!(place.files("out"), [&names[..2], &labels, &names[2..]].concat());
}

#[test]
fn offline_nothing_is_asked_for() {
    let place = Place::new();
    place.picture("a.png", 40, 40);
    let server = server();
    let url = server.url("sample");
    for flag in [true, false] {
        let mut command = place.online(&["predict", "--json", "-", "-s", &url, "a.png"], "");
        if flag {
            command.arg("--offline");
        } else {
            command.env("FERROYOLO_OFFLINE", "1");
        }
        let run = place.finish(command).expect(1).says(&["not fetched", "--offline"]);
        assert!(run.json_lines()[1]["results"].is_array());
    }
    assert!(server.asked().is_empty());
}

#[test]
fn passwords_are_not_told() {
    let place = Place::new();
    let server = server();
    let url = server.url("absent.jpg").replace("http://", "http://me:secret@");
    let run = place.finish(place.online(&["predict", "--json", "-", "-s", &url], "")).expect(1);
    assert!(!run.stdout.contains("secret") && !run.stderr.contains("secret"), "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("http://me:***@127.0.0.1"), "{}", run.stdout);
    // Passwords are often written as they are, although a URL ends its host there.
    // The user is this machine's name here, so that whoever takes it for the host asks nobody else.
    for (name, secret) in
        [("a.jpg", "qx7/zv9"), ("a.mp4", "qx7/zv9"), ("a.jpg", "qx7?zv9"), ("a.mp4", "qx7#@zv9@")]
    {
        for scheme in ["http", "rtsp"] {
            let url = server.url(name).replace("http://", &format!("{scheme}://localhost:{secret}@"));
            let mut command = place.online(&["predict", "--json", "-", "-s", &url], "");
            command.env("FERROYOLO_TIMEOUT", "10");
            let run = place.finish(command).expect(1);
            let told = format!("{}{}", run.stdout, run.stderr);
            let shown = server.url(name).replace("http://", &format!("{scheme}://localhost:***@"));
            assert!(!told.contains("qx7") && !told.contains("zv9"), "{told}");
            assert!(run.stdout.contains(&shown) && run.stderr.contains(&shown), "{told}");
        }
    }
    // What ffprobe says names the URL too.
    let url = server.url("absent.mp4").replace("http://", "http://me:secret@");
    let run = place.finish(place.online(&["predict", "--json", "-", "-s", &url], "")).expect(1);
    assert!(!run.stdout.contains("secret") && !run.stderr.contains("secret"), "{}{}", run.stdout, run.stderr);
}

#[test]
fn passwords_are_not_told_where_no_url_is_expected() {
    let place = Place::new();
    let check = |run: crate::support::Run, code: i32| {
        let run = run.expect(code);
        let told = format!("{}{}", run.stdout, run.stderr);
        assert!(!told.contains("qx7") && !told.contains("zv9"), "{told}");
        assert!(run.stderr.contains("rtsp://me:***@cam/1"), "{told}");
        run
    };
    let url = "rtsp://me:qx7/zv9@cam/1";
    check(place.run(&["predict", url]), 2);
    check(place.run(&["predict", "--imgsz", url]), 2);
    check(place.run(&["predict", "-m", url]), 1);
    for line in [format!(" {url}"), format!("\"{url}\""), format!("source={url}")] {
        check(place.run(&["predict", "-s", &line]), 1);
        let args = ["predict", "--json", "-", "-s", "-"];
        let run = check(place.run_with_input(&args, line.as_bytes()), 1);
        let told = &run.json_lines()[0];
        assert_eq!(told["path"], line.replace("qx7/zv9", "***"));
        assert!(told["error"].as_str().is_some_and(|error| !error.contains("rtsp")), "{told}");
    }
    // Help and version are as they were.
    assert!(place.run(&["--version"]).expect(0).stdout.starts_with("ferroyolo "));
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_wait_for_a_server() {
    use std::process::Stdio;

    use crate::support::{finish, signal};

    let place = Place::new();
    let (began, asked) = std::sync::mpsc::channel();
    let server = Server::start(move |_| {
        began.send(()).expect("the test listens");
        Reply::Silence
    });
    let url = server.url("a.jpg");
    let mut command = place.online(&["predict", "-s", &url], "");
    // It would wait for longer than any test may take.
    command.env("FERROYOLO_TIMEOUT", "10000").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    asked.recv().expect("a request");
    signal("INT", child.id());
    finish(child.wait_with_output().expect("the binary ends")).expect(130);
}
