"""Draws the pictures that ship with the binary: scenes of splits that are in no data set.

    python sample.py --out ../../crates/cli/assets/sample.png
    python sample.py --object --out ../../crates/cli/assets/object.png

The second one shows a single object, for the model that classifies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crops import object_crops
from scenes import draw_scene

HEIGHT, WIDTH, INDEX = 480, 640, 4
OBJECT_SIDE, OBJECT_INDEX = 448, 10


def many() -> NDArray[np.uint8]:
    """A scene of many objects."""
    return draw_scene("sample", INDEX, HEIGHT, WIDTH, count=(7, 11)).image


def single() -> NDArray[np.uint8]:
    """A square around the one object of a scene."""
    scene = draw_scene("sample-object", OBJECT_INDEX, OBJECT_SIDE, OBJECT_SIDE, count=(1, 1))
    return next(crop for _, crop in object_crops(scene, OBJECT_INDEX))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a sample picture.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--object", action="store_true", help="a single object")
    args = parser.parse_args()
    picture = single() if args.object else many()
    cv2.imwrite(str(args.out), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
