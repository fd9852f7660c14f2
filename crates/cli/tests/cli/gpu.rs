//! Networks on a graphics processor by the command line.

use crate::support::Place;

/// The number of an adapter that can be used, as `devices` lists it; `None` after saying that a test is skipped.
fn adapter(test: &str) -> Option<String> {
    let listed = Place::new().run(&["devices"]).expect(0).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    let found = lines.iter().enumerate().find_map(|(idx, line)| {
        let (number, _) = line.strip_prefix("gpu:")?.split_once(' ')?;
        lines.get(idx + 2)?.contains("precisions: f32").then(|| format!("gpu:{number}"))
    });
    if found.is_none() {
        let is_ci = std::env::var("CI").is_ok_and(|got| got == "true");
        assert!(!is_ci, "{test}: CI has to have a Vulkan device: {listed}");
        eprintln!("skipped: {test}: no adapter; Debian's mesa-vulkan-drivers have one");
    }
    found
}

#[test]
fn the_annotated_picture_is_that_of_the_cpu() {
    let Some(gpu) = adapter("the_annotated_picture_is_that_of_the_cpu") else { return };
    let place = Place::new();
    place.run(&["predict", "--device", "cpu", "--save", "cpu"]).expect(0);
    place.run(&["predict", "--device", &gpu, "--save", "gpu"]).expect(0);
    let read = |folder: &str| {
        let path = place.path(folder).join("sample.png");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(read("cpu") == read("gpu"), "the pictures differ");
}

#[test]
fn bench_checks_the_device() {
    let Some(gpu) = adapter("bench_checks_the_device") else { return };
    let quick = ["bench", "--imgsz", "64,96", "--runs", "1", "--warmup", "0", "--check", "--json", "-"];
    let run = Place::new().run(&[&quick[..], &["--device", &gpu]].concat()).expect(0);
    assert!(run.stderr.contains("raw outputs agree with the CPU's"), "{}", run.stderr);
    assert_eq!(run.json_lines()[0]["device"], "gpu");
}
