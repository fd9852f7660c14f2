"""What training does to a batch of scenes: mirrors, turns by quarters, other colours, other sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset import Scenes


@dataclass
class Batch:
    """Scenes of one size as tensors."""

    images: Tensor
    """[B, 3, H, H] in 0..1."""
    labels: Tensor
    """[B, M, LABEL_VALUES] as in `dataset.py`, in pixels of H."""
    owners: Tensor
    """[B, H, H], the object seen at each pixel or -1."""


def load(scenes: Scenes, chosen: np.ndarray) -> Batch:
    """The scenes of these indices."""
    images = torch.from_numpy(scenes.pictures[chosen]).permute(0, 3, 1, 2).float().div_(255)
    return Batch(images, torch.from_numpy(scenes.labels[chosen]), torch.from_numpy(scenes.owners[chosen]))


def augment(batch: Batch, size: int, rng: np.random.Generator) -> Batch:
    """A batch of `size` x `size` pixels; `batch` is changed in place where possible.

    Every shape is symmetric about its own vertical axis, so a mirrored one is a turned one.
    """
    images, labels, owners = batch.images, batch.labels, batch.owners
    side = images.shape[-1]
    for i in range(len(images)):
        _, x1, y1, x2, y2, x, y, diameter, rotation, squash = labels[i].unbind(1)
        if rng.random() < 0.5:
            images[i], owners[i] = images[i].flip(-1), owners[i].flip(-1)
            x1, x2, x, rotation = side - x2, side - x1, side - x, -rotation
        if rng.random() < 0.5:
            images[i], owners[i] = images[i].flip(-2), owners[i].flip(-2)
            y1, y2, y, rotation = side - y2, side - y1, side - y, math.pi - rotation
        if rng.random() < 0.5:
            images[i], owners[i] = images[i].transpose(-1, -2).clone(), owners[i].T.clone()
            x1, y1, x2, y2, x, y, rotation = y1, x1, y2, x2, y, x, 1.5 * math.pi - rotation
        labels[i, :, 1:] = torch.stack((x1, y1, x2, y2, x, y, diameter, rotation, squash), 1)
        images[i] = images[i][torch.from_numpy(rng.permutation(3))]
        images[i] = (images[i] * float(rng.uniform(0.8, 1.2)) + float(rng.uniform(-0.08, 0.08))).clamp(0, 1)
    if size != side:
        images = F.interpolate(images, size=(size, size), mode="area" if size * 2 <= side else "bilinear",
                               antialias=size * 2 > side)
        index = ((torch.arange(size) + 0.5) * side / size).long()
        owners = owners[:, index[:, None], index]
        labels[..., 1:8] *= size / side
    return Batch(images, labels, owners)
