//! Models by name: fetched once, held to what they were, and a clear word when that can't be.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::server::{Reply, Server};
use crate::support::{Place, Run, finish, in_zip, shared};

/// The smallest checkpoint: it can be read, but holds no network.
fn checkpoint() -> Vec<u8> {
    in_zip(b"\x80\x02}q\x00.")
}

fn serving(bytes: Vec<u8>) -> Server {
    Server::start(move |_| Reply::File(bytes.clone()))
}

fn fetch(place: &Place, name: &str, assets: &str) -> Run {
    place.finish(place.online(&["predict", "-m", name], assets))
}

/// Runs and expects that nothing is kept, and that what to do is told.
#[track_caller]
fn refused(reply: impl Fn() -> Reply + Send + Sync + 'static, texts: &[&str]) {
    let place = Place::new();
    let server = Server::start(move |_| reply());
    let mut command = place.online(&["predict", "-m", "yolov9t"], &server.url("x"));
    let run = place.finish({
        command.env("FERROYOLO_TIMEOUT", "5");
        command
    });
    let run = run.expect(1).says(texts).says(&[
        "yolov9t.pt: can't fetch ",
        &server.url("x/yolov9t.pt"),
        "put it into",
    ]);
    assert!(run.stdout.is_empty());
    assert_eq!(place.files("cache"), [".yolov9t.pt.lock"], "{texts:?}");
}

#[test]
fn a_model_is_fetched_once_and_recorded() {
    let place = Place::new();
    let server = serving(checkpoint());
    // With and without a slash at the end of the base.
    for (name, base) in [("yolov9t", "assets"), ("yolov9s.pt", "assets/")] {
        let run = fetch(&place, name, &server.url(base)).expect(1);
        run.says(&["fetching", "AGPL-3.0", "saved ", "SHA-256"]);
    }
    let run = fetch(&place, "yolox_nano", &server.url("m")).expect(1);
    run.says(&["Megvii", "Apache-2.0"]);
    assert_eq!(server.asked(), ["assets/yolov9t.pt", "assets/yolov9s.pt", "m/yolox_nano.pth"]);
    drop(server);
    assert_eq!(std::fs::read(place.path("cache/yolov9t.pt")).expect("the model"), checkpoint());
    let record = std::fs::read_to_string(place.path("cache/yolov9t.pt.sha256")).expect("the record");
    assert!(record.len() == 64 + 2 + "yolov9t.pt\n".len() && record.ends_with("  yolov9t.pt\n"), "{record}");
    assert!(!place.files("cache").iter().any(|name| name.ends_with(".part") || name.ends_with(".tmp")));
    // From now on no network is needed.
    let run = place.run(&["predict", "-m", "yolov9t"]).expect(1);
    assert!(!run.stderr.contains("fetch"), "{}", run.stderr);
}

#[test]
fn a_fetched_model_runs() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let bytes = std::fs::read(shared.join("reference/checkpoints/yolo11-nc3.pt")).expect("a checkpoint");
    let server = serving(bytes);
    for policy in ["shared", "process"] {
        let mut command = place.online(&["predict", "-m", "yolo11s", "--policy", policy], &server.url("a"));
        command.args(["--workers", "2", "--save", "out", "-q"]);
        let run = place.finish(command).expect(0);
        assert!(run.stderr.is_empty(), "{}", run.stderr);
    }
    assert_eq!(server.asked(), ["a/yolo11s.pt"]);
}

#[test]
fn a_file_that_is_not_the_pinned_one_is_not_kept() {
    let place = Place::new();
    let server = serving(checkpoint());
    let run = fetch(&place, "yolov8n", &server.url("a")).expect(1);
    run.says(&["303b7abb70606512f5daa04a01b921183670e9132829d08dca4c73c5e5784e30", "expected", "not kept"]);
    assert_eq!(place.files("cache"), [".yolov8n.pt.lock"]);
}

#[test]
fn a_model_may_not_change() {
    let place = Place::new();
    let server = serving(checkpoint());
    fetch(&place, "yolov9t", &server.url("a")).expect(1).says(&["saved"]);
    let record = std::fs::read_to_string(place.path("cache/yolov9t.pt.sha256")).expect("the record");
    let first = record.split(' ').next().expect("a hash").to_owned();

    // At its publisher:
    std::fs::remove_file(place.path("cache/yolov9t.pt")).expect("removed");
    let changed = serving(in_zip(b"\x80\x02]q\x00."));
    let run = fetch(&place, "yolov9t", &changed.url("a")).expect(1);
    run.says(&[&first, "expected", "not kept", "yolov9t.pt.sha256"]);
    assert!(!place.path("cache/yolov9t.pt").exists());
    fetch(&place, "yolov9t", &server.url("a")).expect(1).says(&["saved"]);

    // And in the cache:
    place.write("cache/yolov9t.pt", b"other");
    let run = fetch(&place, "yolov9t", &server.url("a")).expect(1);
    run.says(&[&first, "cache/yolov9t.pt: its SHA-256 is", "delete"]);
    assert_eq!(server.asked().len(), 2, "it is not fetched again without being asked to");
}

#[test]
fn servers_that_refuse_are_told() {
    refused(|| Reply::Status(404), &["HTTP status 404"]);
    refused(|| Reply::Status(403), &["HTTP status 403"]);
    refused(|| Reply::Status(500), &["HTTP status 500"]);
    refused(|| Reply::Status(503), &["HTTP status 503"]);
}

#[test]
fn answers_that_are_no_model_are_told() {
    refused(
        || Reply::CutShort(checkpoint()),
        &["cut short after", &format!("of {} bytes", checkpoint().len() + 1000)],
    );
    refused(|| Reply::File(b"<html>please log in</html>".to_vec()), &["yolov9t.pt"]);
    refused(|| Reply::File(Vec::new()), &["yolov9t.pt"]);
    refused(|| Reply::File(checkpoint()[..100].to_vec()), &["yolov9t.pt"]);
    refused(|| Reply::Length(u64::MAX / 2), &["more than the"]);
}

#[test]
fn the_password_of_a_mirror_is_not_told() {
    let place = Place::new();
    let server = Server::start(|path| match path {
        "a/yolov9t.pt" => Reply::File(checkpoint()),
        "a/yolov9s.pt" => Reply::File(b"no model".to_vec()),
        "a/yolov8n.pt" => Reply::File(b"another one".to_vec()),
        _ => Reply::Status(403),
    });
    let mirror = server.url("a").replace("http://", "http://me:secret@");
    let bare = mirror.trim_start_matches("http://");
    for (name, assets) in [
        ("yolov9t", &*mirror),
        ("yolov9s", &mirror),
        ("yolov8n", &mirror),
        ("yolov9c", &mirror),
        ("yolov9e", bare),
        ("yolov9m", "me:secret@ no URL"),
    ] {
        let run = fetch(&place, name, assets).expect(1);
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
        assert!(run.stderr.contains("me:***@"), "{}", run.stderr);
    }
    let command = place.online(&["predict", "-m", "yolo11n", "--offline"], &mirror);
    let run = place.finish(command).expect(1).says(&["http://me:***@"]);
    assert!(!run.stderr.contains("secret"), "{}", run.stderr);
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let place = Place::new();
    let server = Server::start(|path| match path {
        "a/yolov9t.pt" => Reply::Redirect("/b/file?token=1".into()),
        "b/file?token=1" => Reply::File(checkpoint()),
        _ => Reply::Redirect("/round".into()),
    });
    fetch(&place, "yolov9t", &server.url("a")).expect(1).says(&["saved"]);
    let run = fetch(&place, "yolov9s", &server.url("a")).expect(1);
    run.says(&["yolov9s.pt: can't fetch", "redirect"]);
}

#[test]
fn silence_is_not_waited_for() {
    for reply in [|| Reply::Silence, || Reply::Stall(b"PK".to_vec())] {
        let place = Place::new();
        let server = Server::start(move |_| reply());
        let mut command = place.online(&["predict", "-m", "yolov9t"], &server.url("a"));
        command.env("FERROYOLO_TIMEOUT", "0.3");
        let run = place.finish(command).expect(1);
        run.says(&["no answer for 0.3 s", "put it into"]);
        assert_eq!(place.files("cache"), [".yolov9t.pt.lock"]);
    }
    let place = Place::new();
    for bad in ["soon", "-1", "0", "inf", "nan"] {
        let mut command = place.online(&["predict", "-m", "yolov9t"], "http://127.0.0.1:1");
        command.env("FERROYOLO_TIMEOUT", bad);
        place.finish(command).expect(2).says(&["FERROYOLO_TIMEOUT", bad]);
    }
}

#[test]
fn without_the_network_it_says_where_the_file_is_to_be_had() {
    let place = Place::new();
    let gone = serving(checkpoint()).url("a");
    let advice = ["download ", "AGPL-3.0", "put it into", "cache"];
    fetch(&place, "yolo11n", &gone).expect(1).says(&advice).says(&["can't fetch"]);
    fetch(&place, "yolo11n", "http://host.invalid").expect(1).says(&advice).says(&["can't fetch"]);
    fetch(&place, "yolo11n", "nonsense").expect(1).says(&advice);
    // Asked not to, it does not even try.
    let server = serving(checkpoint());
    let mut command = place.online(&["predict", "-m", "yolo11n", "--offline"], &server.url("a"));
    place.finish(command).expect(1).says(&advice).says(&["--offline"]);
    command = place.online(&["bench", "-m", "yolo11n"], &server.url("a"));
    command.env("FERROYOLO_OFFLINE", "1");
    place.finish(command).expect(1).says(&advice);
    assert!(server.asked().is_empty());
    // Its publisher is named where nothing else is set.
    let run = place.run(&["predict", "-m", "yolo11n"]).expect(1);
    run.says(&["https://github.com/ultralytics/assets/releases/download/", "/yolo11n.pt"]);
}

#[test]
fn of_two_processes_one_fetches() {
    let place = Place::new();
    let (release, held) = channel::<()>();
    let (began, asked) = channel();
    let held = Mutex::new(Some(held));
    let server = Server::start(move |_| {
        began.send(()).expect("the test listens");
        match held.lock().expect("a channel").take() {
            Some(held) => Reply::After(held, checkpoint()),
            None => Reply::Status(500),
        }
    });
    let start = || {
        let mut command = place.online(&["predict", "-m", "yolov9t"], &server.url("a"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    };
    let first = start();
    asked.recv().expect("a request");
    let mut second = start();
    let mut stderr = BufReader::new(second.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.contains("another process fetches it"), "{line}");
    drop(release);
    // Both then find that it holds no network.
    let first = finish(first.wait_with_output().expect("the first ends")).expect(1);
    assert!(first.stderr.contains("saved"), "{}", first.stderr);
    let rest: Vec<_> = stderr.lines().map(|line| line.expect("text")).collect();
    assert_eq!(second.wait().expect("the second ends").code(), Some(1), "{rest:?}");
    assert_eq!(first.stderr.lines().last().map(str::to_owned), rest.last().cloned());
    assert_eq!(server.asked().len(), 1);
    assert_eq!(place.files("cache"), [".yolov9t.pt.lock", "yolov9t.pt", "yolov9t.pt.sha256"]);
}
