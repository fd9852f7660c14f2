//! Measures models and prints a record: `measure [--imgsz H,W] [--threads 1,2] [--runs N] [--warmup N] MODEL...`
//!
//! The network alone: the input lies ready in memory, the output is the raw head. Thread counts are measured in turn
//! for each model, and models one after the other.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ferroyolo::{Model, ModelOptions, Tensor};
use ferroyolo_benches::{COLUMNS, Row, Timing, facts, model_bytes};

const USAGE: &str = "usage: measure [--imgsz H,W] [--threads 1,2] [--runs N] [--warmup N] MODEL...";

struct Options {
    imgsz: Option<[usize; 2]>,
    threads: Vec<usize>,
    runs: usize,
    warmup: usize,
    models: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1))?;
    for (name, value) in facts() {
        println!("# {name}: {value}");
    }
    println!("{COLUMNS}");
    for path in &options.models {
        let bytes = model_bytes(path)?;
        for &threads in &options.threads {
            println!("{}", measure(path, &bytes, threads, &options)?);
        }
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { imgsz: None, threads: vec![1, 2], runs: 50, warmup: 5, models: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut numbers = || -> Result<Vec<usize>, String> {
            let value = arguments.next().ok_or_else(|| format!("{argument}: got no value"))?;
            let parse =
                |part: &str| part.parse().map_err(|_| format!("{argument}: got {value:?}, expected numbers"));
            value.split(',').map(parse).collect()
        };
        match argument.as_str() {
            "--imgsz" => {
                let sides = numbers()?;
                options.imgsz = match *sides.as_slice() {
                    [side] => Some([side; 2]),
                    [h, w] => Some([h, w]),
                    _ => return Err(format!("--imgsz: got {sides:?}, expected one side or two")),
                };
            }
            "--threads" => options.threads = numbers()?,
            "--runs" => options.runs = numbers()?[0].max(1),
            "--warmup" => options.warmup = numbers()?[0],
            flag if flag.starts_with('-') => return Err(format!("{flag} is unknown; {USAGE}")),
            _ => options.models.push(argument),
        }
    }
    if options.models.is_empty() { Err(USAGE.to_owned()) } else { Ok(options) }
}

fn measure(path: &str, bytes: &[u8], threads: usize, options: &Options) -> Result<Row, Box<dyn Error>> {
    let model =
        Model::from_bytes(path, bytes, &ModelOptions { threads: Some(threads), ..ModelOptions::default() })?;
    let [h, w] = options.imgsz.unwrap_or(model.imgsz());
    // Values don't change the time, but zeros might.
    let pixels = (0..3 * h * w).map(|idx| (idx * 7919 % 1009) as f32 / 1009.0).collect();
    let images = Tensor::new(vec![1, 3, h, w], pixels)?;
    let mut session = model.session();
    for _ in 0..options.warmup {
        session.run(&images)?;
    }
    let mut times = Vec::with_capacity(options.runs);
    for _ in 0..options.runs {
        let start = Instant::now();
        session.run(&images)?;
        times.push(start.elapsed());
    }
    let timing = Timing::of(&times).ok_or("nothing was run")?;
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    Ok(Row { name: format!("{stem}/1x3x{h}x{w}/f32/cpu-{}", model.isa_name()), threads, timing })
}
