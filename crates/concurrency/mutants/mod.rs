//! The kill matrix: defects that are put into a copy of this crate one at a time, and the test that each must fail.
//!
//! A suite that passes proves little unless it fails when the code is wrong. `examples/kill_matrix.rs` runs the matrix,
//! and `tests/mutants.rs` holds the list to the code.

mod locks;
mod process;
mod queue;

/// A defect, made by replacing text.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Short name, by which one can be chosen on the command line.
    pub name: &'static str,
    /// What no longer holds.
    pub breaks: &'static str,
    /// The file, from the crate's root.
    pub file: &'static str,
    /// Text that occurs exactly once in the file.
    pub find: &'static str,
    /// What it becomes.
    pub replace: &'static str,
    /// What the killing test needs.
    pub suite: Suite,
    /// The test that fails with the defect, by its full name.
    pub killed_by: &'static str,
}

/// What a test is run by, in the order in which suites are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// All interleavings up to a bound.
    Loom,
    /// Interleavings drawn at random.
    Shuttle,
    /// The crate's ordinary unit tests.
    Unit,
}

/// All defects of the matrix.
pub fn all() -> Vec<Mutant> {
    [locks::MUTANTS, queue::MUTANTS, process::MUTANTS].concat()
}
