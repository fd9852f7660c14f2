//! The grammar of `ferroyolo val`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use ferroyolo::Head;

use crate::args::{ImgSize, ModelArgs, parse_batch, parse_count, parse_head, parse_imgsz, parse_share};

/// Measure how good a model is on a labelled data set.
///
/// Prints a table of precision, recall and average precision by class (top-1 and top-5 for classifiers, mean
/// intersection over union for class maps). Pictures and labels that can't be read are told and left out; the exit
/// status is then 1.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ferroyolo val -m yolo11n.pt -d coco128.yaml --save out\n  \
                  ferroyolo val -m yolo11n-cls.pt -d imagenette --split val --json -\n  \
                  ferroyolo val -m yolox_nano.pth -d coco.yaml --iou 0.65 --save-json boxes.json")]
pub struct Val {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The YAML file of the data set; for classifiers the folder with SPLIT/CLASS/PICTURE
    #[arg(short, long, value_name = "DATA")]
    pub data: PathBuf,
    /// The part of the data set to use
    #[arg(long, value_enum, default_value = "val")]
    pub split: Split,
    /// Size of the network's input: N for a square, or H,W [default: what the model was trained for]
    #[arg(long, value_name = "N|H,W", value_parser = parse_imgsz)]
    pub imgsz: Option<ImgSize>,
    /// Pictures of like proportions that share an input size. They go through the network one by one
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_batch)]
    pub batch: usize,
    /// Keep detections whose confidence is above this [default: 0.001, for turned boxes 0.01]
    #[arg(long, value_name = "0..1", value_parser = parse_share)]
    pub conf: Option<f32>,
    /// Of two boxes of a class that overlap more than this, keep the better
    #[arg(long, value_name = "0..1", default_value = "0.7", value_parser = parse_share)]
    pub iou: f32,
    /// Most detections for an image
    #[arg(long, value_name = "N", default_value = "300", value_parser = parse_count)]
    pub max_det: usize,
    /// Let boxes of different classes suppress each other
    #[arg(long)]
    pub agnostic_nms: bool,
    /// Pad to the full input size, not only to that which a batch needs
    #[arg(long)]
    pub no_rect: bool,
    /// Which head of the network to read: auto, one2many or one2one
    #[arg(long, value_name = "HEAD", default_value = "auto", value_parser = parse_head)]
    pub head: Head,
    /// Save the confusion matrix and the curves as PNG files in this directory
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Write all detections to this file, as a list in COCO's form for other evaluation tools
    #[arg(long, value_name = "PATH")]
    pub save_json: Option<PathBuf>,
    /// Write the metrics as one JSON object to this file; `-` is stdout, in place of the table
    #[arg(long, value_name = "PATH|-")]
    pub json: Option<PathBuf>,
    /// Print no progress and no notices; errors are still told
    #[arg(short, long)]
    pub quiet: bool,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What the model was trained on
    Train,
    /// What it is judged by while it is trained
    Val,
    /// What it has never seen
    Test,
}

impl Split {
    /// Its name in data sets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}
