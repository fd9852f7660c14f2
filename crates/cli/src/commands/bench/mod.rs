//! `ferroyolo bench`: latency and throughput of the network alone and end to end.

mod check;
mod policies;
mod profile;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::Instant;

use ferroyolo::{Device, ErrorKind, Head, Image, PredictOptions, Profile, Session, Tensor};
use serde::Serialize;

use super::input_size;
use crate::args::{Bench, precision_name};
use crate::error::{Error, Outcome, Result};
use crate::input::sources::{SAMPLE, SAMPLE_NAME};
use crate::model;
use crate::output::console::{notice, printable};
use crate::output::file::refuse_to_overwrite;
use crate::output::json::{JsonSink, is_stdout, print_line};

/// The figures, named as they are printed.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: &'static str,
    /// The name of the graphics processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<String>,
    precision: &'static str,
    threads: usize,
    imgsz: [usize; 2],
    batch: usize,
    runs: usize,
    /// The network alone, from an input tensor in memory to the raw head, for a batch.
    latency_ms: Latency,
    /// From decoded pictures to boxes, for a batch.
    end_to_end_ms: Latency,
    /// End to end.
    images_per_second: f64,
    peak_rss_bytes: Option<u64>,
    arena_bytes: usize,
    weights_bytes: usize,
    /// What only a graphics processor has.
    #[serde(flatten)]
    gpu: Option<OnGpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<profile::Row>>,
}

/// Of the last batch end to end, on a graphics processor.
#[derive(Debug, Serialize)]
struct OnGpu {
    /// From the beginning of the first dispatch to the end of the last one by the device's own clock, for a batch; none
    /// if it has no time stamps.
    gpu_ms: Option<f64>,
    dispatches: Option<usize>,
    /// Why convolutions leave its matrix units alone, if they do.
    matrix_refusal: Option<String>,
    /// End to end, with several batches on their way at the same time.
    images_per_second_in_flight: f64,
    /// For a picture.
    uploaded_bytes: u64,
    read_back_bytes: u64,
}

/// What was measured over some runs, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Latency {
    min: f64,
    p50: f64,
    p90: f64,
    #[serde(skip)]
    p99: f64,
    mean: f64,
}

/// Measures and prints.
pub fn run(args: &Bench) -> Result<Outcome> {
    if let Some(way) = args.way {
        return policies::measure_here(args, way);
    }
    if let Some(ways) = args.ways() {
        return policies::compare(args, &ways);
    }
    measure_one(args)
}

fn measure_one(args: &Bench) -> Result<Outcome> {
    let loaded = model::load(&args.model, args.model.threads, false)?;
    if let Some(target) = &args.json {
        refuse_to_overwrite("--json", target, loaded.path.as_deref())?;
    }
    let imgsz = input_size(args.imgsz, &loaded.model);
    let mut session = loaded.model.session();

    let images = random_images([args.batch, 3, imgsz[0], imgsz[1]])?;
    if args.check {
        let worst = check::against_cpu(args, &mut session, &images)?;
        notice(&format!("raw outputs agree with the CPU's to {worst:.1e} of the largest value of a row"));
    }
    // One head, as the other engines run it and as `predict` reads it.
    let latency_ms =
        measure(args, || session.run_head(&images, Head::Auto).map(|_| ()).map_err(Error::from))?;

    let picture =
        Image::decode(&picture_bytes(args)?).map_err(|error| Error::named(picture_name(args), error))?;
    let pictures = vec![&picture; args.batch];
    // The full input, so that both figures are about the same network.
    let options = PredictOptions { imgsz: Some(imgsz), rect: false, ..PredictOptions::default() };
    let end_to_end_ms =
        measure(args, || session.predict(&pictures, &options).map(|_| ()).map_err(Error::from))?;
    let is_gpu = loaded.model.device() != Device::Cpu;
    let in_flight = if is_gpu { in_flight(args, &mut session, &pictures, &options)? } else { 0.0 };
    let times = times(args, imgsz, is_gpu, &mut session)?;

    let report = Report {
        model: loaded.name,
        device: if is_gpu { "gpu" } else { "cpu" },
        adapter: loaded.model.adapter().map(|adapter| adapter.name.clone()),
        precision: precision_name(args.model.precision),
        threads: loaded.model.threads(),
        imgsz,
        batch: args.batch,
        runs: args.runs,
        latency_ms,
        end_to_end_ms,
        images_per_second: rounded(args.batch as f64 * 1e3 / end_to_end_ms.mean),
        peak_rss_bytes: peak_rss_bytes(),
        arena_bytes: session.arena_bytes(),
        weights_bytes: loaded.model.weights_bytes(),
        gpu: session.traffic().map(|traffic| OnGpu {
            gpu_ms: times.as_ref().map(|times| rounded(times.run.as_secs_f64() * 1e3)),
            dispatches: session.dispatches(),
            matrix_refusal: loaded.model.matrix_refusal().map(str::to_owned),
            images_per_second_in_flight: rounded(in_flight),
            uploaded_bytes: traffic.uploaded / args.batch as u64,
            read_back_bytes: traffic.read_back / args.batch as u64,
        }),
        profile: times.as_ref().filter(|_| args.profile).map(profile::rows),
    };
    if !args.json.as_deref().is_some_and(is_stdout) {
        let adapter = loaded.model.adapter().map(|adapter| printable(&adapter.name));
        let processor = adapter.as_deref().unwrap_or_else(|| loaded.model.isa_name());
        print_line(&table(&report, processor))?;
        if let Some(times) = times.as_ref().filter(|_| args.profile) {
            print_line(&profile::table(times))?;
        }
    }
    if let Some(target) = &args.json {
        JsonSink::open(target, loaded.path.as_deref())?.write(&report)?;
    }
    Ok(Outcome::Done)
}

/// How long the parts of a run take, if that is wanted or comes with the time of the whole.
///
/// Errors if it was asked for and the device has no clock for it.
fn times(args: &Bench, [h, w]: [usize; 2], is_gpu: bool, session: &mut Session) -> Result<Option<Profile>> {
    if !is_gpu {
        let profile = args.profile.then(|| session.profile([args.batch, h, w], args.runs));
        return Ok(profile.transpose()?);
    }
    match session.profile_last_run(args.runs) {
        Ok(profile) => Ok(Some(profile)),
        Err(error) if error.kind() == ErrorKind::Unsupported && !args.profile => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Pictures in a second when a batch is sent while others are computed and read.
fn in_flight(
    args: &Bench,
    session: &mut Session,
    pictures: &[&Image],
    options: &PredictOptions,
) -> Result<f64> {
    let mut run = |n: usize| -> Result<()> {
        (0..n).try_for_each(|_| session.enqueue(pictures, options))?;
        while let Some(results) = session.dequeue() {
            results?;
        }
        Ok(())
    };
    // The first ones make the buffers of those behind them.
    run(args.warmup.max(3))?;
    let start = Instant::now();
    run(args.runs)?;
    Ok((args.runs * pictures.len()) as f64 / start.elapsed().as_secs_f64())
}

fn picture_name(args: &Bench) -> &str {
    args.source.as_deref().and_then(Path::to_str).unwrap_or(SAMPLE_NAME)
}

/// The encoded picture to measure with.
fn picture_bytes(args: &Bench) -> Result<Cow<'static, [u8]>> {
    match &args.source {
        None => Ok(SAMPLE.into()),
        Some(path) => fs::read(path).map(Cow::from).map_err(|error| Error::at(path, error)),
    }
}

fn measure(args: &Bench, mut step: impl FnMut() -> Result<()>) -> Result<Latency> {
    for _ in 0..args.warmup {
        step()?;
    }
    let mut times_ms = Vec::new();
    for _ in 0..args.runs {
        let start = Instant::now();
        step()?;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Latency::of(times_ms))
}

impl Latency {
    /// `times_ms` holds at least one value. Percentiles lie between the two nearest runs.
    fn of(mut times_ms: Vec<f64>) -> Self {
        times_ms.sort_by(f64::total_cmp);
        let percentile = |share: f64| {
            let at = share * (times_ms.len() - 1) as f64;
            let (low, high) = (times_ms[at.floor() as usize], times_ms[at.ceil() as usize]);
            rounded(low + (high - low) * at.fract())
        };
        let mean = times_ms.iter().sum::<f64>() / times_ms.len() as f64;
        Self {
            min: percentile(0.0),
            p50: percentile(0.5),
            p90: percentile(0.9),
            p99: percentile(0.99),
            mean: rounded(mean),
        }
    }
}

/// Three decimals: a microsecond, which is finer than any of this is repeatable.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Values from 0 to 1, the same in every run.
fn random_images(shape: [usize; 4]) -> Result<Tensor> {
    let mut state = 0u64;
    let mut next = || {
        // SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    let too_large = || Error::failed(format!("an input of {shape:?} does not fit into memory"));
    let len = shape.iter().try_fold(1usize, |len, &extent| len.checked_mul(extent)).ok_or_else(too_large)?;
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| too_large())?;
    data.extend((0..len).map(|_| next()));
    Ok(Tensor::new(shape.to_vec(), data)?)
}

/// The most memory that this process has held, where the system tells it.
fn peak_rss_bytes() -> Option<u64> {
    peak_rss_of("self")
}

fn peak_rss_of(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn table(report: &Report, processor: &str) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let row = |name: &str, t: Latency| {
        format!("{name:<14}{:>9.2}{:>9.2}{:>9.2}{:>9.2}\n", t.min, t.p50, t.p90, t.mean)
    };
    let [h, w] = report.imgsz;
    format!(
        "{model}  {h}x{w}  batch {batch}  {device} {processor}  {precision}  {threads} thread(s)  {runs} runs\n\
         {ms:<14}{min:>9}{p50:>9}{p90:>9}{mean:>9}\n{network}{end_to_end}\
         {fps:.1} images/s end to end; memory: {peak}arena {arena:.1} MiB, weights {weights:.1} MiB",
        model = report.model,
        batch = report.batch,
        device = report.device,
        precision = report.precision,
        threads = report.threads,
        runs = report.runs,
        ms = "ms",
        min = "min",
        p50 = "p50",
        p90 = "p90",
        mean = "mean",
        network = row("network", report.latency_ms),
        end_to_end = row("end to end", report.end_to_end_ms),
        fps = report.images_per_second,
        peak =
            report.peak_rss_bytes.map_or_else(String::new, |bytes| format!("peak {:.1} MiB, ", mib(bytes))),
        arena = mib(report.arena_bytes as u64),
        weights = mib(report.weights_bytes as u64),
    ) + &report.gpu.as_ref().map_or_else(String::new, gpu_line)
}

/// Lines about what happened on a graphics processor.
fn gpu_line(gpu: &OnGpu) -> String {
    let ms = gpu.gpu_ms.map_or_else(|| "no time stamps".into(), |ms| format!("{ms:.3} ms by its clock"));
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let matrix_units = match &gpu.matrix_refusal {
        None => "used for convolutions".to_owned(),
        Some(why) => format!("not used, {}", printable(why)),
    };
    format!(
        "\non the GPU: {ms}, {} dispatches; {:.1} images/s with several batches in flight; for an image {:.1} KiB \
         sent, {:.1} KiB read\nmatrix units: {matrix_units}",
        gpu.dispatches.unwrap_or_default(),
        gpu.images_per_second_in_flight,
        kib(gpu.uploaded_bytes),
        kib(gpu.read_back_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_runs() {
        let all = |ms| Latency { min: ms, p50: ms, p90: ms, p99: ms, mean: ms };
        assert_eq!(Latency::of(vec![2.0]), all(2.0));
        let latency = Latency::of((0..=10).rev().map(f64::from).collect());
        assert_eq!(latency, Latency { min: 0.0, p50: 5.0, p90: 9.0, p99: 9.9, mean: 5.0 });
        assert_eq!(Latency::of(vec![1.0, 2.0]).p50, 1.5);
    }

    #[test]
    fn the_input_is_the_same_each_time() {
        let a = random_images([1, 3, 4, 4]).unwrap();
        assert_eq!(a, random_images([1, 3, 4, 4]).unwrap());
        assert!(random_images([usize::MAX, 3, 2, 2]).is_err());
        assert!(a.data().iter().all(|value| (0.0..1.0).contains(value)));
        let mean = a.data().iter().sum::<f32>() / 48.0;
        assert!((0.3..0.7).contains(&mean), "{mean}");
    }
}
