//! The kill matrix' list fits the code: each defect can be put in, and each test that must find it exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "../mutants/mod.rs"]
mod mutants;

use mutants::{Mutant, Suite};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_text_to_replace_occurs_once() {
    for Mutant { name, file, find, replace, .. } in mutants::all() {
        assert_eq!(read(file).matches(find).count(), 1, "{name}: text in {file}: {find:?}");
        assert_ne!(find, replace, "{name} changes nothing");
    }
}

#[test]
fn every_killing_test_exists() {
    for Mutant { name, suite, killed_by, .. } in mutants::all() {
        let (modules, test) = killed_by.rsplit_once("::").expect("a test's full name");
        // Models of one file stand in modules of it, `loom` and `shuttle`; other tests in `tests`.
        let file =
            modules.trim_end_matches("::loom").trim_end_matches("::shuttle").trim_end_matches("::tests");
        let file = file.replace("::", "/");
        let places = [format!("src/{file}.rs"), format!("src/{file}/mod.rs"), format!("src/{file}/tests.rs")];
        let is_there = |path: &String| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file();
        let found = places
            .iter()
            .filter(|path| is_there(path))
            .any(|path| read(path).contains(&format!("fn {test}()")));
        assert!(found, "{name}: no {test} in any of {places:?}");
        let is_model = test.starts_with("loom_") || test.starts_with("shuttle_");
        assert_eq!(is_model, suite != Suite::Unit, "{name}: {killed_by} in {suite:?}");
    }
}

#[test]
fn there_are_enough_and_names_are_told_apart() {
    let all = mutants::all();
    let names: BTreeSet<&str> = all.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), all.len(), "two of the same name");
    assert!(all.len() >= 15, "{} mutants", all.len());
    assert!(all.iter().all(|mutant| !mutant.breaks.is_empty()));
}
