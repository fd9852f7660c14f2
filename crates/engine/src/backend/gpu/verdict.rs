//! Whether the matrix units of an adapter compute right, as this process finds or an earlier one has found.
//!
//! Both answers are kept. Who has tried once need not wait again, and a driver that hangs or loses its device does so
//! once, not in each process. What may have been an accident, as a lack of memory, is not kept. Another driver, another
//! version of this program and other shaders are other questions.

use std::path::{Path, PathBuf};

use ferroyolo_shaders::{Element, Lanes, SHADERS};

use super::kept::{Kept, whose};
use super::matrix::MatrixUnits;
use crate::error::Result;

/// How answers are written down. What is neither is no answer.
const RIGHT: &str = "right";
const REFUSED: &str = "refused: ";

/// Why matrix units are not used.
#[derive(Debug)]
pub(super) struct Refusal {
    pub why: String,
    /// Whether it would be the same the next time.
    pub is_lasting: bool,
}

/// What is known of the matrix units of an adapter.
#[derive(Debug)]
pub(super) struct Verdict {
    kept: Kept,
    folder: Option<PathBuf>,
    question: String,
}

impl Verdict {
    /// With what `folder` keeps of these matrix units.
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        units: MatrixUnits,
        element: Element,
        folder: Option<&Path>,
    ) -> Self {
        // The check itself is a part of the question, and how shaders are cut and compiled, as are all shaders: it runs the
        // plain ones, too.
        let mut asked = concat!(
            env!("CARGO_PKG_VERSION"),
            include_str!("known_answer.rs"),
            include_str!("matrix.rs"),
            include_str!("trust.rs")
        )
        .to_owned();
        asked.extend(SHADERS.iter().map(|shader| shader.wgsl(element, Lanes::Four)));
        let MatrixUnits { shader, subgroup: [least, most] } = units;
        let side = shader.matrix.map_or(0, ferroyolo_shaders::Matrix::side);
        let question = format!("matrices of {side} in subgroups of {least} to {most}");
        Self::of(Kept::new("gpu-matrix-units", whose(info, element), &asked), question, folder)
    }

    fn of(mut kept: Kept, question: String, folder: Option<&Path>) -> Self {
        if let Some(folder) = folder {
            kept.read(folder);
        }
        Self { kept, folder: folder.map(Path::to_owned), question }
    }

    /// Opens a device by `open`, and has `check` look whether it computes right unless that is known. A device that is
    /// known to fail is not opened. Errors with the reason why the matrix units can't be used.
    pub(super) fn apply<T>(
        mut self,
        open: impl FnOnce() -> Result<T>,
        check: impl FnOnce(&T) -> std::result::Result<(), Refusal>,
    ) -> std::result::Result<T, String> {
        let known = self.kept.get(&self.question);
        if let Some(why) = known.and_then(|answer| answer.strip_prefix(REFUSED)) {
            let file = self.folder.unwrap_or_default().join(self.kept.file_name());
            return Err(format!("{why}, as was found before ({}; delete it to try again)", file.display()));
        }
        let is_known = known == Some(RIGHT);
        let opened = open().map_err(|error| format!("with cooperative matrices, {error}"))?;
        if is_known {
            return Ok(opened);
        }
        match check(&opened) {
            Ok(()) => {
                self.keep(RIGHT.to_owned());
                Ok(opened)
            }
            Err(Refusal { why, is_lasting }) => {
                if is_lasting {
                    self.keep(format!("{REFUSED}{why}"));
                }
                Err(why)
            }
        }
    }

    fn keep(&mut self, answer: String) {
        self.kept.put(self.question.clone(), answer);
        if let Some(folder) = &self.folder {
            // Only the next process would be faster.
            let _ = self.kept.write(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::backend::gpu::device::{Gpu, Opening};
    use crate::backend::gpu::for_tests;
    use crate::error::Error;

    type Checked = std::result::Result<(), Refusal>;

    fn refused(why: &str, is_lasting: bool) -> Checked {
        Err(Refusal { why: why.into(), is_lasting })
    }

    fn verdict(adapter: &str, folder: &Path) -> Verdict {
        Verdict::of(Kept::new("test", adapter.into(), "shaders"), "units".into(), Some(folder))
    }

    /// What comes of it, and how often a device was opened and checked, if a check says `answer`.
    fn applied(verdict: Verdict, answer: Checked) -> (std::result::Result<(), String>, [u32; 2]) {
        let counts = [const { Cell::new(0) }; 2];
        let count = |idx: usize| counts[idx].set(counts[idx].get() + 1);
        let open = || {
            count(0);
            Ok(())
        };
        let check = |(): &()| {
            count(1);
            answer
        };
        (verdict.apply(open, check), counts.map(|count| count.get()))
    }

    #[test]
    fn the_second_process_does_not_check_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let apply = |adapter| applied(verdict(adapter, folder.path()), Ok(()));
        assert_eq!(apply("one"), (Ok(()), [1, 1]));
        assert_eq!(apply("one"), (Ok(()), [1, 0]));
        // Another driver, or another question.
        assert_eq!(apply("two"), (Ok(()), [1, 1]));
        let other = Verdict { question: "other units".into(), ..verdict("one", folder.path()) };
        assert_eq!(applied(other, Ok(())), (Ok(()), [1, 1]));
        let nowhere = || Verdict { folder: None, ..verdict("three", folder.path()) };
        assert_eq!(applied(nowhere(), Ok(())), (Ok(()), [1, 1]));
        assert_eq!(applied(nowhere(), Ok(())), (Ok(()), [1, 1]));
    }

    #[test]
    fn what_failed_is_not_opened_again_unless_it_was_an_accident() {
        let folder = tempfile::tempdir().expect("a folder");
        let apply = |answer| applied(verdict("one", folder.path()), answer);
        assert_eq!(apply(refused("no memory", false)), (Err("no memory".into()), [1, 1]));
        assert_eq!(apply(refused("they compute wrong", true)), (Err("they compute wrong".into()), [1, 1]));
        let (result, counts) = apply(Ok(()));
        assert_eq!(counts, [0, 0]);
        let why = result.expect_err("it is known");
        let file = folder.path().join(verdict("one", folder.path()).kept.file_name());
        assert!(why.starts_with("they compute wrong, as was found before"), "{why}");
        assert!(why.contains(&file.display().to_string()), "{why}");
        fs::remove_file(file).expect("the file that was told");
        assert_eq!(apply(Ok(())), (Ok(()), [1, 1]));
    }

    #[test]
    fn devices_that_can_not_be_opened_are_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let open = || Err::<(), _>(Error::device("gpu", "could not be opened"));
            let why = verdict("one", folder.path()).apply(open, |()| panic!("there is no device"));
            assert_eq!(why, Err("with cooperative matrices, gpu: could not be opened".into()));
        }
    }

    #[test]
    fn spoilt_files_are_no_answers() {
        let folder = tempfile::tempdir().expect("a folder");
        let apply = || applied(verdict("one", folder.path()), Ok(()));
        apply().0.expect("it computes right");
        let file = folder.path().join(verdict("one", folder.path()).kept.file_name());
        let whole = fs::read_to_string(&file).expect("the file");
        for bad in [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("\"right\"", "\"rught\""),
            whole.replace("\"right\"", "true"),
            whole.replace("\"one\"", "\"two\""),
        ] {
            assert_ne!(bad, whole);
            fs::write(&file, &bad).expect("a file");
            assert_eq!(apply(), (Ok(()), [1, 1]), "{bad}");
            assert_eq!(fs::read_to_string(&file).expect("the file"), whole);
            assert_eq!(apply(), (Ok(()), [1, 0]));
        }
    }

    #[test]
    fn a_device_with_matrix_units_is_checked_once() {
        let Some(gpu) = for_tests(Element::F16) else { return };
        if let Some(why) = gpu.matrix_refusal() {
            eprintln!("skipped on matrix units: {}: {why}", gpu.adapter().name);
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let opening = Opening { cache: Some(folder.path()), ..Opening::default() };
            let gpu = Gpu::open(Some(gpu.adapter().index), Element::F16, &opening).expect("a device");
            assert_eq!(gpu.matrix_refusal(), None);
            gpu.n_made()
        };
        assert!(open() > 0);
        assert_eq!(open(), 0, "buffers or pipelines of a check");
    }
}
