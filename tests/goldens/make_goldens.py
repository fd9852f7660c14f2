"""Writes narrow networks with made-up weights, and what PyTorch computes of them.

    python make_goldens.py [FOLDER]

`NAME.model.safetensors` is a model file, `NAME.safetensors` holds `images`, `output0` and `one2one` where the head
has that branch. Everything follows from SEED. Kernels are random; scale and bias are then settled, convolution by
convolution in the order in which they run, so that activations have the size that trained networks have: without
that, outputs would be saturated or nearly constant, and a wrong sum would not show.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blocks import (
    CONCAT, UPSAMPLE, Module, bottleneck, box_branch, c2f, c2psa, c3k, chain, conv, listed, module, plain, psa_block, sppf,
)
import families
from reference import Network, Node, differences, write_safetensors

SEED = 20
IMAGE_HW = (64, 96)

# Pictures on which weights are settled: more and larger ones, because coarse levels of one picture have few cells.
SETTLING_NHW = (4, 160, 192)

# Smallest part of a channel's root mean square that its standard deviation is taken for.
MIN_VARIATION = 0.3

# What rounding in f32 may do to PyTorch's own outputs: a fifth of the tolerances of tests/lib.rs.
MAX_ROUNDING = {"boxes": 0.002, "scores": 2e-5, "others": 2e-4}

def detect8() -> dict[str, Any]:
    """The shape of YOLOv8: C2f, three pools, class branches of full convolutions, distributions over 16 values."""
    n_classes, c = 5, (8, 12, 16, 24, 30)

    def stages(width: int, n: int, add: bool = True) -> list[Module]:
        return [bottleneck(width // 2, width // 2, add) for _ in range(n)]

    body = [
        ([-1], conv(3, c[0], 3, 2)),
        ([0], conv(c[0], c[1], 3, 2)),
        ([1], c2f(c[1], c[1], stages(c[1], 1))),
        ([2], conv(c[1], c[2], 3, 2)),
        ([3], c2f(c[2], c[2], stages(c[2], 2))),
        ([4], conv(c[2], c[3], 3, 2)),
        ([5], c2f(c[3], c[3], stages(c[3], 2))),
        ([6], conv(c[3], c[4], 3, 2)),
        ([7], c2f(c[4], c[4], stages(c[4], 1))),
        # From before the number of pools and the shortcut were attributes.
        ([8], sppf(c[4], {}, "SiLU")),
        ([9], UPSAMPLE),
        ([10, 6], CONCAT),
        ([11], c2f(c[4] + c[3], c[3], stages(c[3], 1, add=False))),
        ([12], UPSAMPLE),
        ([13, 4], CONCAT),
        ([14], c2f(c[3] + c[2], c[2], stages(c[2], 1, add=False))),
        ([15], conv(c[2], c[2], 3, 2)),
        ([16, 12], CONCAT),
        ([17], c2f(c[2] + c[3], c[3], stages(c[3], 1, add=False))),
        ([18], conv(c[3], c[3], 3, 2)),
        ([19, 9], CONCAT),
        ([20], c2f(c[3] + c[4], c[4], stages(c[4], 1, add=False))),
    ]
    widths = c[2:]
    classes = [chain(conv(w, 9, 3), conv(9, 9, 3), plain(9, n_classes)) for w in widths]
    head = module(
        "Detect", {"nc": n_classes, "nl": 3, "reg_max": 16, "no": n_classes + 64},
        cv2=listed("ModuleList", [box_branch(w, 12, 16) for w in widths]),
        cv3=listed("ModuleList", classes),
        dfl=module("DFL", {"c1": 16}),
    )
    return document(n_classes, [*body, ([15, 18, 21], head)], "model.{}")


def detect26() -> dict[str, Any]:
    """The shape of YOLO26: C3k2 with all it can hold, attention, depthwise class branches, two heads."""
    n_classes, c = 3, (8, 12, 16, 24, 32)

    def c3k2(c_in: int, c_out: int, inner: str) -> Module:
        half = c_out // 2
        stage = {
            "plain": lambda: bottleneck(half, half // 2),
            "c3k": lambda: c3k(half),
            "attention": lambda: chain(bottleneck(half, half // 2), psa_block(half, 2, half // 4)),
        }[inner]()
        return c2f(c_in, c_out, [stage], "C3k2")

    body = [
        ([-1], conv(3, c[0], 3, 2)),
        ([0], conv(c[0], c[1], 3, 2)),
        ([1], c3k2(c[1], c[2], "plain")),
        ([2], conv(c[2], c[2], 3, 2)),
        ([3], c3k2(c[2], c[3], "plain")),
        ([4], conv(c[3], c[3], 3, 2)),
        ([5], c3k2(c[3], c[3], "c3k")),
        ([6], conv(c[3], c[4], 3, 2)),
        ([7], c3k2(c[4], c[4], "c3k")),
        ([8], sppf(c[4], {"n": 3, "add": True}, "Identity")),
        ([9], c2psa(c[4], 2, 4)),
        ([10], UPSAMPLE),
        ([11, 6], CONCAT),
        ([12], c3k2(c[4] + c[3], c[3], "c3k")),
        ([13], UPSAMPLE),
        ([14, 4], CONCAT),
        ([15], c3k2(2 * c[3], c[2], "plain")),
        ([16], conv(c[2], c[2], 3, 2)),
        ([17, 13], CONCAT),
        ([18], c3k2(c[2] + c[3], c[3], "plain")),
        ([19], conv(c[3], c[3], 3, 2)),
        ([20, 10], CONCAT),
        ([21], c3k2(c[3] + c[4], c[4], "attention")),
    ]
    widths = c[2:]

    def class_branch(width: int) -> Module:
        hidden = 10
        first = chain(conv(width, width, 3, kind="DWConv"), conv(width, hidden))
        second = chain(conv(hidden, hidden, 3, kind="DWConv"), conv(hidden, hidden))
        return chain(first, second, plain(hidden, n_classes))

    branches = {}
    for prefix in ("", "one2one_"):
        branches[f"{prefix}cv2"] = listed("ModuleList", [box_branch(w, 10, 1) for w in widths])
        branches[f"{prefix}cv3"] = listed("ModuleList", [class_branch(w) for w in widths])
    # Fewer rows than anchors, so that the choice of rows is tested too.
    attrs = {"nc": n_classes, "nl": 3, "reg_max": 1, "no": n_classes + 4, "max_det": 50}
    head = module("Detect", attrs, dfl=module("Identity"), **branches)
    return document(n_classes, [*body, ([16, 19, 22], head)], "model.{}")


def detectx() -> dict[str, Any]:
    """The shape of YOLOX: Focus stem, CSP layers, depthwise-separable convolutions, objectness."""
    n_classes, c = 4, (8, 12, 20, 24, 32)

    def base(c_in: int, c_out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Module:
        return module("yolox.BaseConv", None, conv=plain(c_in, c_out, k, stride, groups), act=module("SiLU"))

    def separable(c_in: int, c_out: int, stride: int = 1) -> Module:
        return module("yolox.DWConv", None, dconv=base(c_in, c_in, 3, stride, c_in), pconv=base(c_in, c_out))

    def csp(c_in: int, c_out: int, n: int, add: bool) -> Module:
        half = c_out // 2
        stage = [
            module("yolox.Bottleneck", {"use_add": add}, conv1=base(half, half), conv2=separable(half, half))
            for _ in range(n)
        ]
        convs = {"conv1": base(c_in, half), "conv2": base(c_in, half), "conv3": base(2 * half, c_out)}
        return module("yolox.CSPLayer", None, **convs, m=chain(*stage))

    hidden = c[4] // 2
    pools = module(
        "yolox.SPPBottleneck", {"kernel_sizes": [5, 9, 13]}, conv1=base(c[4], hidden), conv2=base(4 * hidden, c[4])
    )
    body = [
        ([-1], module("yolox.Focus", None, conv=base(12, c[0], 3))),
        ([0], separable(c[0], c[1], 2)),
        ([1], csp(c[1], c[1], 1, True)),
        ([2], separable(c[1], c[2], 2)),
        ([3], csp(c[2], c[2], 2, True)),
        ([4], base(c[2], c[3], 3, 2)),
        ([5], csp(c[3], c[3], 2, True)),
        ([6], separable(c[3], c[4], 2)),
        ([7], pools),
        ([8], csp(c[4], c[4], 1, False)),
        ([9], base(c[4], c[3])),
        ([10], UPSAMPLE),
        ([11, 6], CONCAT),
        ([12], csp(2 * c[3], c[3], 1, False)),
        ([13], base(c[3], c[2])),
        ([14], UPSAMPLE),
        ([15, 4], CONCAT),
        ([16], csp(2 * c[2], c[2], 1, False)),
        ([17], separable(c[2], c[2], 2)),
        ([18, 14], CONCAT),
        ([19], csp(2 * c[2], c[3], 1, False)),
        ([20], separable(c[3], c[3], 2)),
        ([21, 10], CONCAT),
        ([22], csp(2 * c[3], c[4], 1, False)),
    ]
    widths, width = c[2:], 14

    def each(make: Any) -> Module:
        return listed("ModuleList", [make(w) for w in widths])

    head = module(
        "yolox.Head", {"num_classes": n_classes},
        stems=each(lambda w: base(w, width)),
        cls_convs=each(lambda _: chain(separable(width, width), separable(width, width))),
        reg_convs=each(lambda _: chain(separable(width, width), separable(width, width))),
        cls_preds=each(lambda _: plain(width, n_classes)),
        reg_preds=each(lambda _: plain(width, 4)),
        obj_preds=each(lambda _: plain(width, 1)),
    )
    made = document(n_classes, [*body, ([17, 20, 23], head)], "layers.{}")
    made["input"] = {"channels": 3, "color": "bgr", "divisor": 1.0, "letterbox": "top-left", "pad_value": 114}
    return made


def document(
    n_classes: int, layers: list[tuple[list[int], Module]], path: str, task: str = "detect",
    stride: tuple[int, ...] = (8, 16, 32), kpt_shape: list[int] | None = None,
) -> dict[str, Any]:
    return {
        "task": task,
        "names": [f"class{idx}" for idx in range(n_classes)],
        "stride": list(stride),
        "imgsz": list(IMAGE_HW),
        "input": {"channels": 3, "color": "rgb", "divisor": 255.0, "letterbox": "center", "pad_value": 114},
        "kpt_shape": kpt_shape,
        "provenance": {"producer": "ferroyolo tests/goldens", "license": "MIT OR Apache-2.0"},
        "layers": [
            {"index": idx, "from": sources, "path": path.format(idx), "module": tree}
            for idx, (sources, tree) in enumerate(layers)
        ],
    }


def of_family(name: str) -> dict[str, Any]:
    layers, facts = getattr(families, name)()
    return document(facts.pop("names"), layers, "model.{}", **facts)


NETWORKS = {"detect8": detect8, "detect26": detect26, "detectx": detectx} | {
    name: partial(of_family, name)
    for name in (
        "detect10", "segment9", "segment26", "pose8", "pose26", "obb12", "obb26", "classify", "semantic26", "depth26",
    )
}


class Settling(Network):
    """A network whose weights come into being at its first run."""

    def __init__(self, document: dict[str, Any], generator: torch.Generator) -> None:
        super().__init__(document, {})
        self.generator = generator
        self.last = self.layers[-1].path + "."

    def conv2d(self, node: Node, x: Tensor) -> Tensor:
        attrs, path = node.attrs, node.path
        shape = [attrs["out_channels"], attrs["in_channels"] // attrs["groups"], *attrs["kernel_size"]]
        kernel = torch.randn(shape, generator=self.generator)
        self.tensors[f"{path}.weight"] = (kernel / kernel[0].numel() ** 0.5).half()
        y = super().conv2d(node, x)
        mean, std = y.mean((0, 2, 3)), y.std((0, 2, 3))
        # A channel that hardly varies must not be blown up: its rounding errors would be blown up with it.
        std = torch.maximum(std, MIN_VARIATION * y.square().mean((0, 2, 3)).sqrt())
        want_mean, want_std = self.wanted(path, shape[0])
        factor = want_std / std
        if path.endswith(".conv"):
            self.tensors[f"{path}.scale"] = factor
        else:
            # Convolutions without batch norm have no scale of their own.
            self.tensors[f"{path}.weight"] = (self.tensors[f"{path}.weight"] * factor[:, None, None, None]).half()
        self.tensors[f"{path}.bias"] = want_mean - mean * factor
        return super().conv2d(node, x)

    def conv_transpose2d(self, node: Node, x: Tensor) -> Tensor:
        attrs, path = node.attrs, node.path
        shape = [attrs["in_channels"], attrs["out_channels"], *attrs["kernel_size"]]
        self.tensors[f"{path}.weight"] = torch.randn(shape, generator=self.generator) / shape[0] ** 0.5
        self.tensors[f"{path}.bias"] = torch.zeros(shape[1])
        self.rescale(path, super().conv_transpose2d(node, x), [1, -1, 1, 1])
        return super().conv_transpose2d(node, x)

    def linear(self, node: Node, x: Tensor) -> Tensor:
        n_out, n_in = node.attrs["out_features"], node.attrs["in_features"]
        self.tensors[f"{node.path}.weight"] = torch.randn(n_out, n_in, generator=self.generator) / n_in**0.5
        self.tensors[f"{node.path}.bias"] = torch.zeros(n_out)
        self.rescale(node.path, super().linear(node, x), [-1, 1])
        return super().linear(node, x)

    def rescale(self, path: str, y: Tensor, per_output: list[int]) -> None:
        """Settles a layer without scale, whose outputs are `y`; kernels are multiplied along `per_output`."""
        spread = y.transpose(0, 1).flatten(1)
        want_mean, want_std = self.wanted(path, spread.shape[0])
        factor = want_std / spread.std(1)
        kernel = self.tensors[f"{path}.weight"] * factor.view(per_output)
        self.tensors[f"{path}.weight"] = kernel.half()
        self.tensors[f"{path}.bias"] = want_mean - spread.mean(1) * factor

    def apply(self, node: Node, x: Tensor) -> Tensor:
        if node.attrs.pop("has_gamma", False):
            n_out = node["cv2"]["conv"].attrs["out_channels"]
            self.tensors[f"{node.path}.gamma"] = 0.3 + 0.5 * torch.randn(n_out, generator=self.generator)
        return super().apply(node, x)

    def wanted(self, path: str, n: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each output channel."""
        around = 0.4 * torch.randn(n, generator=self.generator)
        spread = 0.7 + 0.6 * torch.rand(n, generator=self.generator)
        if path.endswith(".conv"):
            return around, spread
        part = path.removeprefix(self.last).split(".")[0]
        is_classes = part.endswith(("cv3", "cls_preds"))
        if is_classes:
            return around - 1.0, 1.5 * spread
        if part.endswith("cv2") and n == 4:
            return around + 2.5, 0.8 * spread
        return around, spread


def pictures(n: int, h: int, w: int, generator: torch.Generator) -> Tensor:
    """Blobs of several sizes, [n, 3, h, w] from 0 to 1: noise alone would leave nothing for the coarse levels."""
    def enlarged(step: int) -> Tensor:
        noise = torch.rand(n, 3, h // step, w // step, generator=generator)
        return torch.nn.functional.interpolate(noise, (h, w), mode="bilinear")

    blobs = sum(enlarged(step) for step in (1, 4, 16, 32)) - 2.0
    return (0.5 + 0.5 * blobs).clamp(0.0, 1.0)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    # Sums in one order only, so that the files don't depend on the number of CPUs.
    torch.set_num_threads(1)
    for name, make in NETWORKS.items():
        generator = torch.Generator().manual_seed(SEED)
        made = Settling(make(), generator)
        head = made.layers[-1]
        if head.kind == "Depth":
            made.tensors |= {f"{head.path}.cal_a": torch.tensor([0.6]), f"{head.path}.cal_b": torch.tensor([0.4])}
        made.run(pictures(*SETTLING_NHW, generator))
        metadata = {"ferroyolo.format": "1", "ferroyolo.model": json.dumps(made.document, separators=(",", ":"))}
        model = folder / f"{name}.model.safetensors"
        write_safetensors(model, made.tensors, metadata)

        network = Network.open(model)
        images = pictures(1, *IMAGE_HW, generator)
        golden = network.run(images)
        exact = network.run(images.double())
        for output, value in golden.items():
            rounding = differences(made.document, output, value.double(), exact[output])
            found = ", ".join(f"{kind} {largest:.1e}" for kind, largest in rounding.items())
            print(f"{name}: {output} {list(value.shape)}: {value.min():.3f} to {value.max():.3f}, rounding of {found}")
            if any(largest > MAX_ROUNDING[kind] for kind, largest in rounding.items()):
                sys.exit(f"{name}: {output} is too sensitive to rounding to be a golden")
        write_safetensors(folder / f"{name}.safetensors", {"images": images, **golden})


if __name__ == "__main__":
    main()
