//! `--policy` and `--workers`: the same results in the same order, whoever finds them, and an end in order.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Place, assert_gone, children_of, demo, signal};

const POLICIES: [&str; 5] = ["shared", "locked", "per-thread", "pool", "process"];

/// What a run found, without what differs from run to run.
fn found(lines: Vec<Value>) -> Vec<Value> {
    let without_speed = |mut line: Value| {
        line.as_object_mut().expect("an object").remove("speed_ms");
        line
    };
    lines.into_iter().map(without_speed).collect()
}

/// Pictures of several sizes, with one among them that is none.
fn mixed(place: &Place) {
    for (idx, (width, height)) in
        [(320, 240), (64, 200), (500, 90), (320, 240), (33, 47), (128, 128)].iter().enumerate()
    {
        place.picture(&format!("in/{idx}.png"), *width, *height);
    }
    place.write("in/2b.jpg", b"no picture");
}

#[test]
fn every_policy_finds_the_same_in_the_same_order() {
    let place = Place::new();
    mixed(&place);
    let predict = ["predict", "-s", "in", "--conf", "0.05", "--json", "-"];
    let serial = found(place.run(&predict).expect(1).says(&["2b.jpg"]).json_lines());
    assert_eq!(serial.len(), 7);
    assert!(serial.iter().any(|line| line["results"].as_array().is_some_and(|boxes| !boxes.is_empty())));
    for policy in POLICIES {
        for (workers, batch) in [("1", "1"), ("3", "1"), ("2", "4")] {
            let flags = ["--policy", policy, "--workers", workers, "--batch", batch];
            let run = place.run(&[&predict[..], &flags].concat()).expect(1);
            // A batch of one size only is not padded to the square, so batches are compared with batches.
            let expected = match batch {
                "1" => serial.clone(),
                _ => found(place.run(&[&predict[..], &["--batch", batch]].concat()).expect(1).json_lines()),
            };
            assert_eq!(found(run.json_lines()), expected, "{flags:?}");
        }
    }
}

#[test]
fn processes_save_what_threads_save() {
    let place = Place::new();
    mixed(&place);
    let save = |policy, to| {
        let flags = ["--policy", policy, "--workers", "2", "--save", to, "--save-txt", "--save-crop"];
        place.run(&[&["predict", "-s", "in", "--conf", "0.05"][..], &flags].concat()).expect(1);
        place.files(to)
    };
    let names = save("shared", "threads");
    assert_eq!(names, save("process", "processes"));
    assert!(names.contains(&"0.png".to_owned()) && names.contains(&"labels/5.txt".to_owned()), "{names:?}");
    for name in &names {
        let read = |from: &str| std::fs::read(place.path(from).join(name)).expect("a file");
        assert!(read("threads") == read("processes"), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_is_killed_costs_no_picture() {
    let place = Place::new();
    place.picture("a.png", 320, 240);
    let mut run = Fed::start(&place, &["--policy", "process", "--workers", "1"]);
    let before = run.ask("a.png");
    let [worker] = run.workers()[..] else { panic!("one worker was asked for") };
    signal("KILL", worker);
    assert_eq!(before, run.ask("a.png"));
    run.end(0);
}

#[cfg(target_os = "linux")]
#[test]
fn the_first_signal_drains_and_leaves_no_process() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        for policy in ["pool", "process"] {
            let place = Place::new();
            place.picture("a.png", 320, 240);
            let mut run = Fed::start(&place, &["--policy", policy, "--workers", "2"]);
            run.ask("a.png");
            // One worker has answered; the other may still be on its way.
            let expected = if policy == "process" { 2 } else { 0 };
            while run.workers().len() < expected {
                std::thread::yield_now();
            }
            let workers = run.workers();
            assert_eq!(workers.len(), expected, "{policy}");
            signal(name, run.child.id());
            // Its standard input stays open: it is the signal that ends it.
            let stderr = run.wait(&[code]);
            assert!(stderr.contains("stopped by a signal: 1 image(s) done"), "{stderr}");
            assert_gone(&workers);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_signal_ends_at_once_and_leaves_no_process() {
    for policy in ["pool", "process"] {
        let place = Place::new();
        // Each takes far longer than two signals do, and when the first is told the next ones are on their way.
        place.picture("large.png", 2000, 2000);
        let mut run = Fed::start(&place, &["--policy", policy, "--workers", "1", "--imgsz", "3072"]);
        (0..5).for_each(|_| run.say("large.png"));
        run.hear();
        let workers = run.workers();
        // Two of a kind could become one on a busy machine.
        signal("INT", run.child.id());
        signal("TERM", run.child.id());
        let stderr = run.wait(&[130, 143]);
        assert!(!stderr.contains("stopped by a signal"), "{policy}: it drained:\n{stderr}");
        assert_gone(&workers);
    }
}

#[test]
fn a_worker_that_nobody_started_says_so() {
    Place::new().run(&["worker"]).expect(1).says(&["not started by a pool"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_workers_cannot_load_is_told() {
    let place = Place::new();
    place.picture("a.png", 320, 240);
    place.write("a.safetensors", &demo());
    let mut run = Fed::start(&place, &["-m", "a.safetensors", "--policy", "process", "--workers", "1"]);
    assert!(run.ask("a.png")["results"].is_array());
    place.write("a.safetensors", b"no model");
    signal("KILL", run.workers()[0]);
    let line = run.ask("a.png");
    let error = line["error"].as_str().expect("an error");
    assert!(error.contains("could not take jobs") && error.contains("a.safetensors"), "{error}");
    run.end(1);
}

#[test]
fn policies_are_compared() {
    let place = Place::new();
    let flags = ["--imgsz", "64", "--runs", "2", "--warmup", "1", "--workers", "2", "--json", "-"];
    let run =
        place.run(&[&["bench", "--policies=shared,process,separate-models"][..], &flags].concat()).expect(0);
    let [report] = &run.json_lines()[..] else { panic!("{}", run.stdout) };
    let rows = report["policies"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["policy"].as_str()).collect();
    assert_eq!(names, ["shared", "process", "separate-models"]);
    for row in rows {
        for figure in
            [&row["images_per_second"], &row["speedup"], &row["latency_ms"]["p99"], &row["alone_ms"]["p50"]]
        {
            assert!(figure.as_f64().is_some_and(|figure| figure > 0.0), "{row}");
        }
        if cfg!(target_os = "linux") {
            assert!(row["peak_rss_bytes"].as_u64() > Some(1 << 20), "{row}");
            assert!(row["further_worker_bytes"].is_i64(), "{row}");
        }
    }
    place.run(&["bench", "--policies=fast"]).expect(2).says(&["fast", "separate-models"]);
}

/// A run that takes paths from stdin, one by one.
struct Fed {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Fed {
    fn start(place: &Place, flags: &[&str]) -> Fed {
        let mut command = place.command(&["predict", "-s", "-", "--json", "-"]);
        command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("a pipe");
        Fed { child, lines: BufReader::new(stdout).lines() }
    }

    fn say(&mut self, path: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{path}").expect("the binary reads its input");
    }

    /// Waits for the line about `path`; answers come before the next question.
    fn ask(&mut self, path: &str) -> Value {
        self.say(path);
        self.hear()
    }

    /// Waits for the next line.
    fn hear(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        found(vec![line]).remove(0)
    }

    /// Processes that it started.
    fn workers(&self) -> Vec<u32> {
        children_of(self.child.id())
    }

    /// Ends its input and waits for it.
    fn end(mut self, code: i32) {
        drop(self.child.stdin.take());
        assert!(self.lines.next().is_none());
        self.wait(&[code]);
    }

    /// Waits for it, with its input still open if it is, and returns what it said on stderr.
    fn wait(mut self, codes: &[i32]) -> String {
        let _stdin = self.child.stdin.take();
        let output = self.child.wait_with_output().expect("the binary ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(
            output.status.code().is_some_and(|code| codes.contains(&code)),
            "{}\n{stderr}",
            output.status
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }
}
