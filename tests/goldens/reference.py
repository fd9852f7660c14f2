"""A second reading of the model format: runs a ferroyolo model file with PyTorch, in f32.

Written from docs/model-format.md and from the published formulas of the blocks, apart from the Rust engine, so that
the two can be held against each other. Activations are [N, C, H, W].

    python reference.py MODEL.safetensors GOLDEN.safetensors

runs the model on the golden's `images` and tells the largest differences from its other tensors.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULT_MAX_DET = 300


class Node:
    """A module of the document with the path of its tensors."""

    def __init__(self, path: str, module: dict[str, Any]) -> None:
        self.path = path
        self.kind: str = module["class"]
        self.attrs: dict[str, Any] = module.get("attrs", {})
        self.children = {name: Node(f"{path}.{name}", child) for name, child in module.get("children", [])}

    def __getitem__(self, name: str) -> Node:
        return self.children[name]


class Network:
    """A model file's document and tensors, ready to run."""

    def __init__(self, document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.document = document
        self.tensors = tensors
        self.layers = [Node(layer["path"], layer["module"]) for layer in document["layers"]]

    @classmethod
    def open(cls, path: Path) -> Network:
        metadata, tensors = read_safetensors(path)
        if metadata["ferroyolo.format"] != "1":
            raise ValueError(f"{path}: format {metadata['ferroyolo.format']}")
        return cls(json.loads(metadata["ferroyolo.model"]), tensors)

    @torch.no_grad()
    def run(self, images: Tensor) -> dict[str, Tensor]:
        """`images`: [N, 3, H, W], RGB, 0..1, in the type in which everything is computed.

        Returns `output0` [N, 4 + classes, A] (center x, center y, width, height in pixels of the input, then scores)
        and, where the head has such a branch, `one2one` [N, k, 6] (x1, y1, x2, y2, score, class by falling score).
        """
        expected = self.document["input"]
        picture = images.flip(1) if expected["color"] == "bgr" else images
        picture = picture * (255.0 / expected["divisor"])
        outputs: list[Tensor] = []
        for layer, node in zip(self.document["layers"], self.layers):
            inputs = [outputs[idx] if idx >= 0 else picture for idx in layer["from"]]
            if layer is self.document["layers"][-1]:
                return self.head(node, inputs)
            outputs.append(torch.cat(inputs, 1) if node.kind == "Concat" else self.apply(node, *inputs))
        raise ValueError("the network has no layers")

    def apply(self, node: Node, x: Tensor) -> Tensor:
        """The output of any block that takes one value."""
        return BLOCKS[node.kind](self, node, x)

    def conv2d(self, node: Node, x: Tensor) -> Tensor:
        """The convolution at `node`; its kernel is scaled as the format says."""
        parts = {name: self.tensors.get(f"{node.path}.{name}") for name in ("weight", "scale", "bias")}
        weight, scale, bias = (None if part is None else part.to(x.dtype) for part in parts.values())
        if scale is not None:
            weight = weight * scale[:, None, None, None]
        attrs = node.attrs
        return F.conv2d(
            x, weight, bias, attrs["stride"], attrs["padding"], attrs.get("dilation", 1), attrs["groups"]
        )

    def head(self, node: Node, inputs: list[Tensor]) -> dict[str, Tensor]:
        if node.kind == "yolox.Head":
            return {"output0": self.center_size_head(node, inputs)}
        # A class attribute of the original and so absent from most checkpoints.
        reg_max, max_det = node.attrs["reg_max"], node.attrs.get("max_det", DEFAULT_MAX_DET)
        anchors, strides = self.anchors(inputs)
        out = {}
        for name, lists in {"output0": ("cv2", "cv3"), "one2one": ("one2one_cv2", "one2one_cv3")}.items():
            if lists[0] not in node.children:
                continue
            boxes, logits = (
                torch.cat([self.apply(node[part][str(level)], x).flatten(2) for level, x in enumerate(inputs)], 2)
                for part in lists
            )
            distances = boxes
            if reg_max > 1:
                n, _, a = boxes.shape
                shares = boxes.view(n, 4, reg_max, a).softmax(2)
                distances = (shares * torch.arange(reg_max, dtype=torch.float32)[:, None]).sum(2)
            x1y1, x2y2 = anchors - distances[:, :2], anchors + distances[:, 2:]
            scores = logits.sigmoid()
            if name == "output0":
                out[name] = torch.cat([(x1y1 + x2y2) / 2 * strides, (x2y2 - x1y1) * strides, scores], 1)
            else:
                out[name] = best_of(torch.cat([x1y1, x2y2], 1) * strides, scores, max_det)
        return out

    def center_size_head(self, node: Node, inputs: list[Tensor]) -> Tensor:
        levels = []
        for level, x in enumerate(inputs):
            part = {name: child[str(level)] for name, child in node.children.items()}
            stem = self.apply(part["stems"], x)
            classes = self.apply(part["cls_preds"], self.apply(part["cls_convs"], stem)).sigmoid()
            features = self.apply(part["reg_convs"], stem)
            boxes, objectness = (self.apply(part[name], features) for name in ("reg_preds", "obj_preds"))
            levels.append(torch.cat([boxes, classes * objectness.sigmoid()], 1).flatten(2))
        raw = torch.cat(levels, 2)
        anchors, strides = self.anchors(inputs)
        corner = anchors - 0.5
        return torch.cat([(raw[:, :2] + corner) * strides, raw[:, 2:4].exp() * strides, raw[:, 4:]], 1)

    def anchors(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Centers of all cells [2, A] in cells, and the stride of each [A]."""
        centers, strides = [], []
        for x, stride in zip(inputs, self.document["stride"]):
            h, w = x.shape[2:]
            ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            centers.append(torch.stack([xs.flatten(), ys.flatten()]))
            strides.append(torch.full((h * w,), float(stride)))
        return torch.cat(centers, 1), torch.cat(strides)


def best_of(xyxy: Tensor, scores: Tensor, max_det: int) -> Tensor:
    """The end-to-end rows: the k anchors with the best class, then the best k of all their classes."""
    n_classes, k = scores.shape[1], min(max_det, scores.shape[2])
    rows = []
    for boxes, by_anchor in zip(xyxy.transpose(1, 2), scores.transpose(1, 2)):
        anchors = by_anchor.max(1).values.topk(k).indices
        values, pairs = by_anchor[anchors].flatten().topk(k)
        chosen = boxes[anchors[pairs // n_classes]]
        rows.append(torch.cat([chosen, values[:, None], (pairs % n_classes)[:, None].float()], 1))
    return torch.stack(rows)


def block_conv(net: Network, m: Node, x: Tensor) -> Tensor:
    y = net.conv2d(m["conv"], x)
    return net.apply(m["act"], y) if "act" in m.children else y


def block_chain(net: Network, m: Node, x: Tensor) -> Tensor:
    for child in m.children.values():
        x = net.apply(child, x)
    return x


def block_bottleneck(net: Network, m: Node, x: Tensor) -> Tensor:
    y = net.apply(m["cv2"], net.apply(m["cv1"], x))
    return x + y if m.attrs["add"] else y


def block_c2f(net: Network, m: Node, x: Tensor) -> Tensor:
    parts = list(net.apply(m["cv1"], x).chunk(2, 1))
    for stage in m["m"].children.values():
        parts.append(net.apply(stage, parts[-1]))
    return net.apply(m["cv2"], torch.cat(parts, 1))


def block_c3(net: Network, m: Node, x: Tensor) -> Tensor:
    deep = net.apply(m["m"], net.apply(m["cv1"], x))
    return net.apply(m["cv3"], torch.cat([deep, net.apply(m["cv2"], x)], 1))


def block_sppf(net: Network, m: Node, x: Tensor) -> Tensor:
    parts = [net.apply(m["cv1"], x)]
    for _ in range(m.attrs.get("n", 3)):
        parts.append(net.apply(m["m"], parts[-1]))
    y = net.apply(m["cv2"], torch.cat(parts, 1))
    return x + y if m.attrs.get("add", False) else y


def block_attention(net: Network, m: Node, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    heads, key_dim, head_dim = (m.attrs[name] for name in ("num_heads", "key_dim", "head_dim"))
    qkv = net.apply(m["qkv"], x).view(n, heads, 2 * key_dim + head_dim, h * w)
    q, k, v = qkv.split([key_dim, key_dim, head_dim], 2)
    shares = (q.transpose(2, 3) @ k * m.attrs.get("scale", key_dim**-0.5)).softmax(3)
    attended, values = ((v @ shares.transpose(2, 3)).reshape(n, -1, h, w), v.reshape(n, -1, h, w))
    return net.apply(m["proj"], attended + net.apply(m["pe"], values))


def block_psa(net: Network, m: Node, x: Tensor) -> Tensor:
    for name in ("attn", "ffn"):
        y = net.apply(m[name], x)
        x = x + y if m.attrs["add"] else y
    return x


def block_c2psa(net: Network, m: Node, x: Tensor) -> Tensor:
    kept, attended = net.apply(m["cv1"], x).chunk(2, 1)
    return net.apply(m["cv2"], torch.cat([kept, net.apply(m["m"], attended)], 1))


def block_max_pool(_: Network, m: Node, x: Tensor) -> Tensor:
    return F.max_pool2d(x, m.attrs["kernel_size"], m.attrs["stride"], m.attrs["padding"])


def block_focus(net: Network, m: Node, x: Tensor) -> Tensor:
    corners = [x[..., y::2, x_::2] for x_ in (0, 1) for y in (0, 1)]
    return net.apply(m["conv"], torch.cat(corners, 1))


def block_csp_layer(net: Network, m: Node, x: Tensor) -> Tensor:
    deep = net.apply(m["m"], net.apply(m["conv1"], x))
    return net.apply(m["conv3"], torch.cat([deep, net.apply(m["conv2"], x)], 1))


def block_x_bottleneck(net: Network, m: Node, x: Tensor) -> Tensor:
    y = net.apply(m["conv2"], net.apply(m["conv1"], x))
    return x + y if m.attrs["use_add"] else y


def block_spp_bottleneck(net: Network, m: Node, x: Tensor) -> Tensor:
    z = net.apply(m["conv1"], x)
    pools = [F.max_pool2d(z, kernel, 1, kernel // 2) for kernel in m.attrs["kernel_sizes"]]
    return net.apply(m["conv2"], torch.cat([z, *pools], 1))


BLOCKS: dict[str, Callable[[Network, Node, Tensor], Tensor]] = {
    **dict.fromkeys(["Conv", "DWConv", "RepConv", "RepVGGDW", "yolox.BaseConv"], block_conv),
    "Conv2d": lambda net, m, x: net.conv2d(m, x),
    "SiLU": lambda net, m, x: F.silu(x),
    "ReLU": lambda net, m, x: x.relu(),
    "Identity": lambda net, m, x: x,
    "Upsample": lambda net, m, x: F.interpolate(x, scale_factor=m.attrs["scale_factor"], mode=m.attrs["mode"]),
    "MaxPool2d": block_max_pool,
    "Sequential": block_chain,
    "Bottleneck": block_bottleneck,
    **dict.fromkeys(["C2f", "C3k2"], block_c2f),
    **dict.fromkeys(["C3", "C3k"], block_c3),
    "SPPF": block_sppf,
    "Attention": block_attention,
    "PSABlock": block_psa,
    "C2PSA": block_c2psa,
    "yolox.Focus": block_focus,
    "yolox.DWConv": block_chain,
    "yolox.CSPLayer": block_csp_layer,
    "yolox.Bottleneck": block_x_bottleneck,
    "yolox.SPPBottleneck": block_spp_bottleneck,
}

DTYPES = {"F16": np.float16, "F32": np.float32}


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return metadata, tensors


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a file whose bytes depend on nothing but the arguments."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    chunks: list[bytes] = []
    offset = 0
    # Wider types first, so that all tensors are aligned.
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        values = tensors[name].contiguous().numpy()
        chunks.append(values.tobytes())
        end = offset + len(chunks[-1])
        header[name] = {"dtype": names[values.dtype], "shape": list(values.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def differences(got: Tensor, want: Tensor) -> tuple[float, float]:
    """Largest difference of boxes, in pixels, and of scores; for [N, k, 6] as for [N, 4 + classes, A].

    Rows of `one2one` whose classes differ are left out: rows of nearly equal scores may have changed places.
    """
    if got.shape != want.shape:
        raise ValueError(f"shape {list(got.shape)}, expected {list(want.shape)}")
    if got.shape[2] == 6:
        same = got[..., 5] == want[..., 5]
        got, want = (value[same].T for value in (got, want))
        return float((got - want)[:4].abs().max()), float((got - want)[4].abs().max())
    boxes, scores = (got - want).abs().split([4, got.shape[1] - 4], 1)
    return float(boxes.max()), float(scores.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("golden", type=Path)
    args = parser.parse_args()
    _, golden = read_safetensors(args.golden)
    for name, got in Network.open(args.model).run(golden["images"]).items():
        boxes, scores = differences(got, golden[name])
        print(f"{args.model.name}: {name}: boxes {boxes:.1e} px, scores {scores:.1e}")


if __name__ == "__main__":
    main()
