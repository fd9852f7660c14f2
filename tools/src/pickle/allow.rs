//! The exact list of globals that a checkpoint may name, and what each stands for.
//!
//! A name that is not here is refused, whatever its module. Nothing on the list is ever imported or called: the list
//! exists so that a checkpoint with anything unexpected in it is turned away as a whole.

use crate::error::printable;
use crate::torch::ScalarType;

/// What an allowed global stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OrderedDict,
    Set,
    Size,
    /// Python's `getattr`, which checkpoints use to name members of enumerations.
    Getattr,
    Storage(ScalarType),
    RebuildTensor,
    RebuildParameter,
    /// A class of `torch.nn.Module`s; made by NEWOBJ, filled by BUILD.
    Module,
    /// A class of plain records; made and filled in the same way.
    Record,
    /// Something that gives a value when called: a path, a number, a device. The call is recorded.
    Maker,
    /// A name that stands for itself, such as `torch.float32`.
    Constant,
}

/// What `module.name` stands for, or why it is refused.
pub(crate) fn lookup(module: &str, name: &str) -> Result<Kind, String> {
    if let Some(kind) = kind(module, name) {
        return Ok(kind);
    }
    let global = format!("global `{} {}`", printable(module), printable(name));
    let package = module.split('.').next().unwrap_or_default();
    Err(match (package, module) {
        ("models", _) | (_, "utils.autoanchor" | "utils.general" | "utils.torch_utils") => {
            format!(
                "{global} belongs to the yolov5 repository, whose anchor-based checkpoints are not supported"
            )
        }
        ("ultralytics", _) if !name.starts_with(char::is_lowercase) => {
            format!("{global} is not on the allow-list: not a class of ultralytics that is known here")
        }
        _ => format!("{global} is not on the allow-list"),
    })
}

fn kind(module: &str, name: &str) -> Option<Kind> {
    let is = |names: &[&str], kind| names.contains(&name).then_some(kind);
    match module {
        "collections" => is(&["OrderedDict"], Kind::OrderedDict),
        "__builtin__" | "builtins" => is(&["set"], Kind::Set).or_else(|| is(&["getattr"], Kind::Getattr)),
        "torch" => torch_kind(name),
        "torch._utils" => is(&["_rebuild_tensor_v2"], Kind::RebuildTensor)
            .or_else(|| is(&["_rebuild_parameter"], Kind::RebuildParameter)),
        "types" => is(&["SimpleNamespace"], Kind::Record),
        "argparse" => is(&["Namespace"], Kind::Record),
        "datetime" => is(&["datetime", "date", "timedelta", "timezone"], Kind::Maker),
        "_codecs" => is(&["encode"], Kind::Maker),
        "pathlib" | "pathlib._local" => is(
            &["Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"],
            Kind::Maker,
        ),
        "numpy" => is(&["dtype"], Kind::Maker).or_else(|| is(NUMPY_SCALARS, Kind::Maker)),
        "numpy.core.multiarray" | "numpy._core.multiarray" => is(&["scalar"], Kind::Maker),
        "torchvision.transforms.transforms" => is(TORCHVISION, Kind::Record),
        "torchvision.transforms.functional" => is(&["InterpolationMode"], Kind::Maker),
        _ if module.starts_with("torch.nn.modules.") => {
            let file = &module["torch.nn.modules.".len()..];
            let names = TORCH_NN.iter().find(|(of, _)| *of == file)?.1;
            is(names, Kind::Module)
        }
        _ if module.starts_with("ultralytics.") => {
            // Before 8.0.136 the package lay one level deeper.
            let path = &module["ultralytics.".len()..];
            ultralytics_kind(path.strip_prefix("yolo.").unwrap_or(path), name)
        }
        _ => None,
    }
}

fn torch_kind(name: &str) -> Option<Kind> {
    Some(match name {
        "Size" => Kind::Size,
        "device" => Kind::Maker,
        "float16" | "float32" | "float64" | "bfloat16" | "uint8" | "int8" | "int16" | "int32" | "int64"
        | "bool" | "strided" | "contiguous_format" | "channels_last" | "preserve_format" => Kind::Constant,
        _ => Kind::Storage(ScalarType::from_storage_name(name)?),
    })
}

fn ultralytics_kind(path: &str, name: &str) -> Option<Kind> {
    let (names, kind): (&[&[&str]], _) = match path {
        // The module before it was a package.
        "nn.modules" => (&[CONV, BLOCK, HEAD, TRANSFORMER], Kind::Module),
        "nn.modules.conv" => (&[CONV], Kind::Module),
        "nn.modules.block" => (&[BLOCK], Kind::Module),
        "nn.modules.head" => (&[HEAD], Kind::Module),
        "nn.modules.transformer" => (&[TRANSFORMER], Kind::Module),
        "nn.tasks" => (&[TASKS], Kind::Module),
        "utils" => (&[&["IterableSimpleNamespace"]], Kind::Record),
        "utils.loss" | "utils.tal" => (&[LOSSES], Kind::Record),
        "data.augment" => (&[&["ClassifyLetterBox", "CenterCrop", "ToTensor"]], Kind::Record),
        _ => return None,
    };
    names.iter().any(|names| names.contains(&name)).then_some(kind)
}

const NUMPY_SCALARS: &[&str] = &[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool_",
];

const TORCHVISION: &[&str] = &[
    "Compose",
    "ToTensor",
    "PILToTensor",
    "ConvertImageDtype",
    "Normalize",
    "Resize",
    "CenterCrop",
    "RandomResizedCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "ColorJitter",
    "RandomErasing",
];

/// Files of `torch.nn.modules` and their classes.
const TORCH_NN: &[(&str, &[&str])] = &[
    (
        "activation",
        &[
            "CELU",
            "ELU",
            "GELU",
            "GLU",
            "Hardsigmoid",
            "Hardswish",
            "Hardtanh",
            "LeakyReLU",
            "LogSigmoid",
            "Mish",
            "MultiheadAttention",
            "PReLU",
            "RReLU",
            "ReLU",
            "ReLU6",
            "SELU",
            "Sigmoid",
            "SiLU",
            "Softmax",
            "Softplus",
            "Softsign",
            "Tanh",
            "Threshold",
        ],
    ),
    ("batchnorm", &["BatchNorm1d", "BatchNorm2d", "SyncBatchNorm"]),
    ("channelshuffle", &["ChannelShuffle"]),
    ("container", &["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]),
    ("conv", &["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]),
    ("dropout", &["Dropout", "Dropout1d", "Dropout2d"]),
    ("flatten", &["Flatten", "Unflatten"]),
    ("fold", &["Fold", "Unfold"]),
    ("instancenorm", &["InstanceNorm1d", "InstanceNorm2d"]),
    ("linear", &["Identity", "Linear", "NonDynamicallyQuantizableLinear"]),
    (
        "loss",
        &["BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss", "NLLLoss", "SmoothL1Loss"],
    ),
    ("normalization", &["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]),
    ("padding", &["ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"]),
    ("pixelshuffle", &["PixelShuffle", "PixelUnshuffle"]),
    (
        "pooling",
        &[
            "AdaptiveAvgPool1d",
            "AdaptiveAvgPool2d",
            "AdaptiveMaxPool2d",
            "AvgPool1d",
            "AvgPool2d",
            "MaxPool1d",
            "MaxPool2d",
        ],
    ),
    ("sparse", &["Embedding"]),
    ("upsampling", &["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]),
];

const CONV: &[&str] = &[
    "CBAM",
    "ChannelAttention",
    "Concat",
    "Conv",
    "Conv2",
    "ConvTranspose",
    "DWConv",
    "DWConvTranspose2d",
    "Focus",
    "GhostConv",
    "Index",
    "LightConv",
    "RepConv",
    "SpatialAttention",
];

const BLOCK: &[&str] = &[
    "A2C2f",
    "AAttn",
    "ABlock",
    "AConv",
    "ADown",
    "Attention",
    "BNContrastiveHead",
    "Bottleneck",
    "BottleneckCSP",
    "C1",
    "C2",
    "C2PSA",
    "C2f",
    "C2fAttn",
    "C2fCIB",
    "C2fPSA",
    "C3",
    "C3Ghost",
    "C3TR",
    "C3f",
    "C3k",
    "C3k2",
    "C3x",
    "CBFuse",
    "CBLinear",
    "CIB",
    "ContrastiveHead",
    "DFL",
    "ELAN1",
    "GhostBottleneck",
    "HGBlock",
    "HGStem",
    "ImagePoolingAttn",
    "MaxSigmoidAttnBlock",
    "PSA",
    "PSABlock",
    "Proto",
    "Proto26",
    "RealNVP",
    "RepBottleneck",
    "RepC3",
    "RepCSP",
    "RepNCSPELAN4",
    "RepVGGDW",
    "ResNetBlock",
    "ResNetLayer",
    "Residual",
    "SAVPE",
    "SCDown",
    "SPP",
    "SPPELAN",
    "SPPF",
    "Silence",
    "SwiGLUFFN",
    "TorchVision",
];

const HEAD: &[&str] = &[
    "Classify",
    "Depth",
    "Detect",
    "LRPCHead",
    "OBB",
    "OBB26",
    "Pose",
    "Pose26",
    "RTDETRDecoder",
    "Segment",
    "Segment26",
    "SemanticSegment",
    "WorldDetect",
    "YOLOEDetect",
    "YOLOESegment",
    "YOLOESegment26",
    "v10Detect",
];

const TRANSFORMER: &[&str] = &[
    "AIFI",
    "DeformableTransformerDecoder",
    "DeformableTransformerDecoderLayer",
    "LayerNorm2d",
    "MLP",
    "MLPBlock",
    "MSDeformAttn",
    "TransformerBlock",
    "TransformerEncoderLayer",
    "TransformerLayer",
];

const TASKS: &[&str] = &[
    "BaseModel",
    "ClassificationModel",
    "DepthModel",
    "DetectionModel",
    "OBBModel",
    "PoseModel",
    "RTDETRDetectionModel",
    "SegmentationModel",
    "SemanticSegmentationModel",
    "WorldModel",
    "YOLOEModel",
    "YOLOESegModel",
    "YOLOv10DetectionModel",
];

/// Left in the model by an interrupted training.
const LOSSES: &[&str] = &[
    "BboxLoss",
    "DFLoss",
    "E2EDetectLoss",
    "E2ELoss",
    "KeypointLoss",
    "PoseLoss26",
    "RLELoss",
    "RotatedBboxLoss",
    "RotatedTaskAlignedAssigner",
    "TaskAlignedAssigner",
    "VarifocalLoss",
    "v8ClassificationLoss",
    "v8DetectionLoss",
    "v8OBBLoss",
    "v8PoseLoss",
    "v8SegmentationLoss",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_paths_are_known() {
        for (module, name) in [
            ("ultralytics.nn.modules.conv", "Conv"),
            ("ultralytics.nn.modules", "C2f"),
            ("ultralytics.nn.modules.block", "Silence"),
            ("ultralytics.nn.tasks", "YOLOv10DetectionModel"),
            ("torch.nn.modules.activation", "SiLU"),
        ] {
            assert_eq!(lookup(module, name), Ok(Kind::Module), "{module}.{name}");
        }
        assert_eq!(lookup("ultralytics.yolo.utils", "IterableSimpleNamespace"), Ok(Kind::Record));
        assert_eq!(lookup("torch", "HalfStorage"), Ok(Kind::Storage(ScalarType::F16)));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "__import__"),
            ("torch", "load"),
            ("torch.nn.modules", "Conv2d"),
            ("torch.nn.modules.conv", "os"),
            ("torch.nn.modules.conv", "Conv2d.forward"),
            ("torch._dynamo.guards", "GuardBuilder.get"),
            ("ultralytics.nn.tasks", "attempt_load_weights"),
            ("ultralytics.nn.modules.block", "Detect"),
            ("ultralytics.utils", "TryExcept"),
            ("numpy.testing._private.utils", "runstring"),
            ("", ""),
        ] {
            let reason = lookup(module, name).unwrap_err();
            assert!(reason.contains(&format!("`{module} {name}`")), "{reason}");
        }
    }

    #[test]
    fn checkpoints_of_the_yolov5_repository_are_told_so() {
        for module in ["models.yolo", "models.common"] {
            assert!(lookup(module, "Detect").unwrap_err().contains("not supported"));
        }
    }
}
