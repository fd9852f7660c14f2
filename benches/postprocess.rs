//! Measures what comes after the network: `postprocess [--imgsz H,W] [--conf C] [--max-det N] [--threads N] [--runs N]
//! [--retina-masks] [--multi-label] MODEL PICTURE...`
//!
//! Each run predicts all pictures one after the other. Rows are the network, and decoding with suppression and masks;
//! times are those of one picture. The last line says how many objects were found and what share of the network's time
//! went into finding them.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ferroyolo::results::RotatedBoxes;
use ferroyolo::{Image, Model, ModelOptions, PredictOptions, Results};
use ferroyolo_benches::{COLUMNS, Row, Timing, facts, model_bytes};

const USAGE: &str = "usage: postprocess [--imgsz H,W] [--conf C] [--max-det N] [--threads N] [--runs N] [--retina-masks] \
                     [--multi-label] MODEL PICTURE...";

struct Options {
    predict: PredictOptions,
    threads: Option<usize>,
    runs: usize,
    model: String,
    pictures: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1))?;
    let model_options = ModelOptions { threads: options.threads, ..ModelOptions::default() };
    let model = Model::from_bytes(&options.model, &model_bytes(&options.model)?, &model_options)?;
    let pictures = options.pictures.iter().map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let mut session = model.session();
    let [mut network, mut after] = [Vec::new(), Vec::new()];
    let mut n_found = 0;
    // The first run makes plans and memory.
    for run in 0..=options.runs {
        for picture in &pictures {
            let results = session.predict(&[picture], &options.predict)?.pop().ok_or("no result")?;
            if run > 0 {
                network.push(Duration::from_secs_f64(results.speed.inference_ms / 1e3));
                after.push(Duration::from_secs_f64(results.speed.postprocess_ms / 1e3));
                n_found += count(&results);
            }
        }
    }
    for (name, value) in facts() {
        println!("# {name}: {value}");
    }
    println!("{COLUMNS}");
    let stem = Path::new(&options.model).file_stem().unwrap_or_default().to_string_lossy();
    let [h, w] = options.predict.imgsz.unwrap_or(model.imgsz());
    let mut medians = Vec::new();
    for (what, times) in [("network", &network), ("after", &after)] {
        let timing = Timing::of(times).ok_or("nothing was run")?;
        medians.push(timing.p50_ms);
        let name = format!("{stem}-{what}/1x3x{h}x{w}/f32/cpu-{}", model.isa_name());
        println!("{}", Row { name, threads: model.threads(), timing });
    }
    let found = n_found as f64 / after.len() as f64;
    println!("# {found:.1} objects a picture; share {:.1} %", 100.0 * medians[1] / medians[0]);
    Ok(())
}

fn count(results: &Results) -> usize {
    results.obb.as_ref().map_or(results.boxes.len(), RotatedBoxes::len)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut predict, mut threads, mut runs, mut names) = (PredictOptions::default(), None, 10, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: got no value"));
        match argument.as_str() {
            "--imgsz" => {
                let text = value()?;
                predict.imgsz = Some(match text.split_once(',') {
                    Some((h, w)) => [number(h)?, number(w)?],
                    None => [number(&text)?; 2],
                });
            }
            "--conf" => predict.conf = number(&value()?)?,
            "--max-det" => predict.max_det = number(&value()?)?,
            "--threads" => threads = Some(number(&value()?)?),
            "--runs" => runs = number(&value()?)?,
            "--retina-masks" => predict.retina_masks = true,
            "--multi-label" => predict.multi_label = true,
            flag if flag.starts_with('-') => return Err(format!("{flag} is unknown; {USAGE}")),
            _ => names.push(argument),
        }
    }
    if names.len() < 2 || runs == 0 {
        return Err(USAGE.to_owned());
    }
    Ok(Options { predict, threads, runs, model: names.remove(0), pictures: names })
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("got {text:?}, expected a number"))
}
