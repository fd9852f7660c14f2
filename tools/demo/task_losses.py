"""What masks, keypoints and turned boxes add to the loss of the detector, at the cells assigned to it.

Sources: V-Net, arXiv:1606.04797 (Dice); YOLO-Pose, arXiv:2204.06806 (object keypoint similarity as a loss).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import geometry
from heads import KPT_SHAPE, REG_MAX, angles, keypoints
from loss import BOX_GAIN, DFL_GAIN, Positives, complete_iou, distance_loss

MASK_GAIN, KEYPOINT_GAIN, VISIBILITY_GAIN, ANGLE_GAIN = 4.0, 6.0, 0.5, 2.0
MASKS_A_BATCH = 64
# As COCO's similarity is computed where there are no sigmas of people: one over the number of keypoints, and an area
# that is 0.53 times the box.
SIGMA, AREA = 1 / KPT_SHAPE[0], 0.53
EPS = 1e-6


def mask_loss(coefficients: Tensor, proto: Tensor, owners: Tensor, at: Positives) -> Tensor:
    """Cross entropy and Dice of masks inside their boxes, at half the resolution of the input.

    `coefficients` [B, A, nm], `proto` [B, nm, H / 4, W / 4], `owners` [B, H, W]: index of the object seen, or -1. Of
    more than `MASKS_A_BATCH` cells as many are drawn.
    """
    chosen = torch.randperm(len(at.batch))[:MASKS_A_BATCH]
    batch, cell = at.batch[chosen], at.cell[chosen]
    logits = torch.einsum("pc,pchw->phw", coefficients[batch, cell], proto[batch])
    logits = F.interpolate(logits[:, None], scale_factor=2, mode="bilinear")[:, 0]
    truth = (owners[batch] == at.owner[chosen, None, None]).float()
    truth = F.avg_pool2d(truth, 2)
    side = torch.arange(truth.shape[-1]) * 2 + 1.0
    x1, y1, x2, y2 = at.box[chosen, :, None].unbind(1)
    inside = (((side > x1 - 2) & (side < x2 + 2))[:, None] & ((side > y1 - 2) & (side < y2 + 2))[:, :, None]).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (entropy * inside).sum((1, 2)) / inside.sum((1, 2))
    share = logits.sigmoid() * inside
    dice = 1 - (2 * (share * truth).sum((1, 2)) + 1) / (share.sum((1, 2)) + (truth * inside).sum((1, 2)) + 1)
    weight = at.weight[chosen]
    return MASK_GAIN * ((2 * entropy + dice) * weight).sum() / weight.sum().clamp(min=EPS) * at.weight.sum()


def _described(labels: Tensor, at: Positives) -> tuple[np.ndarray, ...]:
    """Class, centre, diameter, rotation and squash of the objects at the cells."""
    mine = labels[at.batch, at.owner].double().numpy()
    return mine[:, 0].astype(np.int64), mine[:, 5:7], mine[:, 7], mine[:, 8], mine[:, 9]


def keypoint_loss(raw: Tensor, labels: Tensor, size: int, at: Positives) -> Tensor:
    """One less the similarity of keypoints that are in the frame, their distance, and which are there.

    `raw` [B, A, 3 K]; `labels` [B, M, 10] as in `dataset.py`, of a square input of `size` pixels.
    """
    found = keypoints(at.of(raw), at.point, at.stride)
    truth, exists = (torch.from_numpy(part) for part in geometry.keypoints(*_described(labels, at)))
    truth = truth.float()
    seen = (exists & (truth >= 0).all(-1) & (truth <= size).all(-1)).float()
    area = AREA * (at.box[:, 2:] - at.box[:, :2]).prod(1)[:, None]
    offset = found[..., :2] - truth
    squared = offset.square().sum(-1) / area
    similarity = torch.exp(-squared / (2 * (2 * SIGMA) ** 2))
    distance = (squared + EPS).sqrt().clamp(max=2)
    each = (1 - similarity + 2 * distance) * seen
    place = each.sum(1) / seen.sum(1).clamp(min=1)
    visibility = F.binary_cross_entropy_with_logits(found[..., 2], seen, reduction="none").mean(1)
    return ((KEYPOINT_GAIN * place + VISIBILITY_GAIN * visibility) * at.weight).sum()


def turned_box_loss(logits: Tensor, raw_angle: Tensor, labels: Tensor, at: Positives) -> Tensor:
    """Loss of boxes along the object's own axes, and of the angle.

    `logits` [B, A, 4, reg_max], `raw_angle` [B, A, 1], `labels` as for `keypoint_loss`. A turn by a quarter with width
    and height exchanged is the same box; of the two the one nearer to the angle that was found is the truth.
    """
    angle = angles(at.of(raw_angle))
    boxes = torch.from_numpy(geometry.oriented_boxes(*_described(labels, at))).float()
    centre, width, height, turn = boxes[:, :2], boxes[:, 2], boxes[:, 3], boxes[:, 4]
    quarter = math.pi / 2
    n_quarters = ((angle.detach() - turn) / quarter).round()
    turn = turn + n_quarters * quarter
    exchanged = n_quarters.long() % 2 == 1
    width, height = torch.where(exchanged, height, width), torch.where(exchanged, width, height)
    # Beyond the range of the angle the neighbouring quarter is as near as can be had.
    over = torch.div(turn + quarter / 2, 2 * quarter, rounding_mode="floor")
    turn = turn - over * 2 * quarter

    offset = at.point - centre
    cos, sin = turn.cos(), turn.sin()
    along, across = offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin
    wanted = torch.stack((along + width / 2, across + height / 2, width / 2 - along, height / 2 - across), 1)
    wanted = wanted / at.stride[:, None]
    found = at.of(logits)
    sides = found.softmax(-1) @ torch.arange(REG_MAX, dtype=torch.float32)

    def corners(distances: Tensor) -> Tensor:
        return torch.cat((-distances[:, :2], distances[:, 2:]), 1)

    box_loss = ((1 - complete_iou(corners(sides), corners(wanted))) * at.weight).sum()
    angle_loss = ((1 - torch.cos(2 * (angle - turn))) * at.weight).sum()
    return BOX_GAIN * box_loss + DFL_GAIN * distance_loss(found, wanted, at.weight) + ANGLE_GAIN * angle_loss
