"""COCO average precision of detections, as `ferroyolo predict --json -` prints them, by pycocotools.

    pip install numpy pycocotools
    ferroyolo predict -m MODEL -s IMAGES --conf 0.001 --iou 0.65 --multi-label --json - > detections.jsonl
    python coco_ap.py detections.jsonl LABELS [--classes 80] [--json -]

LABELS is a folder of YOLO text files (`class cx cy w h`, normalised), one for each picture that has objects, under the
picture's stem. A picture is known by its stem; all pictures in the detections are scored, those without a label file
as empty ones. Areas, and with them the sizes small, medium and large, are those of the boxes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def read_detections(path: Path) -> dict[str, dict[str, Any]]:
    """The JSON objects by stem of their picture. Pictures that failed are an error: their objects would be lost."""
    pictures: dict[str, dict[str, Any]] = {}
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            picture = json.loads(line)
            if "error" in picture:
                raise SystemExit(f"{path}:{number}: {picture['path']}: {picture['error']}")
            stem = Path(picture["path"]).stem
            if stem in pictures:
                raise SystemExit(f"{path}:{number}: a second picture called {stem}")
            pictures[stem] = picture
    if not pictures:
        raise SystemExit(f"{path}: no pictures")
    return pictures


def image_ids(stems: list[str]) -> dict[str, int]:
    """COCO's file names are numbers and serve as ids; others are counted."""
    if all(stem.isdecimal() for stem in stems):
        return {stem: int(stem) for stem in stems}
    return {stem: number for number, stem in enumerate(stems, 1)}


def read_labels(path: Path, width: int, height: int) -> list[tuple[int, list[float]]]:
    """Class and `[x, y, w, h]` in pixels of each object; none if there is no file."""
    objects = []
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.strip():
            category, cx, cy, w, h = (float(value) for value in line.split()[:5])
            objects.append((int(category), [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]))
    return objects


def evaluate(pictures: dict[str, dict[str, Any]], labels: Path, n_classes: int) -> dict[str, float]:
    ids = image_ids(sorted(pictures))
    images, annotations, detections = [], [], []
    for stem, image_id in ids.items():
        height, width = pictures[stem]["shape"]
        images.append({"id": image_id, "width": width, "height": height})
        for category, bbox in read_labels(labels / f"{stem}.txt", width, height):
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": bbox,
                "area": bbox[2] * bbox[3], "iscrowd": 0,
            })
        for found in pictures[stem]["results"]:
            x1, y1, x2, y2 = (found["box"][corner] for corner in ("x1", "y1", "x2", "y2"))
            detections.append({
                "image_id": image_id, "category_id": found["class"], "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": found["confidence"],
            })
    if not annotations:
        raise SystemExit(f"{labels}: no objects for any of {len(images)} pictures")
    if not detections:
        return dict.fromkeys(METRICS, 0.0)
    truth = COCO()
    truth.dataset = {
        "info": {}, "images": images, "annotations": annotations,
        "categories": [{"id": idx, "name": str(idx)} for idx in range(n_classes)],
    }
    # pycocotools prints as it goes, and standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(METRICS, evaluation.stats, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detections", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--json", choices=["-"], help="print one JSON object instead of lines")
    args = parser.parse_args()
    pictures = read_detections(args.detections)
    metrics = evaluate(pictures, args.labels, args.classes)
    if args.json:
        print(json.dumps({"images": len(pictures), **metrics}))
    else:
        for name, value in metrics.items():
            print(f"{name:10} {value:.4f}")


if __name__ == "__main__":
    main()
