"""Writes scenes as a data set of one task in YOLO's form, for `ferroyolo val`.

    python write.py --task segment --split val --count 500 --out /tmp/scenes/segment

writes `images/val/*.png`, `labels/val/*.txt` and `data.yaml`; for `classify` a folder of pictures for each class,
`val/CLASS`.
All numbers of labels are shares of the frame:

| task | line |
|---|---|
| detect | class, centre x, y, width, height of what is seen |
| segment | class, outline of what is seen; holes and separate parts are joined by seams of no width |
| pose | as detect, then x, y, 2 of each keypoint, or 0 0 0 if the class lacks it or it is out of the frame |
| obb | class, the four corners of the oriented box of the whole shape, which is kept in the frame |

For `semantic` there are class maps instead, `masks/val/*.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

import geometry
import shapes
from crops import object_crops
from dataset import pixel_owners
from heads import KPT_SHAPE
from maps import SEMANTIC_NAMES
from outlines import outline
from scenes import SUPERSAMPLE, Scene, draw_scene


def _text(class_id: int, values: NDArray[np.float64]) -> str:
    return " ".join([str(class_id), *(f"{value:.5f}" for value in np.asarray(values).flatten())]) + "\n"


def _detect(scene: Scene, k: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    box = np.array(scene.objects[k].box).reshape(2, 2) / size
    return np.concatenate((box.mean(0), box[1] - box[0]))


def _segment(scene: Scene, k: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    return outline(scene.owner == k) / SUPERSAMPLE / size


def _pose(scene: Scene, k: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    points, exists = scene.objects[k].keypoints()
    seen = exists & (points >= 0).all(1) & (points <= size).all(1)
    rows = np.concatenate((points / size, np.full((len(points), 1), 2.0)), 1) * seen[:, None]
    return np.concatenate((_detect(scene, k, size), rows.flatten()))


def _obb(scene: Scene, k: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    return geometry.corners(scene.objects[k].oriented_box()) / size


TASKS = ("detect", "segment", "pose", "obb", "classify", "semantic")

# What a label line holds after the class: of object k of a scene, in a frame of `size` (width, height).
_VALUES: dict[str, Callable[[Scene, int, NDArray[np.float64]], NDArray[np.float64]]] = {
    "detect": _detect, "segment": _segment, "pose": _pose, "obb": _obb,
}


def labels(scene: Scene, task: str) -> str:
    """The label file of a scene."""
    size = np.array(scene.image.shape[1::-1], np.float64)
    return "".join(_text(obj.class_id, _VALUES[task](scene, k, size)) for k, obj in enumerate(scene.objects))


def class_map(scene: Scene) -> NDArray[np.uint8]:
    """[H, W]: the class that most of each pixel shows, an index of `SEMANTIC_NAMES`."""
    classes = [obj.class_id for obj in scene.objects] + [len(shapes.NAMES)]
    return np.array(classes, np.uint8)[pixel_owners(scene)]


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), picture[..., ::-1], options):
        raise OSError(f"{path}: could not be written")


def write(args: argparse.Namespace) -> None:
    """Writes the data set that the command line asks for."""
    for index in range(args.count):
        scene = draw_scene(args.split, index, whole=args.whole or args.task == "obb")
        if args.task == "classify":
            for k, crop in object_crops(scene, index):
                name = shapes.NAMES[scene.objects[k].class_id]
                _save(args.out / args.split / name / f"{index:05}-{k}.{args.format}", crop)
            continue
        if not args.labels_only:
            _save(args.out / "images" / args.split / f"{index:05}.{args.format}", scene.image)
        if args.task == "semantic":
            path = args.out / "masks" / args.split / f"{index:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), class_map(scene), [cv2.IMWRITE_PNG_COMPRESSION, 9]):
                raise OSError(f"{path}: could not be written")
            continue
        path = args.out / "labels" / args.split / f"{index:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(labels(scene, args.task))
    if args.task != "classify":
        known = SEMANTIC_NAMES if args.task == "semantic" else shapes.NAMES
        names = "".join(f"  {i}: {name}\n" for i, name in enumerate(known))
        shape = f"kpt_shape: {list(KPT_SHAPE)}\n" if args.task == "pose" else ""
        shape += "masks_dir: masks\n" if args.task == "semantic" else ""
        text = f"path: .\ntrain: images/{args.split}\nval: images/{args.split}\n{shape}names:\n{names}"
        (args.out / "data.yaml").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scenes as a data set of one task.")
    parser.add_argument("--task", choices=TASKS, default="detect")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=500, help="number of scenes")
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    parser.add_argument("--whole", action="store_true", help="keep every shape in the frame, as obb always does")
    parser.add_argument("--labels-only", action="store_true", help="write no pictures")
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args())


if __name__ == "__main__":
    main()
