//! A copy of the crate that defects can be put into, in a workspace of its own.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutants::Suite;

/// How long a test may run. One that goes on for longer has not shown a defect.
const MAX_RUN: Duration = Duration::from_secs(180);

/// What a test made of the code.
pub enum Verdict {
    Passed,
    /// With the first line of what it says.
    Failed(String),
    /// It was stopped after [`MAX_RUN`].
    Endless,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => f.write_str("SURVIVES: the test passes"),
            Verdict::Failed(message) => f.write_str(message),
            Verdict::Endless => write!(f, "SURVIVES: no end after {} s", MAX_RUN.as_secs()),
        }
    }
}

/// The copy, and where it is built.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Copies the crate, and writes a manifest that takes everything else from the repository.
    pub fn new() -> Result<Workspace, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repository = source.ancestors().nth(2).ok_or("the crate is not in its repository")?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| repository.join("target"), |target| repository.join(target));
        let target = target.join("kill-matrix");
        let root = target.join("copy");
        let workspace = Workspace { root, target };
        if workspace.root.exists() {
            fs::remove_dir_all(&workspace.root).map_err(|error| at(&workspace.root, &error))?;
        }
        copy_folder(&source.join("src"), &workspace.own("src"))?;
        copy_file(&source.join("Cargo.toml"), &workspace.own("Cargo.toml"))?;
        // The manifest names some of these, and cargo looks for them whatever it builds.
        copy_folder(&source.join("examples"), &workspace.own("examples"))?;
        copy_folder(&source.join("tests"), &workspace.own("tests"))?;
        for file in ["Cargo.lock", "rust-toolchain.toml"] {
            copy_file(&repository.join(file), &workspace.root.join(file))?;
        }
        let manifest = read(&repository.join("Cargo.toml"))?;
        write(&workspace.root.join("Cargo.toml"), &own_manifest(&manifest, repository)?)?;
        Ok(workspace)
    }

    /// The text of a file, by its path from the crate's root.
    pub fn read(&self, file: &str) -> Result<String, String> {
        read(&self.own(file))
    }

    /// Changes a file, by its path from the crate's root.
    pub fn write(&self, file: &str, text: &str) -> Result<(), String> {
        write(&self.own(file), text)
    }

    /// Builds a suite's tests and returns the program.
    pub fn build(&self, suite: Suite) -> Result<PathBuf, String> {
        let (folder, flags) = match suite {
            Suite::Loom => ("loom", "--cfg ferroyolo_loom"),
            Suite::Shuttle => ("shuttle", "--cfg ferroyolo_shuttle"),
            Suite::Unit => ("unit", ""),
        };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["test", "--no-run", "--offline", "--release", "--lib", "-p", "ferroyolo-concurrency"]);
        cargo.arg("--target-dir").arg(self.target.join(folder));
        // Linking in one go and from scratch takes longer than the tests.
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        cargo.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true").env_remove("CARGO_INCREMENTAL");
        cargo.env("RUSTFLAGS", flags).env("CARGO_TERM_COLOR", "never").current_dir(&self.root);
        let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
        let messages = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("the tests do not build:\n{messages}"));
        }
        // `Executable unittests src/lib.rs (path)`
        let program = messages
            .lines()
            .filter(|line| line.trim_start().starts_with("Executable"))
            .find_map(|line| Some(line.rsplit_once('(')?.1.strip_suffix(')')?.to_owned()))
            .ok_or_else(|| format!("cargo names no test program:\n{messages}"))?;
        Ok(self.root.join(program))
    }

    /// Runs one test of a program, by its full name.
    pub fn run(&self, program: &Path, test: &str) -> Result<Verdict, String> {
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let is_setting = name.to_str().is_some_and(|name| {
                name.starts_with("LOOM_") || name.starts_with("SHUTTLE_") || name.starts_with("FERROYOLO_")
            });
            if is_setting {
                command.env_remove(name);
            }
        }
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| at(program, &error))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let status = wait(&mut child).map_err(|error| at(program, &error))?;
        let text =
            |reader: thread::JoinHandle<String>| reader.join().map_err(|_| "a reader panicked".to_owned());
        let (stdout, stderr) = (text(stdout)?, text(stderr)?);
        match status {
            None => Ok(Verdict::Endless),
            Some(status) if !status.success() => Ok(Verdict::Failed(message(&stderr))),
            Some(_) if stdout.contains("1 passed") => Ok(Verdict::Passed),
            Some(_) => Err(format!("there is no test {test}:\n{stdout}")),
        }
    }

    fn own(&self, file: &str) -> PathBuf {
        self.root.join("crates/concurrency").join(file)
    }
}

/// Waits for the end, or makes one after [`MAX_RUN`].
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > MAX_RUN {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads to the end, in a thread of its own, so that the program never waits for us.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is worth having.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The first line that a panic said, cut to fit a table.
fn message(stderr: &str) -> String {
    let mut lines = stderr.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let line = lines.next().or_else(|| stderr.lines().next_back()).unwrap_or("fails without a word");
    let line: String = line.trim().chars().take(80).collect();
    line.replace('|', "/")
}

/// The repository's manifest with this crate as only member; paths of other crates lead to the repository.
fn own_manifest(manifest: &str, repository: &Path) -> Result<String, String> {
    let mut out = String::new();
    let mut has_members = false;
    for line in manifest.lines() {
        if line.starts_with("members =") {
            has_members = true;
            out.push_str("members = [\"crates/concurrency\"]");
        } else if line.starts_with("default-members =") || line.starts_with("exclude =") {
            continue;
        } else if let Some((before, after)) = line.split_once("path = \"")
            && !line.starts_with("ferroyolo-concurrency ")
        {
            out.push_str(&format!("{before}path = \"{}/{after}", repository.display()));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    if has_members { Ok(out) } else { Err("the repository's manifest lists no members".to_owned()) }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| at(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| at(from, &error))? {
        let entry = entry.map_err(|error| at(from, &error))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_folder(&from, &to)? } else { copy_file(&from, &to)? }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|error| at(from, &error))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| at(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
