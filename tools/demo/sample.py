"""Draws the picture that ships with the binary: one scene of the split `sample`, which is in no data set.

    python sample.py --out ../../crates/cli/assets/sample.png [--index 4]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from scenes import draw_scene

HEIGHT, WIDTH = 480, 640


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample picture.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--index", type=int, default=4)
    args = parser.parse_args()
    scene = draw_scene("sample", args.index, HEIGHT, WIDTH, count=(7, 11))
    cv2.imwrite(str(args.out), scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
