//! Puts known defects into a copy of this crate, one at a time, and shows that the test named for each fails:
//!
//! ```text
//! cargo run -p ferroyolo-concurrency --example kill_matrix [-- NAME...]
//! ```
//!
//! First the same tests have to pass without a defect. Prints a table and exits with 1 if a defect survives. With names
//! only those defects are tried. The copy and what is built of it stay in `kill-matrix` below cargo's target folder, so
//! that a second run is fast; nothing is fetched.

#![forbid(unsafe_code)]

#[path = "../../mutants/mod.rs"]
mod mutants;
mod workspace;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use mutants::{Mutant, Suite};
use workspace::{Verdict, Workspace};

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the matrix and returns how many defects survived.
fn run(names: &[String]) -> Result<usize, String> {
    let mut chosen: Vec<Mutant> = mutants::all();
    if let Some(unknown) = names.iter().find(|name| chosen.iter().all(|mutant| mutant.name != **name)) {
        return Err(format!("no mutant is called {unknown}"));
    }
    chosen.retain(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name));
    chosen.sort_by_key(|mutant| mutant.suite);
    let start = Instant::now();
    let workspace = Workspace::new()?;
    for suite in [Suite::Loom, Suite::Shuttle, Suite::Unit] {
        let tests: BTreeSet<&str> =
            chosen.iter().filter(|mutant| mutant.suite == suite).map(|mutant| mutant.killed_by).collect();
        if !tests.is_empty() {
            eprintln!("building the {suite:?} tests without a defect");
            let program = workspace.build(suite)?;
            for test in tests {
                match workspace.run(&program, test)? {
                    Verdict::Passed => {}
                    other => return Err(format!("{test} without a defect: {other}")),
                }
            }
        }
    }
    println!("| mutant | what it breaks | test | what the test says | s |\n|---|---|---|---|---|");
    let mut survivors = Vec::new();
    for mutant in &chosen {
        let start = Instant::now();
        let verdict = try_out(&workspace, mutant).map_err(|error| format!("{}: {error}", mutant.name))?;
        if !matches!(verdict, Verdict::Failed(_)) {
            survivors.push(mutant.name);
        }
        let test = mutant.killed_by.rsplit("::").next().unwrap_or(mutant.killed_by);
        let seconds = start.elapsed().as_secs_f64();
        println!("| {} | {} | {test} | {verdict} | {seconds:.1} |", mutant.name, mutant.breaks);
    }
    let n_killed = chosen.len() - survivors.len();
    println!("\n{n_killed} of {} mutants killed in {:.0} s", chosen.len(), start.elapsed().as_secs_f64());
    if !survivors.is_empty() {
        println!("survivors: {}", survivors.join(", "));
    }
    Ok(survivors.len())
}

/// Builds the copy with the defect and runs the test that it must fail.
fn try_out(workspace: &Workspace, mutant: &Mutant) -> Result<Verdict, String> {
    let original = workspace.read(mutant.file)?;
    let n_found = original.matches(mutant.find).count();
    if n_found != 1 {
        return Err(format!("the text to replace occurs {n_found} times in {}", mutant.file));
    }
    workspace.write(mutant.file, &original.replacen(mutant.find, mutant.replace, 1))?;
    let verdict = workspace.build(mutant.suite).and_then(|program| workspace.run(&program, mutant.killed_by));
    workspace.write(mutant.file, &original)?;
    verdict
}
