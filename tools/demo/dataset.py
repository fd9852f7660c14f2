"""Scenes drawn once and kept on disk, so that training does not wait for the generator."""

from __future__ import annotations

from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenes import SIZE, draw_scene

MAX_OBJECTS = 8


def _draw(job: tuple[str, int]) -> tuple[int, NDArray[np.uint8], NDArray[np.float32]]:
    """Picture [SIZE, SIZE, 3] and labels [MAX_OBJECTS, 5] (class, x1, y1, x2, y2 in pixels; class -1 is empty)."""
    split, index = job
    scene = draw_scene(split, index)
    labels = np.full((MAX_OBJECTS, 5), -1, np.float32)
    for row, obj in zip(labels, scene.objects):
        row[:] = (obj.class_id, *obj.box)
    return index, scene.image, labels


def cached(folder: Path, split: str, count: int, processes: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Scenes 0..count of a split: pictures [count, SIZE, SIZE, 3] and labels [count, MAX_OBJECTS, 5].

    Drawn on first use and memory-mapped from `folder`; a count that was begun and not finished is drawn anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = folder / f"{split}-{count}.u8", folder / f"{split}-{count}.npy"
    shape = (count, SIZE, SIZE, 3)
    if not labels.exists():
        drawn = np.memmap(pictures, np.uint8, "w+", shape=shape)
        rows = np.empty((count, MAX_OBJECTS, 5), np.float32)
        with Pool(processes) as pool:
            for done, (index, image, row) in enumerate(pool.imap_unordered(_draw, ((split, i) for i in range(count)), 16)):
                drawn[index], rows[index] = image, row
                if (done + 1) % 1000 == 0:
                    print(f"{split}: {done + 1} of {count} scenes", flush=True)
        drawn.flush()
        np.save(labels, rows)
    return np.memmap(pictures, np.uint8, "r", shape=shape), np.load(labels)
