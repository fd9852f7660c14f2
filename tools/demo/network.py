"""Narrow YOLO11-shaped networks, one for each task.

They share everything but the head, which is the last layer; the one that classifies ends where the neck of the others
begins. The widths are our own: small enough to ship in a binary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks import C2PSA, SPPF, C3k2, Concat, Conv
from heads import (
    OBB, Classify, Depth, Detect, Pose, Segment, SemanticSegment, anchor_points, angles, decode, decode_turned,
    keypoints,
)

HEADS = {"detect": Detect, "segment": Segment, "pose": Pose, "obb": OBB}
TASKS = (*HEADS, "classify", "semantic", "depth")
CLASSIFY_WIDTH, SEMANTIC_WIDTH, DEPTH_WIDTH = 256, 48, 48


class Network(nn.Module):
    """The layers in order; `sources[i]` holds the indices of the layers that layer i takes, -1 for the picture."""

    def __init__(self, nc: int, task: str = "detect") -> None:
        super().__init__()
        self.task = task
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
        p2 = add(C3k2(32, 32, False, 0.25))
        add(Conv(32, 48, 3, 2))
        p3 = add(C3k2(48, 64, False, 0.25))
        add(Conv(64, 64, 3, 2))
        p4 = add(C3k2(64, 64, True))
        add(Conv(64, 96, 3, 2))
        add(C3k2(96, 96, True))
        add(SPPF(96))
        p5 = add(C2PSA(96))
        if task == "classify":
            add(Classify(96, CLASSIFY_WIDTH, nc))
            return
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
        if task == "depth":
            add(Depth((48, 64, 96), DEPTH_WIDTH), out3, out4, out5)
        elif task == "semantic":
            # Down again, to stride 4: every cell has to know of all sizes of shapes, and outlines are fine.
            add(nn.Upsample(scale_factor=2.0, mode="nearest"))
            add(Concat(), out5 + 1, out4)
            add(C3k2(160, 64, False))
            add(nn.Upsample(scale_factor=2.0, mode="nearest"))
            add(Concat(), out5 + 4, out3)
            add(C3k2(112, 48, False))
            add(nn.Upsample(scale_factor=2.0, mode="nearest"))
            add(Concat(), out5 + 7, p2)
            fine = add(C3k2(80, 48, False))
            add(SemanticSegment(nc, 48, SEMANTIC_WIDTH), fine)
        else:
            add(HEADS[task](nc, (48, 64, 96), 48, 48), out3, out4, out5)

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.model[-1]

    def features(self, images: Tensor) -> list[Tensor]:
        """What the head takes, [B, c, H / s, W / s] each, of images [B, 3, H, W] in 0..1; H, W multiples of 32."""
        outputs = self.run(images)
        return [outputs[i] for i in self.sources[-1]]

    def run(self, images: Tensor, known: list[Tensor] | None = None) -> list[Tensor]:
        """What each layer but the head gives, of images as for `features`; `known` has that of the first ones."""
        outputs = list(known or [])
        for layer, sources in list(zip(self.model[:-1], self.sources))[len(outputs) :]:
            inputs = [images if i < 0 else outputs[i] for i in sources]
            outputs.append(layer(inputs) if isinstance(layer, Concat) else layer(inputs[0]))
        return outputs

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """What the head gives of images as for `features`."""
        maps = self.features(images)
        return self.head(maps[0]) if self.task == "classify" else self.head(maps)


class Family(nn.Module):
    """Four networks of boxes that share all layers but the head, and of the heads what they have in common.

    Turned boxes have their own distances; the classes are the same for all.
    """

    def __init__(self, nc: int) -> None:
        super().__init__()
        self.detect = Network(nc)
        self.segment, self.pose, self.obb = (Network(nc, task) for task in ("segment", "pose", "obb"))
        for other in (self.segment, self.pose, self.obb):
            for i, layer in enumerate(self.detect.model[:-1]):
                other.model[i] = layer
            other.head.cv3 = self.detect.head.cv3
        for other in (self.segment, self.pose):
            other.head.cv2 = self.detect.head.cv2

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """All outputs of images [B, 3, H, W] in 0..1.

        `box` [B, A, 4, reg_max], `cls` [B, A, nc], `masks` [B, A, nm], `proto` [B, nm, H / 4, W / 4], `keypoints`
        [B, A, 3 K], `turned_box` as `box`, `angle` [B, A, 1].
        """
        maps = self.detect.features(images)
        box, cls = self.detect.head(maps)
        return {
            "box": box, "cls": cls, "masks": self.segment.head.extra(maps), "proto": self.segment.head.proto(maps[0]),
            "keypoints": self.pose.head.extra(maps), "turned_box": self.obb.head.boxes(maps),
            "angle": self.obb.head.extra(maps),
        }


class Maps(nn.Module):
    """Networks of class maps and of distances on top of the layers of a detector, which do not learn any more."""

    def __init__(self, nc: int) -> None:
        super().__init__()
        self.semantic, self.depth = Network(nc, "semantic"), Network(1, "depth")
        self.trunk = self.depth.model[:-1]
        for i, layer in enumerate(self.trunk):
            self.semantic.model[i] = layer
        self.trunk.requires_grad_(False)

    def train(self, mode: bool = True) -> Maps:
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, nc, H / 4, W / 4] and raw distances [B, 1, H / 4, W / 4] of images [B, 3, H, W] in 0..1."""
        with torch.no_grad():
            known = self.depth.run(images)
        raw = self.depth.head([known[i] for i in self.depth.sources[-1]])
        return self.semantic.head([self.semantic.run(images, known)[-1]]), raw


def predict(net: Network, images: Tensor) -> dict[str, Tensor]:
    """What the engine's `forward` gives of images [B, 3, H, W].

    `output0` is [B, 4 + nc + extra, A]: cx, cy, w, h in input pixels, one score (0..1) a class, and mask coefficients,
    keypoints (x, y, visibility 0..1) or an angle in radians; of a network that classifies [B, nc] shares. `proto` is
    [B, nm, H / 4, W / 4] where there are masks. Of class maps it is [B, nc, H / 4, W / 4] logits, of distances
    [B, 1, H / 4, W / 4] metres.
    """
    maps = net.features(images)
    head = net.head
    if net.task == "classify":
        return {"output0": head(maps[0]).float().softmax(1)}
    if net.task == "semantic":
        return {"output0": head(maps).float()}
    if net.task == "depth":
        return {"output0": head.log_distances(head(maps).float()).exp()}
    box, cls = head(maps)
    points, strides = anchor_points(*images.shape[-2:])
    distances = head.dfl(box.float())
    xyxy = decode(distances, points, strides)
    boxes = torch.cat(((xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]), -1)
    extra = head.extra(maps).float() if net.task != "detect" else boxes[..., :0]
    if net.task == "pose":
        found = keypoints(extra, points, strides)
        extra = torch.cat((found[..., :2], found[..., 2:].sigmoid()), -1).flatten(-2)
    if net.task == "obb":
        extra = angles(extra)[..., None]
        boxes = decode_turned(distances, extra[..., 0], points, strides)[..., :4]
    output = {"output0": torch.cat((boxes, cls.float().sigmoid(), extra), -1).transpose(1, 2)}
    return output | {"proto": head.proto(maps[0]).float()} if net.task == "segment" else output
