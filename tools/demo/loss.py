"""Task-aligned assignment and the three losses of the detector.

Sources: TOOD, arXiv:2108.07755 (assignment); Generalized Focal Loss, arXiv:2006.04388 (distances as distributions);
Distance-IoU Loss, arXiv:1911.08287 (complete IoU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from heads import REG_MAX, anchor_points, decode

TOP_K = 10
ALPHA, BETA = 0.5, 6.0
BOX_GAIN, CLASS_GAIN, DFL_GAIN = 7.5, 0.5, 1.5
EPS = 1e-9


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4] (corners), broadcast over the leading dimensions."""
    corner_1, corner_2 = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (corner_2 - corner_1).clamp(min=0).prod(-1)
    area = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return overlap / (area[0] + area[1] - overlap + EPS)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the penalties for the distance of the centres and the difference of the proportions, [..., 4] -> [...]."""
    overlap = iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    distance = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    angle = [torch.atan2(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1] + EPS) for box in (a, b)]
    shape = (4 / math.pi**2) * (angle[0] - angle[1]) ** 2
    with torch.no_grad():
        weight = shape / (shape - overlap + 1 + EPS)
    return overlap - distance / ((hull**2).sum(-1) + EPS) - weight * shape


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Chooses the cells that learn each object.

    `scores` [B, A, nc] after the sigmoid, `boxes` [B, A, 4] and `points` [A, 2] in pixels, `labels` [B, M, 5] (class,
    corners; class -1 is empty). Returns the object of each cell [B, A] (-1: none) and its target score [B, A].
    """
    classes, truth = labels[..., 0].long(), labels[..., 1:]
    valid = classes >= 0
    overlap = iou(truth[:, :, None], boxes[:, None])  # [B, M, A]
    nc = scores.shape[-1]
    score = scores.transpose(1, 2).gather(1, classes.clamp(0, nc - 1)[..., None].expand(-1, -1, scores.shape[1]))
    inside = ((points > truth[:, :, None, :2]) & (points < truth[:, :, None, 2:])).all(-1) & valid[..., None]
    metric = score**ALPHA * overlap**BETA * inside
    top, index = metric.topk(TOP_K, -1)
    positive = torch.zeros_like(inside).scatter_(-1, index, top > EPS) & inside
    # A cell that several objects chose goes to the one it overlaps most.
    best = torch.where(positive, overlap, -1.0).max(1)
    owner = torch.where(best.values >= 0, best.indices, -1)
    mine = torch.zeros_like(positive).scatter_(1, owner.clamp(min=0)[:, None], (owner >= 0)[:, None]) & positive
    metric = metric * mine
    largest_metric = metric.amax(-1, keepdim=True)
    largest_overlap = (overlap * mine).amax(-1, keepdim=True)
    target = (metric / (largest_metric + EPS) * largest_overlap).amax(1)
    return owner, target


@dataclass
class Positives:
    """The cells of a batch that learn an object, and which; the leading dimension of all values is their number P."""

    batch: Tensor
    """[P], index of the picture."""
    cell: Tensor
    """[P], index of the cell."""
    owner: Tensor
    """[P], index of the object among the labels of the picture."""
    weight: Tensor
    """[P], target scores over the sum of those of the batch."""
    point: Tensor
    """[P, 2], centre of the cell in pixels."""
    stride: Tensor
    """[P], pixels a cell."""
    box: Tensor
    """[P, 4], box of the object in pixels."""

    def of(self, values: Tensor) -> Tensor:
        """The entries of [B, A, ...] at the cells, [P, ...]."""
        return values[self.batch, self.cell]


def distance_loss(logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Distribution focal loss of logits [P, 4, reg_max] for distances [P, 4] in cells."""
    wanted = wanted.clamp(0, REG_MAX - 1 - 0.01)
    low = wanted.long()
    share = wanted - low
    ends = [F.cross_entropy(logits.flatten(0, 1), (low + k).flatten(), reduction="none").view_as(share) for k in (0, 1)]
    return ((ends[0] * (1 - share) + ends[1] * share).mean(1) * weight).sum()


def detection_loss(box_logits: Tensor, class_logits: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Positives]:
    """Loss of one batch, and the cells that were assigned.

    `box_logits` [B, A, 4, reg_max], `class_logits` [B, A, nc], `labels` [B, M, >= 5] (class, corners), square input.
    """
    labels = labels[..., :5]
    points, strides = anchor_points(size, size)
    project = torch.arange(REG_MAX, dtype=torch.float32)
    boxes = decode(box_logits.softmax(-1) @ project, points, strides)
    owner, target = assign(class_logits.detach().sigmoid(), boxes.detach(), points, labels)
    mine = labels.gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, 5))  # [B, A, 5]
    total = target.sum().clamp(min=1.0)

    batch, cell = torch.where(owner >= 0)
    at = Positives(batch, cell, owner[batch, cell], target[batch, cell] / total, points[cell], strides[cell],
                   mine[batch, cell, 1:])
    one_hot = F.one_hot(mine[..., 0].long().clamp(min=0), class_logits.shape[-1])
    class_loss = F.binary_cross_entropy_with_logits(class_logits, one_hot * target[..., None], reduction="sum") / total
    box_loss = ((1 - complete_iou(at.of(boxes), at.box)) * at.weight).sum()
    wanted = torch.cat((at.point - at.box[:, :2], at.box[:, 2:] - at.point), 1) / at.stride[:, None]
    dfl_loss = distance_loss(at.of(box_logits), wanted, at.weight)
    return BOX_GAIN * box_loss + CLASS_GAIN * class_loss + DFL_GAIN * dfl_loss, at
