"""The heads of YOLO11: boxes alone, or with mask coefficients, keypoints or an angle, and classes of a picture.

Those for class maps and distances are YOLO26's.

Class, child and attribute names are the published ones, as in `blocks.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks import Conv, DWConv

STRIDES = (8, 16, 32)
REG_MAX = 16
N_MASKS, KPT_SHAPE = 32, (12, 3)
# Width of the branch `cv4` of each head, chosen so that the model files stay below 1.5 MB.
MASK_WIDTH, KEYPOINT_WIDTH, ANGLE_WIDTH = 24, 32, 24
DEPTH_RANGE = (-4.0, 5.0)


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

    def boxes(self, maps: list[Tensor]) -> Tensor:
        """Box logits [B, A, 4, reg_max], cells in row order, finest level first."""
        box = torch.cat([branch(x).flatten(2) for branch, x in zip(self.cv2, maps)], 2)
        return box.unflatten(1, (4, self.reg_max)).permute(0, 3, 1, 2)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Box logits as `boxes`, and class logits [B, A, nc]."""
        cls = torch.cat([branch(x).flatten(2) for branch, x in zip(self.cv3, maps)], 2)
        return self.boxes(maps), cls.transpose(1, 2)


class _WithExtra(Detect):
    """A `Detect` with a third branch (`cv4`) of `n_extra` values a cell."""

    def __init__(self, nc: int, channels: tuple[int, ...], box_width: int, class_width: int, extra_width: int,
                 n_extra: int) -> None:
        super().__init__(nc, channels, box_width, class_width)
        w = extra_width
        self.cv4 = nn.ModuleList(
            nn.Sequential(Conv(c, w, 3), Conv(w, w, 3), nn.Conv2d(w, n_extra, 1)) for c in channels)

    def extra(self, maps: list[Tensor]) -> Tensor:
        """The values of `cv4`, [B, A, n_extra], cells as in `Detect.forward`."""
        return torch.cat([branch(x).flatten(2) for branch, x in zip(self.cv4, maps)], 2).transpose(1, 2)


class Proto(nn.Module):
    """Prototype masks at twice the resolution: [B, c, H, W] -> [B, nm, 2H, 2W]."""

    def __init__(self, c_in: int, width: int, n_masks: int) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, width, 3)
        self.upsample = nn.ConvTranspose2d(width, width, 2, 2)
        self.cv2 = Conv(width, width, 3)
        self.cv3 = Conv(width, n_masks)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


class Segment(_WithExtra):
    """Mask coefficients with each box, and prototypes of the finest level that they mix."""

    def __init__(self, nc: int, channels: tuple[int, ...], box_width: int, class_width: int) -> None:
        super().__init__(nc, channels, box_width, class_width, MASK_WIDTH, N_MASKS)
        self.nm = N_MASKS
        self.npr = N_MASKS
        self.proto = Proto(channels[0], self.npr, self.nm)


class Pose(_WithExtra):
    """Keypoints with each box: x, y and a visibility logit each."""

    def __init__(self, nc: int, channels: tuple[int, ...], box_width: int, class_width: int) -> None:
        n_values = KPT_SHAPE[0] * KPT_SHAPE[1]
        super().__init__(nc, channels, box_width, class_width, KEYPOINT_WIDTH, n_values)
        self.nk = n_values


class OBB(_WithExtra):
    """An angle with each box; its distances are along the turned axes."""

    def __init__(self, nc: int, channels: tuple[int, ...], box_width: int, class_width: int) -> None:
        super().__init__(nc, channels, box_width, class_width, ANGLE_WIDTH, 1)
        self.ne = 1


class Classify(nn.Module):
    """Class logits of the whole picture: [B, c, H, W] -> [B, nc]."""

    def __init__(self, c_in: int, width: int, nc: int) -> None:
        super().__init__()
        self.conv = Conv(c_in, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.0)
        self.linear = nn.Linear(width, nc)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.pool(self.conv(x)).flatten(1)))


class SemanticSegment(nn.Module):
    """Class logits of each cell: [B, c, H, W] -> [B, nc, H, W]."""

    def __init__(self, nc: int, c_in: int, width: int) -> None:
        super().__init__()
        self.nc = nc
        self.nl = 1
        self.classifier = nn.Sequential(Conv(c_in, width, 3), nn.Conv2d(width, nc, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.classifier(maps[0])


class Depth(nn.Module):
    """Raw distances at stride 4, from levels of strides 8, 16, 32: [B, c, H / s, W / s] -> [B, 1, H / 4, W / 4].

    The distance in metres is `exp(cal_a * x + cal_b)` for `x` within `DEPTH_RANGE`.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        w = width
        self.nl = len(channels)
        self.proj = nn.ModuleList(Conv(c, w) for c in channels)
        self.refine = nn.ModuleList(nn.Sequential(Conv(w, w, 3), Conv(w, w, 3)) for _ in channels[1:])
        self.head = nn.Sequential(
            Conv(w, w, 3), nn.ConvTranspose2d(w, w, 2, 2), Conv(w, w // 2, 3), nn.Conv2d(w // 2, 1, 1))
        self.register_buffer("cal_a", torch.ones(1))
        self.register_buffer("cal_b", torch.zeros(1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.proj[-1](maps[-1])
        for level in reversed(range(self.nl - 1)):
            larger = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = self.refine[level](self.proj[level](maps[level]) + larger)
        return self.head(x)

    def log_distances(self, raw: Tensor) -> Tensor:
        """Logarithms of distances in metres, of what `forward` gives."""
        return self.cal_a * raw.clamp(*DEPTH_RANGE) + self.cal_b


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


def keypoints(raw: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Keypoints [..., A, K, 3] (x, y in input pixels, visibility logit) of the values [..., A, 3 K] of `Pose.extra`."""
    values = raw.unflatten(-1, KPT_SHAPE)
    xy = (values[..., :2] * 2 - 0.5) * strides[:, None, None] + points[:, None]
    return torch.cat((xy, values[..., 2:]), -1)


def angles(raw: Tensor) -> Tensor:
    """Angles [...] in radians, from -45 to 135 degrees, of the values [..., 1] of `OBB.extra`."""
    return (raw[..., 0].sigmoid() - 0.25) * math.pi


def decode_turned(distances: Tensor, angle: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes [B, A, 5] (centre x, y, width, height in pixels, radians) of distances [B, A, 4] along turned axes."""
    pixels = distances * strides[:, None]
    along, across = ((pixels[..., 2:] - pixels[..., :2]) / 2).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    centre = torch.stack((along * cos - across * sin, along * sin + across * cos), -1) + points
    return torch.cat((centre, pixels[..., :2] + pixels[..., 2:], angle[..., None]), -1)
