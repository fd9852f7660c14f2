"""Pictures of single objects, cut out of scenes, for the network that classifies."""

from __future__ import annotations

from typing import Iterator

import numpy as np
from numpy.typing import NDArray

from dataset import pixel_owners
from scenes import Scene

# Side of a crop in sides of the object's box, and how far its centre may be off, in sides of the crop.
ZOOM, JITTER = (1.1, 1.7), 0.08
# Most that other objects may cover.
MAX_OTHERS = 0.12


def crop_window(box: NDArray[np.float32], owners: NDArray[np.int8], k: int,
                rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Rows and columns of a square around object `k` of a scene, or nothing if others would cover too much of it.

    `box`: x1, y1, x2, y2 in pixels; `owners` [H, W]: the object seen at each pixel, or -1.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    side = int(min(max(width, height) * rng.uniform(*ZOOM), *owners.shape))
    centre = (box[:2] + box[2:]) / 2 + side * rng.uniform(-JITTER, JITTER, 2)
    limit = np.array(owners.shape[::-1]) - side
    x, y = np.clip(np.round(centre - side / 2), 0, limit).astype(int)
    rows, cols = slice(y, y + side), slice(x, x + side)
    others = (owners[rows, cols] >= 0) & (owners[rows, cols] != k)
    return (rows, cols) if others.mean() <= MAX_OTHERS else None


def object_crops(scene: Scene, seed: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Objects of a scene with their crops [S, S, 3], as far as others don't cover too much of them."""
    rng = np.random.default_rng(seed)
    owners = pixel_owners(scene)
    for k, obj in enumerate(scene.objects):
        window = crop_window(np.array(obj.box, np.float32), owners, k, rng)
        if window is not None:
            yield k, scene.image[window]
