//! Rules of the house that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

use ferroyolo_tests::root;

/// Lines that a file may have.
const MAX_LINES: usize = 800;

/// Lines that a shader may have.
const MAX_SHADER_LINES: usize = 250;

/// What is never tracked.
const SKIPPED: [&str; 6] = [".git", "target", "__pycache__", "corpus", "artifacts", "runs"];

/// All files of the repository, by their path from its root.
fn files() -> Vec<PathBuf> {
    fn walk(root: &Path, folder: &Path, out: &mut Vec<PathBuf>) {
        let entries =
            fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let entry = entry.expect("an entry of a folder");
            let path = folder.join(entry.file_name());
            if SKIPPED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                walk(root, &path, out);
            } else {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), Path::new(""), &mut out);
    out.sort();
    assert!(out.len() > 50, "found only {out:?}");
    out
}

fn with_extensions(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let wanted = |path: &PathBuf| {
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|own| extensions.contains(&own))
    };
    files().into_iter().filter(wanted).map(|path| (path.clone(), text(&path))).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Fails with all of `found`, if there are any.
#[track_caller]
fn none(what: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Places, as `path:line: text`, of lines for which `is_bad` holds.
fn lines(files: &[(PathBuf, String)], is_bad: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (idx, line) in text.lines().enumerate().filter(|(_, line)| is_bad(path, line)) {
            found.push(format!("{}:{}: {}", path.display(), idx + 1, line.trim()));
        }
    }
    found
}

fn is_here(path: &Path) -> bool {
    path.ends_with("tests/integration/tidy.rs")
}

#[test]
fn words_are_told_apart() {
    assert!(has_word("unsafe {", "unsafe") && has_word("(unsafe)", "unsafe"));
    assert!(
        !has_word("unsafe_code", "unsafe") && !has_word("an unsafely", "unsafe") && !has_word("", "unsafe")
    );
}

/// The one module outside of the kernels that may have unsafe code, and its crate.
const TRUSTING: [&str; 2] = ["crates/engine/src/backend/gpu/trust.rs", "crates/engine/src/lib.rs"];

#[test]
fn unsafe_code_stays_in_the_kernels() {
    let sources = with_extensions(&["rs"]);
    let (kernels, others): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|(path, _)| path.starts_with("crates/kernels"));
    assert!(kernels.iter().any(|(_, text)| has_word(text, "unsafe")));
    // An allocator that counts can be written in no other way.
    let is_allocator = |path: &Path, text: &str| {
        path.components().any(|part| part.as_os_str() == "tests") && text.contains("GlobalAlloc for Counting")
    };
    let others: Vec<_> = others.into_iter().filter(|(path, text)| !is_allocator(path, text)).collect();
    let found = lines(&others, |path, line| {
        let may = is_here(path) || path == Path::new(TRUSTING[0]);
        !may && !line.trim_start().starts_with("//") && has_word(line, "unsafe")
    });
    none("unsafe code outside of the kernels", found);
}

#[test]
fn crates_forbid_unsafe_code() {
    let missing = |path: &&&str| !text(Path::new(path)).contains("#![forbid(unsafe_code)]");
    let crates = [
        "crates/concurrency/src/lib.rs",
        "crates/val/src/lib.rs",
        "tools/src/lib.rs",
        "crates/cli/src/main.rs",
    ];
    none(
        "crates that do not forbid unsafe code",
        crates.iter().filter(missing).map(|path| (*path).to_owned()),
    );
    assert!(text(Path::new(TRUSTING[1])).contains("#![deny(unsafe_code)]"), "{}", TRUSTING[1]);
    let allows = |path: &Path, line: &str| {
        !is_here(path)
            && path != Path::new(TRUSTING[0])
            && line.contains("(unsafe_code")
            && (line.contains("allow") || line.contains("expect"))
    };
    let engine: Vec<_> =
        with_extensions(&["rs"]).into_iter().filter(|(path, _)| path.starts_with("crates/engine")).collect();
    none("unsafe code allowed elsewhere in the engine", lines(&engine, allows));
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["todo!", "unimplemented!", "#[ignore", "TODO", "FIXME", "XXX"];
    let found = lines(&with_extensions(&["rs", "wgsl", "py", "sh", "toml", "yml"]), |path, line| {
        !is_here(path) && marks.iter().any(|mark| line.contains(mark))
    });
    none("left for later", found);
}

#[test]
fn files_stay_readable() {
    let too_long = |(path, text): (PathBuf, String)| {
        let max = if path.extension().is_some_and(|extension| extension == "wgsl") {
            MAX_SHADER_LINES
        } else {
            MAX_LINES
        };
        let n_lines = text.lines().count();
        (n_lines > max).then(|| format!("{}: {n_lines} lines, at most {max}", path.display()))
    };
    none("files too long", with_extensions(&["rs", "py", "wgsl"]).into_iter().filter_map(too_long));
}

#[test]
fn every_source_says_what_it_is() {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let undocumented = |(path, text): &(PathBuf, String)| {
        let first = text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
        let documented = first.starts_with("//!") || first.starts_with("\"\"\"") || first.starts_with("//");
        (!documented && !is_test(path)).then(|| path.display().to_string())
    };
    none("files without docs", with_extensions(&["rs", "py", "wgsl"]).iter().filter_map(undocumented));
}

#[test]
fn ops_have_a_definition_and_a_kernel() {
    let ops = root().join("crates/engine/src/ops");
    let mut missing = Vec::new();
    let mut n_ops = 0;
    for entry in fs::read_dir(&ops).expect("the ops").map(|entry| entry.expect("an entry").path()) {
        if !entry.is_dir() {
            continue;
        }
        n_ops += 1;
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        let wanted: &[&str] = match name.as_str() {
            // A view: there is nothing to compute.
            "slice" => &["mod.rs"],
            // The job is that of `upsample`.
            "upsample_like" => &["mod.rs", "cpu.rs"],
            _ => &["mod.rs", "cpu.rs", "gpu.rs"],
        };
        missing.extend(
            wanted.iter().filter(|file| !entry.join(file).is_file()).map(|file| format!("{name}/{file}")),
        );
    }
    assert!(n_ops >= 5, "found only {n_ops} ops");
    none("missing in crates/engine/src/ops", missing);
}

#[test]
fn shaders_are_listed_and_used() {
    let list = text(Path::new("shaders/lib.rs"));
    let jobs: String = with_extensions(&["rs"])
        .into_iter()
        .filter(|(path, _)| path.starts_with("crates/engine/src"))
        .map(|(_, text)| text)
        .collect();
    let shaders = with_extensions(&["wgsl"]);
    assert!(!shaders.is_empty(), "found no shaders");
    let is_stray = |path: &&PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.starts_with("shaders/shared") {
            // Named as a file, or as what stands before some shaders.
            let is_part = |line: &str| line.contains("shader!(") && line.contains(&format!(", \"{stem}\""));
            return !list.contains(&format!("include_str!(\"shared/{stem}.wgsl\")"))
                && !list.lines().any(is_part);
        }
        let constant = stem.to_uppercase();
        let is_used = jobs.contains(&format!("shader: {constant},"))
            || jobs.contains(&format!("elementwise({constant},"));
        // Whose constant says more than the macro: one of its own name, or one for each size of matrices.
        if list.contains(&format!("shader!(\"{stem}\", ")) {
            let is_of_sizes = ["8", "16"].iter().all(|side| has_word(&jobs, &format!("{constant}_{side}")));
            return !if list.contains(&format!("pub const {constant}: Shader")) {
                is_used
            } else {
                is_of_sizes
            };
        }
        !list.contains(&format!("shader!({constant}, \"{stem}\", ")) || !is_used
    };
    let strays = shaders.iter().map(|(path, _)| path).filter(is_stray);
    none(
        "shaders that shaders/lib.rs does not list or nothing uses",
        strays.map(|path| path.display().to_string()),
    );
}

#[test]
fn no_paths_of_somebodys_machine() {
    let homes = [
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("C:", "\\"),
    ];
    let extensions = ["rs", "py", "md", "toml", "yml", "wgsl", "json", "csv", "sh", "lock", "txt"];
    none(
        "absolute paths",
        lines(&with_extensions(&extensions), |path, line| {
            !is_here(path)
                && homes.iter().any(|home| {
                    line.split(home)
                        .skip(1)
                        .any(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '.'))
                })
        }),
    );
}

#[test]
fn goldens_have_a_recipe() {
    let readme = text(Path::new("tests/goldens/README.md"));
    let mut n_goldens = 0;
    for path in files().iter().filter(|path| path.starts_with("tests/goldens")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if name != "README.md" {
            assert!(readme.contains(&format!("`{name}`")), "tests/goldens/README.md does not tell of {name}");
        }
        let Some(stem) = name.strip_suffix(".safetensors") else { continue };
        n_goldens += 1;
        let stem = stem.strip_suffix(".model").unwrap_or(stem);
        let recipe =
            if stem.starts_with("demo") { "tools/demo/golden.py" } else { "tests/goldens/make_goldens.py" };
        assert!(text(Path::new(recipe)).contains(stem), "{recipe} does not make {name}");
    }
    assert!(n_goldens >= 6, "found only {n_goldens} goldens");
}

/// The commands of CI that a contributor needs are in the README, word for word.
#[test]
fn the_readme_tells_what_ci_runs() {
    let readme = text(Path::new("README.md"));
    let script = text(Path::new(".ci/run"));
    let tests: Vec<&str> =
        script.lines().map(str::trim).filter(|line| line.starts_with("cargo test")).collect();
    assert!(!tests.is_empty(), ".ci/run tests nothing");
    none(
        "commands of .ci/run that the README does not tell",
        tests.iter().filter(|line| !readme.contains(**line)).map(ToString::to_string),
    );
}

#[test]
fn public_crates_state_their_licence() {
    for manifest in files().iter().filter(|path| path.ends_with("Cargo.toml") && !path.starts_with("fuzz")) {
        let text = text(manifest);
        let states =
            text.contains("license.workspace = true") || text.contains("license = \"MIT OR Apache-2.0\"");
        assert!(states, "{} states no licence", manifest.display());
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(text(Path::new(file)).len() > 500, "{file} is no licence");
    }
}
