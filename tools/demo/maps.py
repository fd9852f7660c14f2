"""What the pixels of a scene are: classes and distances.

Every shape is one metre across, seen by a camera whose focal length is `FOCAL` pixels of the network's input, so its
distance is `FOCAL` by its diameter in pixels. The background is a wall at `FAR` metres.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import shapes

SEMANTIC_NAMES = (*shapes.NAMES, "background")
FOCAL = 256.0
FAR = 20.0
# Where `dataset.py` keeps the diameter in a label.
_DIAMETER = 7


def _of_owners(values: Tensor, owners: Tensor, background: float) -> Tensor:
    """Values [B, M] of objects where they are seen [B, H, W], and elsewhere that of the background."""
    rows = torch.cat((values, torch.full_like(values[:, :1], background)), 1)
    last = values.shape[1]
    index = torch.where(owners < 0, last, owners.long())
    return rows.gather(1, index.flatten(1)).view(owners.shape)


def class_maps(labels: Tensor, owners: Tensor) -> Tensor:
    """The class of each pixel, an index of `SEMANTIC_NAMES`; labels and owners as in `augment.Batch`."""
    return _of_owners(labels[..., 0], owners, len(shapes.NAMES)).long()


def log_distances(labels: Tensor, owners: Tensor) -> Tensor:
    """The logarithm of the distance in metres of each pixel; labels and owners as in `augment.Batch`."""
    logs = math.log(FOCAL) - labels[..., _DIAMETER].clamp(min=1).log()
    return _of_owners(logs, owners, math.log(FAR))
