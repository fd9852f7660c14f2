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

    /// The command, to be run in this directory without the user's own settings and without the network.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferroyolo"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("FERROYOLO_CACHE", self.path("cache")).env("FERROYOLO_OFFLINE", "1");
        for name in ["NO_COLOR", "FERROYOLO_TIMEOUT", "FERROYOLO_ASSETS_URL"] {
            command.env_remove(name);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.finish(self.command(args))
    }

    /// The command with the network, and `assets` in place of the publishers of models.
    pub fn online(&self, args: &[&str], assets: &str) -> Command {
        let mut command = self.command(args);
        command.env_remove("FERROYOLO_OFFLINE").env("FERROYOLO_ASSETS_URL", assets);
        command
    }

    /// Runs `command` to its end.
    pub fn finish(&self, mut command: Command) -> Run {
        finish(command.output().expect("the binary runs"))
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

/// What a run gave.
pub fn finish(output: std::process::Output) -> Run {
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

/// A zip as PyTorch writes it, with `x/data.pkl`, `x/byteorder` and `x/version`.
pub fn in_zip(pickle: &[u8]) -> Vec<u8> {
    let mut zip = Vec::new();
    let mut directory = Vec::new();
    let entries: [(&str, &[u8]); 3] =
        [("x/data.pkl", pickle), ("x/byteorder", b"little"), ("x/version", b"3\n")];
    for (name, data) in entries {
        let offset = zip.len() as u32;
        let mut common = Vec::new();
        common.extend([20u16, 0, 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        for value in [crc32(data), data.len() as u32, data.len() as u32] {
            common.extend(value.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        zip.extend(b"PK\x03\x04");
        zip.extend(&common);
        zip.extend(name.as_bytes());
        zip.extend(data);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let offset = zip.len() as u32;
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0\x03\0\x03\0");
    zip.extend((directory.len() as u32).to_le_bytes());
    zip.extend(offset.to_le_bytes());
    zip.extend([0; 2]);
    zip
}

/// The checksum of a zip's entries.
pub fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// Sends a signal to a process.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill");
    assert!(status.success());
}

/// Waits until none of the processes is left. The test's own time limit is the limit.
pub fn assert_gone(pids: &[u32]) {
    let is_there = |pid: &u32| std::fs::exists(format!("/proc/{pid}")).expect("/proc");
    while pids.iter().any(is_there) {
        std::thread::yield_now();
    }
}

/// The processes that a process has started.
pub fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let children = tasks.map(|task| {
        let path = task.expect("a thread").path().join("children");
        // A thread may have ended since.
        std::fs::read_to_string(path).unwrap_or_default()
    });
    children
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .map(|pid| pid.parse().expect("a number"))
        .collect()
}
