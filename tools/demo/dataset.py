"""Scenes drawn once and kept on disk, so that training does not wait for the generator."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes import SIZE, SUPERSAMPLE, Scene, draw_scene

MAX_OBJECTS = 8
# Class (-1: no object); visible extent x1, y1, x2, y2; centre x, y; diameter; rotation in radians; squash. Pixels.
LABEL_VALUES = 10


@dataclass
class Scenes:
    """Scenes of one split as arrays."""

    pictures: NDArray[np.uint8]
    """[n, SIZE, SIZE, 3], RGB."""
    labels: NDArray[np.float32]
    """[n, MAX_OBJECTS, LABEL_VALUES]."""
    owners: NDArray[np.int8]
    """[n, SIZE, SIZE]: the object that most of a pixel shows, or -1."""


def pixel_owners(scene: Scene) -> NDArray[np.int8]:
    """[H, W]: the object that most of each pixel shows, or -1; the first of several that share it equally."""
    ss = SUPERSAMPLE
    height, width = (side // ss for side in scene.owner.shape)
    fine = scene.owner.reshape(height, ss, width, ss)
    counts = [(fine == k).sum((1, 3), dtype=np.int8) for k in range(-1, len(scene.objects))]
    return (np.argmax(counts, 0) - 1).astype(np.int8)


def _draw(job: tuple[str, int]) -> tuple[int, NDArray[np.uint8], NDArray[np.float32], NDArray[np.int8]]:
    """Index, picture, labels and owners of a scene."""
    split, index = job
    scene = draw_scene(split, index)
    labels = np.full((MAX_OBJECTS, LABEL_VALUES), -1, np.float32)
    for row, obj in zip(labels, scene.objects):
        row[:] = (obj.class_id, *obj.box, *obj.centre, obj.diameter, obj.rotation, obj.squash)
    return index, scene.image, labels, pixel_owners(scene)


def cached(folder: Path, split: str, count: int, processes: int) -> Scenes:
    """Scenes 0..count of a split.

    Drawn on first use and memory-mapped from `folder`; a count that was begun and not finished is drawn anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {kind: folder / f"{split}-{count}-{kind}.npy" for kind in ("pictures", "owners", "labels")}
    if not names["labels"].exists():
        pictures = np.lib.format.open_memmap(names["pictures"], "w+", np.uint8, (count, SIZE, SIZE, 3))
        owners = np.lib.format.open_memmap(names["owners"], "w+", np.int8, (count, SIZE, SIZE))
        labels = np.empty((count, MAX_OBJECTS, LABEL_VALUES), np.float32)
        # One thread a process: OpenCV's own would only wait for each other on pictures of this size.
        with Pool(processes, cv2.setNumThreads, (1,)) as pool:
            jobs = ((split, i) for i in range(count))
            for done, (index, *drawn) in enumerate(pool.imap_unordered(_draw, jobs, 16)):
                pictures[index], labels[index], owners[index] = drawn
                if (done + 1) % 1000 == 0:
                    print(f"{split}: {done + 1} of {count} scenes", flush=True)
        pictures.flush()
        owners.flush()
        np.save(names["labels"], labels)
    return Scenes(np.load(names["pictures"], "r"), np.load(names["labels"]), np.load(names["owners"], "r"))
