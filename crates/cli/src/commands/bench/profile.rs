//! The times of the parts of a run, `bench --profile`.

use std::time::Duration;

use ferroyolo::{Profile, ProfileRow, StepInfo};
use serde::Serialize;

use super::rounded;
use crate::output::console::printable;

/// A row as JSON.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The op, on a GPU the shader.
    name: &'static str,
    us: f64,
    /// Of the sum of all rows, 0 to 1.
    share: f64,
    macs: u64,
    gflops: Option<f64>,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    op: &'static str,
    at: String,
    inputs: Vec<[usize; 4]>,
    output: [usize; 4],
}

/// The rows for JSON.
pub fn rows(profile: &Profile) -> Vec<Row> {
    let sum = profile.sum();
    let step = |step: &StepInfo| Step {
        op: step.op,
        at: step.at.clone(),
        inputs: step.inputs.clone(),
        output: step.output,
    };
    let row = |row: &ProfileRow| Row {
        name: row.name,
        us: rounded(us(row.time)),
        share: rounded(share(row.time, sum)),
        macs: row.macs(),
        gflops: row.gflops().map(rounded),
        steps: row.steps.iter().map(step).collect(),
    };
    profile.rows.iter().map(row).collect()
}

/// The table for people: a line for each row in the order in which they run, and one for their sum.
pub fn table(profile: &Profile) -> String {
    let sum = profile.sum();
    let mut text =
        format!("{:>10} {:>6} {:>9}  {:<18} {:<18} of", "us", "share", "GFLOP/s", "name", "output");
    let mut line = |time: Duration, gflops: Option<f64>, name: &str, output: &str, of: &str| {
        let gflops = gflops.map_or_else(|| "-".into(), |gflops| format!("{gflops:.1}"));
        let (us, percent) = (us(time), 100.0 * share(time, sum));
        let line = format!("\n{us:>10.1} {percent:>5.1}% {gflops:>9}  {name:<18} {output:<18} {of}");
        text.push_str(line.trim_end());
    };
    for row in &profile.rows {
        let output = row.steps.first().map_or_else(String::new, |step| shape(step.output));
        line(row.time, row.gflops(), row.name, &output, &whose(&row.steps));
    }
    let (macs, seconds) = (profile.rows.iter().map(ProfileRow::macs).sum::<u64>(), sum.as_secs_f64());
    let gflops = (macs > 0 && seconds > 0.0).then(|| 2.0 * macs as f64 / seconds / 1e9);
    line(sum, gflops, "all", "", "");
    text
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn share(time: Duration, sum: Duration) -> f64 {
    if sum.is_zero() { 0.0 } else { time.as_secs_f64() / sum.as_secs_f64() }
}

fn shape(shape: [usize; 4]) -> String {
    shape.map(|extent| extent.to_string()).join("x")
}

/// The modules that steps come from: the first one, and how many others.
fn whose(steps: &[StepInfo]) -> String {
    match steps {
        [] => String::new(),
        [step] => printable(&step.at),
        [step, rest @ ..] => format!("{} and {} more", printable(&step.at), rest.len()),
    }
}
