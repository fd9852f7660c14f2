//! Runs the binary, makes pictures, finds files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The run, which must have ended with `code`, and without a panic.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// The lines of stdout as JSON objects.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The run, whose stderr must hold each of `texts`.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
        self
    }
}

/// A directory to run in, which goes away with the test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// A picture with a few coloured shapes on it, in the format of its extension.
    pub fn picture(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        drawn(width, height).save(&path).expect("a picture");
        path
    }

    /// The command, to be run in this directory without the user's own settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferroyolo"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("FERROYOLO_CACHE", self.path("cache")).env_remove("NO_COLOR");
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args).output().expect("the binary runs"))
    }

    /// Runs with `input` on stdin.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input).expect("the binary reads its input");
        drop(stdin);
        finish(child.wait_with_output().expect("the binary runs"))
    }

    /// The names of the files below `name`, sorted.
    pub fn files(&self, name: &str) -> Vec<String> {
        fn walk(directory: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in
                std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"))
            {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    found.push(path.strip_prefix(root).expect("below the root").display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(name), &self.path(name), &mut found);
        found.sort();
        found
    }
}

fn finish(output: std::process::Output) -> Run {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A gray picture with a red disc and a blue square.
pub fn drawn(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        if (u - 0.3).hypot(v - 0.3) < 0.18 {
            image::Rgb([220, 40, 30])
        } else if (0.55..0.9).contains(&u) && (0.5..0.85).contains(&v) {
            image::Rgb([20, 60, 200])
        } else {
            image::Rgb([150, 150, 150])
        }
    })
}

/// The model that is built in, as bytes.
pub fn demo() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.safetensors"))
        .expect("the built-in model")
}

/// The picture that is built in, as bytes.
pub fn sample() -> &'static [u8] {
    include_bytes!("../../assets/sample.png")
}

/// A file of the workspace.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The directory of large test files, `$FERROYOLO_SHARED` or `shared` beside the workspace.
///
/// `None` if it is absent, which is told on stderr, and is a failure where it must be there.
pub fn shared() -> Option<PathBuf> {
    let directory =
        std::env::var_os("FERROYOLO_SHARED").map_or_else(|| workspace("../shared"), PathBuf::from);
    if directory.is_dir() {
        return Some(directory);
    }
    let set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    assert!(
        !set("CI", "true") && !set("FERROYOLO_REQUIRE_SHARED", "1"),
        "{} is missing",
        directory.display()
    );
    eprintln!("skipped: {} not found", directory.display());
    None
}

/// `path` as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
