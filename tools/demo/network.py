"""A narrow YOLO11-shaped detection network.

Module classes, child names and attributes carry the published names of the architecture, because the model file
describes the network by them (see `docs/model-format.md`). The widths are our own: small enough to ship in a binary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BN_EPS = 1e-3
BN_MOMENTUM = 0.03
STRIDES = (8, 16, 32)
REG_MAX = 16


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, activation: [B, c_in, H, W] -> [B, c_out, H/s, W/s]."""

    def __init__(self, c_in: int, c_out: int, k: int = 1, s: int = 1, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, k, s, k // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DWConv(Conv):
    """Depthwise `Conv`: one kernel a channel."""

    def __init__(self, channels: int, k: int = 3) -> None:
        super().__init__(channels, channels, k, groups=channels)


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a shortcut; shape is kept."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.cv1 = Conv(channels, hidden, 3)
        self.cv2 = Conv(hidden, channels, 3)
        self.add = True

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C3k(nn.Module):
    """Cross-stage block: a chain of two bottlenecks beside a 1x1 convolution; shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.cv1 = Conv(channels, hidden)
        self.cv2 = Conv(channels, hidden)
        self.cv3 = Conv(2 * hidden, channels)
        self.m = nn.Sequential(Bottleneck(hidden, 1.0), Bottleneck(hidden, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3k2(nn.Module):
    """Split in two, refine one half, merge everything: [B, c_in, H, W] -> [B, c_out, H, W]."""

    def __init__(self, c_in: int, c_out: int, c3k: bool, expansion: float = 0.5) -> None:
        super().__init__()
        self.c = int(c_out * expansion)
        self.cv1 = Conv(c_in, 2 * self.c)
        self.cv2 = Conv(3 * self.c, c_out)
        self.m = nn.ModuleList([C3k(self.c) if c3k else Bottleneck(self.c, 0.5)])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Spatial pyramid of three chained 5x5 max pools; shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(channels // 2 * 4, channels)
        self.m = nn.MaxPool2d(5, 1, 2)
        self.n = 3
        self.add = False

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(self.n):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class Attention(nn.Module):
    """Self-attention over the positions of a map, with a depthwise positional convolution; shape is kept."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = channels // num_heads
        self.key_dim = self.head_dim // 2
        self.scale = self.key_dim**-0.5
        self.qkv = Conv(channels, channels + 2 * self.key_dim * num_heads, act=False)
        self.proj = Conv(channels, channels, act=False)
        self.pe = Conv(channels, channels, 3, groups=channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        per_head = self.qkv(x).reshape(b, self.num_heads, 2 * self.key_dim + self.head_dim, h * w)
        q, k, v = per_head.split((self.key_dim, self.key_dim, self.head_dim), 2)
        weights = (q.transpose(2, 3) @ k * self.scale).softmax(-1)  # [B, heads, query, key]
        attended = (v @ weights.transpose(2, 3)).reshape(b, c, h, w)
        return self.proj(attended + self.pe(v.reshape(b, c, h, w)))


class PSABlock(nn.Module):
    """Attention, then a two-layer feed-forward network, each with a shortcut; shape is kept."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.attn = Attention(channels, num_heads)
        self.ffn = nn.Sequential(Conv(channels, 2 * channels), Conv(2 * channels, channels, act=False))
        self.add = True

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)


class C2PSA(nn.Module):
    """Half of the channels pass through one `PSABlock`; shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c = channels // 2
        self.cv1 = Conv(channels, 2 * self.c)
        self.cv2 = Conv(2 * self.c, channels)
        self.m = nn.Sequential(PSABlock(self.c, max(1, self.c // 64)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        return self.cv2(torch.cat((a, self.m(b)), 1))


class Concat(nn.Module):
    """Joins maps over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.d = 1

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, self.d)


class DFL(nn.Module):
    """Expected distance of each box side: [B, A, 4, c1] logits over 0..c1-1 -> [B, A, 4] in cells."""

    def __init__(self, c1: int) -> None:
        super().__init__()
        self.c1 = c1

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1) @ torch.arange(self.c1, dtype=x.dtype, device=x.device)


class Detect(nn.Module):
    """Per level a box branch (`cv2`, 4 * reg_max logits a cell) and a class branch (`cv3`, nc logits a cell)."""

    def __init__(self, nc: int, channels: tuple[int, ...], box_width: int, class_width: int) -> None:
        super().__init__()
        self.nc = nc
        self.nl = len(channels)
        self.reg_max = REG_MAX
        self.no = nc + 4 * REG_MAX
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(c, box_width, 3), Conv(box_width, box_width, 3), nn.Conv2d(box_width, 4 * REG_MAX, 1))
            for c in channels
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(DWConv(c), Conv(c, class_width)),
                nn.Sequential(DWConv(class_width), Conv(class_width, class_width)),
                nn.Conv2d(class_width, nc, 1),
            )
            for c in channels
        )
        self.dfl = DFL(REG_MAX)
        for box, cls in zip(self.cv2, self.cv3):
            nn.init.ones_(box[-1].bias)
            # A cell starts at a score of 1 %, so the many empty cells don't drown the first steps.
            nn.init.constant_(cls[-1].bias, math.log(0.01 / 0.99))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Box logits [B, A, 4, reg_max] and class logits [B, A, nc], cells in row order, finest level first."""
        box = torch.cat([branch(x).flatten(2) for branch, x in zip(self.cv2, maps)], 2)
        cls = torch.cat([branch(x).flatten(2) for branch, x in zip(self.cv3, maps)], 2)
        b, _, a = box.shape
        return box.view(b, 4, self.reg_max, a).permute(0, 3, 1, 2), cls.transpose(1, 2)


class Network(nn.Module):
    """The layers in order; `sources[i]` holds the indices of the layers that layer i takes, -1 for the picture."""

    def __init__(self, nc: int) -> None:
        super().__init__()
        self.sources: list[list[int]] = []
        self.model = nn.ModuleList()

        def add(layer: nn.Module, *sources: int) -> int:
            index = len(self.model)
            self.model.append(layer)
            self.sources.append(list(sources) or [index - 1])
            return index

        # Backbone: strides 2, 4, 8, 16, 32.
        add(Conv(3, 16, 3, 2))
        add(Conv(16, 32, 3, 2))
        add(C3k2(32, 32, False, 0.25))
        add(Conv(32, 48, 3, 2))
        p3 = add(C3k2(48, 64, False, 0.25))
        add(Conv(64, 64, 3, 2))
        p4 = add(C3k2(64, 64, True))
        add(Conv(64, 96, 3, 2))
        add(C3k2(96, 96, True))
        add(SPPF(96))
        p5 = add(C2PSA(96))
        # Neck: down to stride 8 and up again.
        add(nn.Upsample(scale_factor=2.0, mode="nearest"))
        add(Concat(), p5 + 1, p4)
        n4 = add(C3k2(160, 64, False))
        add(nn.Upsample(scale_factor=2.0, mode="nearest"))
        add(Concat(), n4 + 1, p3)
        out3 = add(C3k2(128, 48, False))
        add(Conv(48, 48, 3, 2))
        add(Concat(), out3 + 1, n4)
        out4 = add(C3k2(112, 64, False))
        add(Conv(64, 64, 3, 2))
        add(Concat(), out4 + 1, p5)
        out5 = add(C3k2(160, 96, True))
        add(Detect(nc, (48, 64, 96), box_width=48, class_width=48), out3, out4, out5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] in 0..1, H and W multiples of 32 -> box and class logits of `Detect`."""
        outputs: list[Tensor] = []
        for layer, sources in zip(self.model, self.sources):
            inputs = [images if i < 0 else outputs[i] for i in sources]
            outputs.append(layer(inputs) if isinstance(layer, (Concat, Detect)) else layer(inputs[0]))
        return outputs[-1]


def anchor_points(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cell centres [A, 2] (x, y) in input pixels and strides [A] in pixels, for an input of height x width."""
    points, strides = [], []
    for s in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // s), torch.arange(width // s), indexing="ij")
        points.append((torch.stack((x.flatten(), y.flatten()), 1) + 0.5) * s)
        strides.append(torch.full((points[-1].shape[0],), float(s)))
    return torch.cat(points), torch.cat(strides)


def decode(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Distances left, top, right, bottom [B, A, 4] in cells -> boxes x1, y1, x2, y2 [B, A, 4] in input pixels."""
    pixels = distances * strides[:, None]
    return torch.cat((points - pixels[..., :2], points + pixels[..., 2:]), -1)


def predict(net: Network, images: Tensor) -> Tensor:
    """`output0` [B, 4 + nc, A]: cx, cy, w, h in input pixels, then one score (0..1) a class."""
    box, cls = net(images)
    points, strides = anchor_points(*images.shape[-2:])
    xyxy = decode(net.model[-1].dfl(box.float()), points, strides)
    centre, size = (xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]
    return torch.cat((centre, size, cls.float().sigmoid()), -1).transpose(1, 2)
