//! The command line's grammar: commands, flags and the checks that need no model.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ferroyolo::{Device, Head, Precision, PredictOptions, Task, Tuning};

use crate::crew::Sharing;

/// Finds objects in pictures with trained YOLO networks.
#[derive(Debug, Parser)]
#[command(
    name = "ferroyolo",
    version,
    after_help = "Examples:\n  ferroyolo predict                                   the built-in model on the built-in picture\n  \
                  ferroyolo predict --task pose                       the built-in model for another task\n  \
                  ferroyolo predict -m yolo11n.pt -s street.jpg --save out\n  \
                  ferroyolo predict -m yolo11n.pt -s photos/ --json - > boxes.jsonl\n\n\
                  Exit status: 0 done, 1 something failed, 2 wrong usage."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Predict(Box<Predict>),
    Val(Box<crate::val::args::Val>),
    Forward(Forward),
    Bench(Bench),
    Convert(Convert),
    Inspect(Inspect),
    Devices(Devices),
    /// Run jobs for another process of this program, which starts it
    #[command(hide = true)]
    Worker(Worker),
}

/// Which model runs, and on what.
#[derive(Clone, Debug, ClapArgs)]
pub struct ModelArgs {
    /// A .safetensors model, a .pt / .pth checkpoint (converted in memory), or a well-known name such as yolo11n, which
    /// is fetched once [default: the small model built in]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// detect, segment, pose, obb, classify, semantic or depth: which built-in model to use; with --model, what it has
    /// to be for
    #[arg(long, value_name = "TASK", value_parser = parse_task)]
    pub task: Option<Task>,
    /// auto (a graphics processor if there is one, else the CPU), cpu, gpu or gpu:N, as `devices` lists them
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    pub device: Device,
    /// f32, or f16 on graphics processors that have 16-bit floats
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = parse_precision)]
    pub precision: Precision,
    /// auto, off or always: whether a GPU's ways to carry out convolutions are measured, once for each model (at most
    /// two seconds) and kept; auto does so on graphics processors, always on programs that stand in for one, too
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = parse_tuning, hide_short_help = true)]
    pub tune: Tuning,
    /// Threads for the network [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub threads: Option<usize>,
    /// The CPU instruction set to use, one of those that `devices` lists
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub isa: Option<String>,
    /// Fetch nothing: models by name have to be in the cache, and pictures here
    #[arg(long)]
    pub offline: bool,
}

/// Find objects in pictures.
///
/// Prints one line an image, or with `--json -` one JSON object a line. Sources that can't be read are told and
/// passed over; the exit status is then 1.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ferroyolo predict -m yolo11n.pt -s bus.jpg --save out\n  \
                  ferroyolo predict -m yolo11n.pt -s 'photos/*.jpg' --conf 0.5 --classes 0,2\n  \
                  ferroyolo predict -m yolo11n -s street.mp4 https://example.org/bus.jpg --save out\n  \
                  find . -name '*.png' | ferroyolo predict -s - --json -")]
pub struct Predict {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Images, videos, directories, globs, URLs of pictures and streams, or the number of a camera; `-` reads them from
    /// stdin. Videos, streams and cameras need the program ffmpeg [default: the sample picture built in]
    #[arg(short, long, value_name = "SOURCE", num_args = 1..)]
    pub source: Vec<PathBuf>,
    /// Size of the network's input: N for a square, or H,W [default: what the model was trained for]
    #[arg(long, value_name = "N|H,W", value_parser = parse_imgsz)]
    pub imgsz: Option<ImgSize>,
    /// Keep boxes whose confidence is above this
    #[arg(long, value_name = "0..1", default_value = "0.25", value_parser = parse_share)]
    pub conf: f32,
    /// Of two boxes of a class that overlap more than this, keep the better
    #[arg(long, value_name = "0..1", default_value = "0.7", value_parser = parse_share)]
    pub iou: f32,
    /// Most boxes for an image [default: 300]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub max_det: Option<usize>,
    /// Keep only these classes, given by number
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub classes: Option<Vec<usize>>,
    /// Let boxes of different classes suppress each other
    #[arg(long)]
    pub agnostic_nms: bool,
    /// Report every class of a box that passes --conf, as COCO's evaluation does, not only the best
    #[arg(long)]
    pub multi_label: bool,
    /// Make masks of the picture's size, not of the network's input
    #[arg(long)]
    pub retina_masks: bool,
    /// Pad to the full input size, not only to the next multiple of the stride
    #[arg(long)]
    pub no_rect: bool,
    /// Which head of the network to read: auto, one2many or one2one
    #[arg(long, value_name = "HEAD", default_value = "auto", value_parser = parse_head)]
    pub head: Head,
    /// Images that go through the network at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_batch)]
    pub batch: usize,
    /// How workers share the model: shared, locked, per-thread, pool (threads), or process (processes, so that a
    /// picture which crashes one costs only itself) [default: shared]
    #[arg(long, value_name = "POLICY", value_parser = Sharing::from_str)]
    pub policy: Option<Sharing>,
    /// Batches to work on at the same time; they divide the CPUs [default: 1, or with --policy one for each CPU]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,
    /// Of videos, streams and cameras take every Nth frame
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
    pub vid_stride: usize,
    /// Save annotated pictures and videos (.mp4) in this directory; of class maps and depth maps also the map, as
    /// classes/NAME.png or depth/NAME.png (16 bits, metres times 256)
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Save labels as labels/NAME.txt: class, centre x, centre y, width, height, as shares of the image; outlines,
    /// keypoints or corners where the model finds them
    #[arg(long)]
    pub save_txt: bool,
    /// Add the confidence to the saved labels
    #[arg(long, requires = "save_txt")]
    pub save_conf: bool,
    /// Save each mask as masks/NAME_N.png, white on black; as large as the network's input with its padding, or, with
    /// --retina-masks, as the picture
    #[arg(long)]
    pub save_masks: bool,
    /// Save each box's part of the picture as crops/CLASS/NAME.jpg
    #[arg(long)]
    pub save_crop: bool,
    /// Write one JSON object a line to this file; `-` is stdout, in place of the usual lines
    #[arg(long, value_name = "PATH|-")]
    pub json: Option<PathBuf>,
    /// Print no lines for images, no speed and no notices; errors are still told
    #[arg(short, long)]
    pub quiet: bool,
}

/// Run the network on tensors and write its raw output, for parity checks and debugging.
///
/// Reads the tensor `images`, [N, 3, H, W], RGB, 0..1. Writes `output0`, and `proto` and `one2one` where the model
/// has them.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  ferroyolo forward -m yolo11n.pt --input in.safetensors --output out.safetensors"
)]
pub struct Forward {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A safetensors file with the tensor `images`
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Measure latency and throughput of the network alone and end to end.
///
/// End to end takes a picture decoded in memory through letterbox, network and box decoding; `images_per_second` is
/// measured end to end.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ferroyolo bench -m yolo11n.pt --imgsz 640 --threads 2 --json -\n  \
                  ferroyolo bench -m yolo11n.pt --policies --workers 4\n  \
                  ferroyolo bench -m yolo11n.pt --policies=pool,process")]
pub struct Bench {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Size of the network's input: N for a square, or H,W [default: what the model was trained for]
    #[arg(long, value_name = "N|H,W", value_parser = parse_imgsz)]
    pub imgsz: Option<ImgSize>,
    /// The picture to measure end to end with [default: the sample picture built in]
    #[arg(short, long, value_name = "PICTURE")]
    pub source: Option<PathBuf>,
    /// Compare the ways of sharing a model among workers: all, or those of a list of shared, locked, per-thread, pool,
    /// process and separate-models (a model of its own for each, for comparison)
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, default_missing_value = "all",
          value_parser = parse_ways)]
    policies: Option<Ways>,
    /// Workers to compare them with [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,
    /// Measure this way in this process, as a comparison does for each
    #[arg(long, hide = true, value_parser = Way::from_str)]
    pub way: Option<Way>,
    /// Timed runs
    #[arg(long, value_name = "N", default_value = "50", value_parser = parse_runs)]
    pub runs: usize,
    /// Runs before the timed ones
    #[arg(long, value_name = "N", default_value = "5", value_parser = parse_warmup)]
    pub warmup: usize,
    /// Images that go through the network at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_batch)]
    pub batch: usize,
    /// Before measuring, compare what the device gives with what the CPU gives; stop if they differ
    #[arg(long, conflicts_with = "policies")]
    pub check: bool,
    /// Also tell how long each step takes, on a graphics processor each dispatch, by its own clock
    #[arg(long, conflicts_with = "policies")]
    pub profile: bool,
    /// Write the figures as one JSON object to this file; `-` is stdout, in place of the table
    #[arg(long, value_name = "PATH|-")]
    pub json: Option<PathBuf>,
}

impl Bench {
    /// The ways of sharing to compare, if any.
    pub fn ways(&self) -> Option<Vec<Way>> {
        self.policies.as_ref().map(|Ways(ways)| ways.clone())
    }
}

/// A way of sharing a model among workers that `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One that `predict` offers.
    Policy(Sharing),
    /// None: a model of its own for each.
    SeparateModels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ways(Vec<Way>);

impl Way {
    fn all() -> impl Iterator<Item = Way> {
        Sharing::ALL.into_iter().map(Way::Policy).chain([Way::SeparateModels])
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Policy(sharing) => sharing.fmt(f),
            Way::SeparateModels => f.write_str("separate-models"),
        }
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(name: &str) -> Result<Way, String> {
        Way::all().find(|way| way.to_string() == name).ok_or_else(|| {
            let known: Vec<_> = Way::all().map(|way| way.to_string()).collect();
            format!("got '{name}', expected of {}", known.join(", "))
        })
    }
}

fn parse_ways(text: &str) -> Result<Ways, String> {
    if text == "all" {
        return Ok(Ways(Way::all().collect()));
    }
    let mut ways = Vec::new();
    for name in text.split(',') {
        let way = name.trim().parse()?;
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    Ok(Ways(ways))
}

/// Turn a PyTorch checkpoint into a model file, without executing anything of it.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  ferroyolo convert yolo11n.pt\n  ferroyolo convert yolox_nano.pth models/nano.safetensors --dtype f16"
)]
pub struct Convert {
    /// The .pt or .pth checkpoint
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The model file to write [default: IN with the extension .safetensors]
    #[arg(value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Number type of the weights
    #[arg(long, value_enum, default_value = "keep")]
    pub dtype: Dtype,
}

/// Number type of converted weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// As the checkpoint has them
    Keep,
    /// Half precision
    F16,
    /// Single precision
    F32,
}

/// Show what a checkpoint or model file holds, and everything that its pickle would have called.
///
/// Nothing of the file is executed. The exit status is 1 if `convert` would refuse the file.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  ferroyolo inspect unknown.pt --json -")]
pub struct Inspect {
    /// A .pt, .pth, .pkl or .safetensors file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write one JSON object to this file; `-` is stdout, in place of the text
    #[arg(long, value_name = "PATH|-")]
    pub json: Option<PathBuf>,
}

/// List the devices that models can run on, with what they have and what they lack.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ferroyolo devices\n  ferroyolo devices --json -")]
pub struct Devices {
    /// Write one JSON object to this file; `-` is stdout, in place of the text
    #[arg(long, value_name = "PATH|-")]
    pub json: Option<PathBuf>,
}

impl fmt::Display for ImgSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImgSize([h, w]) = self;
        write!(f, "{h},{w}")
    }
}

/// What a worker process needs to know.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  ferroyolo predict --policy process starts the workers that it needs")]
pub struct Worker {
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Size of the network's input as asked for, `[height, width]` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImgSize(pub [usize; 2]);

/// More workers than this only cost memory.
const MAX_WORKERS: usize = 256;

/// More runs than this make no figure more certain.
const MAX_RUNS: usize = 1_000_000;

/// A size of the network's input, `N` or `H,W`.
pub fn parse_imgsz(text: &str) -> Result<ImgSize, String> {
    const MAX_SIDE: usize = PredictOptions::MAX_SIDE;
    let side = |part: &str| match part.trim().parse::<usize>() {
        Ok(0) => Err("a side can't be 0".to_string()),
        Ok(side) if side > MAX_SIDE => Err(format!("{side} is more than {MAX_SIDE} pixels")),
        Ok(side) => Ok(side),
        Err(_) => Err(format!("expected a number N or two, H,W; got '{part}'")),
    };
    match text.split(',').collect::<Vec<_>>()[..] {
        [n] => side(n).map(|n| ImgSize([n, n])),
        [h, w] => Ok(ImgSize([side(h)?, side(w)?])),
        _ => Err("expected a number N or two, H,W".into()),
    }
}

/// A number from 0 to 1.
pub fn parse_share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        Ok(_) => Err("expected a number from 0 to 1".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A number of at least 1.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

/// A number of pictures.
pub fn parse_batch(text: &str) -> Result<usize, String> {
    const MAX_BATCH: usize = PredictOptions::MAX_BATCH;
    let n = parse_count(text)?;
    if n > MAX_BATCH { Err(format!("expected at most {MAX_BATCH}")) } else { Ok(n) }
}

fn parse_workers(text: &str) -> Result<usize, String> {
    let n = parse_count(text)?;
    if n > MAX_WORKERS { Err(format!("expected at most {MAX_WORKERS}")) } else { Ok(n) }
}

fn parse_runs(text: &str) -> Result<usize, String> {
    parse_count(text)?;
    parse_warmup(text)
}

fn parse_warmup(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n > MAX_RUNS => Err(format!("expected at most {MAX_RUNS}")),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "gpu" => Ok(Device::Gpu(None)),
        _ => match text.strip_prefix("gpu:").map(str::parse) {
            Some(Ok(idx)) => Ok(Device::Gpu(Some(idx))),
            _ => Err("expected auto, cpu, gpu or gpu:N".into()),
        },
    }
}

/// The arguments that ask another process of this program for the model of `args`, with `threads`.
pub fn model_args(args: &ModelArgs, threads: Option<usize>) -> Vec<OsString> {
    let mut list = Vec::new();
    let mut add = |flag: &str, value: OsString| list.extend([OsString::from(flag), value]);
    if let Some(model) = &args.model {
        add("--model", model.clone().into());
    }
    if let Some(task) = args.task {
        add("--task", task.as_str().into());
    }
    if let Some(threads) = threads {
        add("--threads", threads.to_string().into());
    }
    if let Some(isa) = &args.isa {
        add("--isa", isa.into());
    }
    add("--device", device_name(args.device).into());
    add("--precision", precision_name(args.precision).into());
    add("--tune", tuning_name(args.tune).into());
    // What they need has been fetched by then.
    list.push("--offline".into());
    list
}

/// `device` as `--device` takes it.
fn device_name(device: Device) -> String {
    match device {
        Device::Auto => "auto".into(),
        Device::Cpu => "cpu".into(),
        Device::Gpu(None) => "gpu".into(),
        Device::Gpu(Some(idx)) => format!("gpu:{idx}"),
    }
}

/// `precision` as `--precision` takes it.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::F16 => "f16",
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    }
}

/// `tuning` as `--tune` takes it.
fn tuning_name(tuning: Tuning) -> &'static str {
    match tuning {
        Tuning::Auto => "auto",
        Tuning::Off => "off",
        Tuning::Always => "always",
    }
}

fn parse_tuning(text: &str) -> Result<Tuning, String> {
    match text {
        "auto" => Ok(Tuning::Auto),
        "off" => Ok(Tuning::Off),
        "always" => Ok(Tuning::Always),
        _ => Err("expected auto, off or always".into()),
    }
}

fn parse_task(text: &str) -> Result<Task, String> {
    let all =
        [Task::Detect, Task::Segment, Task::Pose, Task::Obb, Task::Classify, Task::Semantic, Task::Depth];
    all.into_iter().find(|task| task.as_str() == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|task| task.as_str()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn parse_precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "f16" => Ok(Precision::F16),
        "bf16" => Ok(Precision::Bf16),
        "int8" => Ok(Precision::Int8),
        _ => Err("expected f32, f16, bf16 or int8".into()),
    }
}

/// The name of a head.
pub fn parse_head(text: &str) -> Result<Head, String> {
    match text {
        "auto" => Ok(Head::Auto),
        "one2many" => Ok(Head::OneToMany),
        "one2one" => Ok(Head::OneToOne),
        _ => Err("expected auto, one2many or one2one".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn grammar_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Args::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("ferroyolo "), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_imgsz("640"), Ok(ImgSize([640, 640])));
        assert_eq!(parse_imgsz("480,640"), Ok(ImgSize([480, 640])));
        for bad in ["", "0", "640,0", "1,2,3", "x", "-1", "6.5", "99999999999999999999", "1000000"] {
            assert!(parse_imgsz(bad).is_err(), "{bad}");
        }
        // What the library takes, and no more.
        assert_eq!(parse_imgsz("8192,32"), Ok(ImgSize([8192, 32])));
        for bad in ["8193", "32,8193"] {
            assert_eq!(parse_imgsz(bad), Err("8193 is more than 8192 pixels".into()));
        }
    }

    #[test]
    fn ways_of_sharing() {
        assert_eq!(parse_ways("all").unwrap().0.len(), 6);
        let pool = Way::Policy("pool".parse().unwrap());
        assert_eq!(parse_ways("pool,separate-models,pool"), Ok(Ways(vec![pool, Way::SeparateModels])));
        assert!(parse_ways("").is_err() && parse_ways("pool,").is_err() && parse_ways("All").is_err());
    }

    #[test]
    fn shares_and_counts() {
        assert_eq!(parse_share("0"), Ok(0.0));
        assert_eq!(parse_share("1"), Ok(1.0));
        for bad in ["-0.1", "1.01", "nan", "inf", "", "x"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
        assert!(parse_count("0").is_err() && parse_count("1").is_ok());
        assert!(parse_runs("0").is_err() && parse_runs("1000001").is_err() && parse_runs("1000000").is_ok());
        assert!(parse_warmup("0").is_ok() && parse_warmup("1000001").is_err());
        assert!(parse_workers("0").is_err() && parse_workers("257").is_err() && parse_workers("256").is_ok());
        assert!(parse_batch("4097").is_err() && parse_batch("4096").is_ok());
    }

    #[test]
    fn devices() {
        for device in [Device::Auto, Device::Cpu, Device::Gpu(None), Device::Gpu(Some(2))] {
            assert_eq!(parse_device(&device_name(device)), Ok(device));
        }
        for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8] {
            assert_eq!(parse_precision(precision_name(precision)), Ok(precision));
        }
        for tuning in [Tuning::Auto, Tuning::Off, Tuning::Always] {
            assert_eq!(parse_tuning(tuning_name(tuning)), Ok(tuning));
        }
        assert!(parse_tuning("on").is_err());
        assert!(matches!(parse_device("gpu:3"), Ok(Device::Gpu(Some(3)))));
        for bad in ["gpu:", "gpu:x", "cuda", ""] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }
}
