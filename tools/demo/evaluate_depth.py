"""How far distances are off on scenes never trained on.

    python write.py --split val --count 500 --out /tmp/scenes/depth
    ferroyolo predict --task depth -s /tmp/scenes/depth/images/val --save /tmp/found
    python evaluate_depth.py --found /tmp/found/depth

Reads the maps that `predict` saves: `NAME.png`, of 16 bits, metres times 256.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import pixel_owners
from maps import FAR, FOCAL
from scenes import Scene, draw_scene

SCALE = 256.0
# Pixels of a shape with nothing else within so many pixels are inner ones.
BORDER = 4


def distances(scene: Scene) -> NDArray[np.float64]:
    """[H, W] in metres."""
    known = [FOCAL / obj.diameter for obj in scene.objects] + [FAR]
    return np.array(known)[pixel_owners(scene)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Score distances on held-out scenes.")
    parser.add_argument("--split", default="val")
    parser.add_argument("--found", type=Path, required=True)
    args = parser.parse_args()
    paths = sorted(args.found.glob("*.png"))
    errors: dict[str, list[NDArray[np.float64]]] = {"all pixels": [], "pixels of shapes": [], "their inner pixels": []}
    around = np.ones((2 * BORDER + 1,) * 2, np.uint8)
    for path in paths:
        scene = draw_scene(args.split, int(path.stem))
        truth = distances(scene)
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if found is None or found.shape != truth.shape:
            raise OSError(f"{path}: not a map of the scene")
        error = np.abs(found / SCALE - truth) / truth
        on_shapes = truth != FAR
        inner = on_shapes & (cv2.erode(truth, around) == truth) & (cv2.dilate(truth, around) == truth)
        for kept, chosen in zip(errors.values(), (np.full_like(on_shapes, True), on_shapes, inner)):
            kept.append(error[chosen])
    for what, parts in errors.items():
        values = np.concatenate(parts)
        print(f"{len(paths)} scenes, {what}: mean relative error {values.mean():.4f}, median {np.median(values):.4f}")


if __name__ == "__main__":
    main()
