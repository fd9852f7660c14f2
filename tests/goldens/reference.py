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

from heads import run_head


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

        Returns `output0`, `one2one` and `proto` as far as the head has them; README.md tells what they hold.
        """
        expected = self.document["input"]
        picture = images.flip(1) if expected["color"] == "bgr" else images
        picture = picture * (255.0 / expected["divisor"])
        outputs: list[Tensor | list[Tensor]] = []
        for layer, node in zip(self.document["layers"], self.layers):
            inputs = [outputs[idx] if idx >= 0 else picture for idx in layer["from"]]
            if layer is self.document["layers"][-1]:
                return run_head(self, node, inputs)
            outputs.append(self.layer(node, inputs))
        raise ValueError("the network has no layers")

    def layer(self, node: Node, inputs: list[Any]) -> Tensor | list[Tensor]:
        """The output of a layer that is no head. CBLinear alone has several."""
        if node.kind == "Concat":
            return torch.cat(inputs, 1)
        if node.kind == "CBLinear":
            return list(self.apply(node["conv"], inputs[0]).split(node.attrs["c2s"], 1))
        if node.kind == "CBFuse":
            *others, last = inputs
            parts = (x[idx] for x, idx in zip(others, node.attrs["idx"]))
            return sum((F.interpolate(part, last.shape[2:], mode="nearest") for part in parts), last)
        return self.apply(node, *inputs)

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

    def conv_transpose2d(self, node: Node, x: Tensor) -> Tensor:
        """The transposed convolution at `node`, whose kernel is [in, out, kh, kw]."""
        weight, bias = (self.tensors[f"{node.path}.{name}"].to(x.dtype) for name in ("weight", "bias"))
        return F.conv_transpose2d(x, weight, bias, node.attrs["stride"])

    def linear(self, node: Node, x: Tensor) -> Tensor:
        """The linear layer at `node` of a map of one cell; returns [N, features]."""
        weight, bias = (self.tensors[f"{node.path}.{name}"].to(x.dtype) for name in ("weight", "bias"))
        return F.linear(x.flatten(1), weight, bias)


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


def block_c2(net: Network, m: Node, x: Tensor) -> Tensor:
    a, b = net.apply(m["cv1"], x).chunk(2, 1)
    return net.apply(m["cv2"], torch.cat([net.apply(m["m"], a), b], 1))


def block_cib(net: Network, m: Node, x: Tensor) -> Tensor:
    y = net.apply(m["cv1"], x)
    return x + y if m.attrs["add"] else y


def block_elan(net: Network, m: Node, x: Tensor) -> Tensor:
    parts = list(net.apply(m["cv1"], x).chunk(2, 1))
    for name in ("cv2", "cv3"):
        parts.append(net.apply(m[name], parts[-1]))
    return net.apply(m["cv4"], torch.cat(parts, 1))


def block_spp_elan(net: Network, m: Node, x: Tensor) -> Tensor:
    parts = [net.apply(m["cv1"], x)]
    for name in ("cv2", "cv3", "cv4"):
        parts.append(net.apply(m[name], parts[-1]))
    return net.apply(m["cv5"], torch.cat(parts, 1))


def block_spp(net: Network, m: Node, x: Tensor) -> Tensor:
    z = net.apply(m["cv1"], x)
    return net.apply(m["cv2"], torch.cat([z, *(net.apply(pool, z) for pool in m["m"].children.values())], 1))


def block_a_conv(net: Network, m: Node, x: Tensor) -> Tensor:
    return net.apply(m["cv1"], F.avg_pool2d(x, 2, 1))


def block_a_down(net: Network, m: Node, x: Tensor) -> Tensor:
    a, b = F.avg_pool2d(x, 2, 1).chunk(2, 1)
    return torch.cat([net.apply(m["cv1"], a), net.apply(m["cv2"], F.max_pool2d(b, 3, 2, 1))], 1)


def block_ghost_conv(net: Network, m: Node, x: Tensor) -> Tensor:
    z = net.apply(m["cv1"], x)
    return torch.cat([z, net.apply(m["cv2"], z)], 1)


def block_ghost_bottleneck(net: Network, m: Node, x: Tensor) -> Tensor:
    return net.apply(m["conv"], x) + net.apply(m["shortcut"], x)


def block_psa_whole(net: Network, m: Node, x: Tensor) -> Tensor:
    a, b = net.apply(m["cv1"], x).chunk(2, 1)
    for name in ("attn", "ffn"):
        b = b + net.apply(m[name], b)
    return net.apply(m["cv2"], torch.cat([a, b], 1))


def block_area_attention(net: Network, m: Node, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    heads, dim, area = (m.attrs[name] for name in ("num_heads", "head_dim", "area"))
    # Cells in row order, cut into runs; the channels of a head are its queries, its keys and its values.
    runs = net.apply(m["qkv"], x).flatten(2).view(n, heads, 3 * dim, area, -1).permute(0, 3, 1, 2, 4)
    q, k, v = runs.split(dim, 3)
    shares = (q.transpose(3, 4) @ k * dim**-0.5).softmax(4)

    def as_map(values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1, 4).reshape(n, heads * dim, h, w)

    return net.apply(m["proj"], as_map(v @ shares.transpose(3, 4)) + net.apply(m["pe"], as_map(v)))


def block_area(net: Network, m: Node, x: Tensor) -> Tensor:
    for name in ("attn", "mlp"):
        x = x + net.apply(m[name], x)
    return x


def block_a2c2f(net: Network, m: Node, x: Tensor) -> Tensor:
    parts = [net.apply(m["cv1"], x)]
    for stage in m["m"].children.values():
        parts.append(net.apply(stage, parts[-1]))
    y = net.apply(m["cv2"], torch.cat(parts, 1))
    gamma = net.tensors.get(f"{m.path}.gamma")
    return y if gamma is None else x + gamma.to(x.dtype)[:, None, None] * y


def block_zero_pad(_: Network, m: Node, x: Tensor) -> Tensor:
    return F.pad(x, m.attrs["padding"])


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
    "ConvTranspose2d": lambda net, m, x: net.conv_transpose2d(m, x),
    "SiLU": lambda net, m, x: F.silu(x),
    "ReLU": lambda net, m, x: x.relu(),
    "Identity": lambda net, m, x: x,
    "Upsample": lambda net, m, x: F.interpolate(x, scale_factor=m.attrs["scale_factor"], mode=m.attrs["mode"]),
    "MaxPool2d": block_max_pool,
    "Sequential": block_chain,
    "ZeroPad2d": block_zero_pad,
    **dict.fromkeys(["Bottleneck", "RepBottleneck"], block_bottleneck),
    "C2": block_c2,
    **dict.fromkeys(["C2f", "C3k2", "C2fCIB"], block_c2f),
    **dict.fromkeys(["C3", "C3k", "C3Ghost", "RepCSP"], block_c3),
    "CIB": block_cib,
    **dict.fromkeys(["ELAN1", "RepNCSPELAN4"], block_elan),
    "SPPELAN": block_spp_elan,
    "AConv": block_a_conv,
    "ADown": block_a_down,
    "SCDown": block_chain,
    "GhostConv": block_ghost_conv,
    "GhostBottleneck": block_ghost_bottleneck,
    "SPP": block_spp,
    "SPPF": block_sppf,
    "PSA": block_psa_whole,
    "AAttn": block_area_attention,
    "ABlock": block_area,
    "A2C2f": block_a2c2f,
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


def differences(document: dict[str, Any], name: str, got: Tensor, want: Tensor) -> dict[str, float]:
    """Largest differences: `boxes` (and keypoints, in pixels), `scores` (and visibilities) and `others`.

    Rows of `one2one` whose classes differ are left out: rows of nearly equal scores may have changed places.
    """
    if got.shape != want.shape:
        raise ValueError(f"shape {list(got.shape)}, expected {list(want.shape)}")
    n_classes, values = len(document["names"]), (document["kpt_shape"] or [0, 0])[1]
    boxed = document["task"] in ("detect", "segment", "pose", "obb")
    if name == "proto" or not boxed:
        kind = "scores" if document["task"] == "classify" else "others"
        return {kind: float((got - want).abs().max())}
    first_extra = 4 + n_classes
    if name == "one2one":
        same = got[..., 5] == want[..., 5]
        got, want = (value[same].T for value in (got, want))
        first_extra = 6
    else:
        got, want = (value.transpose(0, 1).flatten(1) for value in (got, want))
    out: dict[str, float] = {}
    for channel, difference in enumerate((got - want).abs().amax(1).tolist()):
        extra = channel - first_extra
        is_point = extra >= 0 and values > 0
        if channel < 4 or (is_point and extra % values < 2):
            kind = "boxes"
        else:
            kind = "scores" if extra < 0 or is_point else "others"
        out[kind] = max(out.get(kind, 0.0), difference)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("golden", type=Path)
    args = parser.parse_args()
    _, golden = read_safetensors(args.golden)
    network = Network.open(args.model)
    for name, got in network.run(golden["images"]).items():
        found = differences(network.document, name, got, golden[name])
        print(f"{args.model.name}: {name}: " + ", ".join(f"{kind} {value:.1e}" for kind, value in found.items()))


if __name__ == "__main__":
    main()
