"""Writes trained weights as a ferroyolo model file (see `docs/model-format.md`).

    python export.py --weights /tmp/demo/weights.pt --out demo.safetensors
    python export.py --task segment --weights /tmp/demo/tasks/segment.pt --out segment.safetensors

Kernels are stored in half precision; batch normalisation becomes a scale and a bias per output channel, in f64 first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import shapes
from blocks import Conv
from heads import KPT_SHAPE, STRIDES
from maps import SEMANTIC_NAMES
from network import TASKS, Network
from scenes import SIZE
from train_classify import SIDE

LICENSE = "MIT OR Apache-2.0"


def names_of(task: str) -> tuple[str, ...]:
    """What the classes of a network are called."""
    return {"semantic": SEMANTIC_NAMES, "depth": ("distance",)}.get(task, shapes.NAMES)


def conv_attrs(conv: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    """What the engine has to know of a convolution."""
    return {
        "in_channels": conv.in_channels, "out_channels": conv.out_channels, "kernel_size": list(conv.kernel_size),
        "stride": list(conv.stride), "padding": list(conv.padding), "dilation": list(conv.dilation),
        "groups": conv.groups,
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's own kernel in half precision and its bias in single precision."""
    weights = {"weight": module.weight.half().contiguous()}
    return weights if module.bias is None else weights | {"bias": module.bias.float()}


def scalar_attrs(module: nn.Module) -> dict[str, Any]:
    """Numbers, texts and truth values a module holds under its own names."""
    scalars = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))}
    return {k: v for k, v in scalars.items() if not k.startswith("_") and k not in ("training", "inplace")}


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and bias [c_out] that equal the batch normalisation behind a convolution without bias."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return scale.float(), bias.float()


def describe(module: nn.Module, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The module tree below `module`; the tensors that it needs are added to `tensors`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        tensors |= {f"{path}.{name}": value for name, value in weights_of(module).items()}
        attrs = scalar_attrs(module) if isinstance(module, nn.Linear) else conv_attrs(module)
        return {"class": type(module).__name__, "attrs": attrs, "children": []}
    children = dict(module.named_children())
    tensors |= {f"{path}.{name}": value for name, value in module.named_buffers(recurse=False)}
    if isinstance(module, Conv):
        tensors[f"{path}.conv.scale"], tensors[f"{path}.conv.bias"] = fold(module.conv, module.bn)
        del children["bn"]
    return {
        "class": type(module).__name__,
        "attrs": scalar_attrs(module),
        "children": [[name, describe(child, f"{path}.{name}", tensors)] for name, child in children.items()],
    }


def export(net: Network, out: Path) -> None:
    """Writes the network to `out`."""
    tensors: dict[str, Tensor] = {}
    layers = [
        {"index": i, "from": sources, "path": f"model.{i}", "module": describe(layer, f"model.{i}", tensors)}
        for i, (layer, sources) in enumerate(zip(net.model, net.sources))
    ]
    document = {
        "task": net.task,
        "names": list(names_of(net.task)),
        "stride": [STRIDES[-1]] if net.task in ("classify", "semantic", "depth") else list(STRIDES),
        "imgsz": [SIDE, SIDE] if net.task == "classify" else [SIZE, SIZE],
        "input": {"channels": 3, "color": "rgb", "divisor": 255.0, "letterbox": "center", "pad_value": 114},
        "kpt_shape": list(KPT_SHAPE) if net.task == "pose" else None,
        "provenance": {"producer": "ferroyolo tools/demo", "license": LICENSE},
        "layers": layers,
    }
    text = json.dumps(document, separators=(",", ":"))
    save_file(tensors, out, {"ferroyolo.format": "1", "ferroyolo.model": text})


def load(weights: Path, task: str) -> Network:
    """The trained network, ready to predict."""
    net = Network(len(names_of(task)), task)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo network as a model file.")
    parser.add_argument("--task", choices=TASKS, default="detect")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(load(args.weights, args.task), args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
