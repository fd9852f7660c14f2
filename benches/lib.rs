//! What measurements share: statistics, and the facts that a record has to carry.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferroyolo_tools::{Checkpoint, ConvertOptions};

/// The columns of a record; a row is [`Row`].
pub const COLUMNS: &str = "name,threads,runs,min_ms,p50_ms,p90_ms,mean_ms";

/// Order statistics of one measurement, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Number of timed runs.
    pub runs: usize,
    /// The fastest run.
    pub min_ms: f64,
    /// The median: half of the runs were at most this long.
    pub p50_ms: f64,
    /// Nine runs of ten were at most this long.
    pub p90_ms: f64,
    /// The arithmetic mean.
    pub mean_ms: f64,
}

impl Timing {
    /// The statistics of `times`, or `None` if there are none.
    #[must_use]
    pub fn of(times: &[Duration]) -> Option<Self> {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        // The smallest value that at least this share of all values do not exceed.
        let share = |percent: usize| ms[(ms.len() * percent).div_ceil(100).max(1) - 1];
        let min_ms = *ms.first()?;
        let mean_ms = ms.iter().sum::<f64>() / ms.len() as f64;
        Some(Self { runs: ms.len(), min_ms, p50_ms: share(50), p90_ms: share(90), mean_ms })
    }
}

/// One line of a record.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured: `model/input shape/number format/backend`.
    pub name: String,
    /// CPU threads that it might use.
    pub threads: usize,
    /// How long it took.
    pub timing: Timing,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timing { runs, min_ms, p50_ms, p90_ms, mean_ms } = self.timing;
        let Self { name, threads, .. } = self;
        write!(f, "{name},{threads},{runs},{min_ms:.3},{p50_ms:.3},{p90_ms:.3},{mean_ms:.3}")
    }
}

/// The facts without which a number means nothing: name and value of each, "unknown" where it can't be found out.
#[must_use]
pub fn facts() -> Vec<(&'static str, String)> {
    let output = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let field = |file: &str, key: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().ok().map(|n| n.to_string());
    let is_changed =
        output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])
        .map(|commit| if is_changed { format!("{commit} with changes") } else { commit });
    let days = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs() / 86_400);
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let facts = [
        ("date", days.map(date)),
        ("commit", commit),
        ("command", Some(command())),
        ("cpu", field("/proc/cpuinfo", "model name")),
        ("cpus", cpus),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("system", Some(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH))),
        ("kernel", output("uname", &["-r"])),
        ("rustc", output("rustc", &["--version"])),
        ("profile", Some(profile.to_owned())),
    ];
    facts.map(|(name, value)| (name, value.unwrap_or_else(|| "unknown".to_owned()))).into()
}

/// The bytes of a model file; checkpoints are converted.
///
/// Errors name the file.
pub fn model_bytes(path: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    if path.ends_with(".safetensors") {
        return fs::read(path).map_err(|cause| format!("{path}: {cause}").into());
    }
    let checkpoint = Checkpoint::open(path.as_ref())?;
    Ok(ferroyolo_tools::convert(&checkpoint, &ConvertOptions::default())?.to_bytes()?)
}

/// The command line, without the folders that programs and models lie in.
fn command() -> String {
    let name = |argument: String| {
        let path = std::path::Path::new(&argument);
        let is_path = path.components().count() > 1;
        let file = path.file_name().filter(|_| is_path).map(|file| file.to_string_lossy().into_owned());
        file.unwrap_or(argument)
    };
    std::env::args().map(name).collect::<Vec<_>>().join(" ")
}

/// The date, as `2026-01-31`, that lies this many days after 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is the last one.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        let times: Vec<Duration> = (1..=10).rev().map(Duration::from_millis).collect();
        let timing = Timing::of(&times).expect("ten times");
        assert_eq!(timing, Timing { runs: 10, min_ms: 1.0, p50_ms: 5.0, p90_ms: 9.0, mean_ms: 5.5 });
        let one = Timing::of(&times[..1]).expect("one time");
        assert_eq!([one.min_ms, one.p50_ms, one.p90_ms, one.mean_ms], [10.0; 4]);
        assert_eq!(Timing::of(&[]), None);
    }

    #[test]
    fn a_row_has_all_columns() {
        let timing = Timing { runs: 3, min_ms: 1.0, p50_ms: 2.0, p90_ms: 3.0, mean_ms: 2.25 };
        let row = Row { name: "demo/1x3x64x64/f32/cpu".to_owned(), threads: 2, timing };
        assert_eq!(row.to_string(), "demo/1x3x64x64/f32/cpu,2,3,1.000,2.000,3.000,2.250");
        assert_eq!(row.to_string().split(',').count(), COLUMNS.split(',').count());
    }

    #[test]
    fn days_become_dates() {
        for (days, expected) in
            [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_088, "2024-12-31")]
        {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn no_fact_is_forgotten() {
        let facts = facts();
        assert!(facts.iter().all(|(_, value)| !value.is_empty() && !value.contains('\n')), "{facts:?}");
        assert!(facts.iter().any(|(name, value)| *name == "date" && value.len() == 10));
    }
}
