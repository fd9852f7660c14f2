"""COCO average precision of detections on scenes never trained on, by pycocotools.

    python write.py --task pose --split val --count 500 --out /tmp/scenes/pose
    ferroyolo val --task pose -d /tmp/scenes/pose/data.yaml --save-json /tmp/found.json
    python evaluate.py --task pose --labels /tmp/scenes/pose/labels/val --found /tmp/found.json

Keypoints are judged with the sigmas and areas of `docs/val.md`; turned boxes by the intersection of their areas over
the union, which is not the measure that `ferroyolo val` takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import shapes
from heads import KPT_SHAPE
from scenes import SIZE

# What is measured for each task, as pycocotools calls it.
KINDS = {"detect": ("bbox",), "segment": ("bbox", "segm"), "pose": ("bbox", "keypoints"), "obb": ("turned",)}
# Area of an object with keypoints, in areas of its box.
KEYPOINT_AREA = 0.53
MAX_DETECTIONS = 300


class TurnedEvaluation(COCOeval):
    """Judges by the overlap of turned boxes, which are under `poly`: the corners x1, y1, ..., x4, y4."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 (overrides)
        found = sorted(self._dts[imgId, catId], key=lambda d: -d["score"])[: self.params.maxDets[-1]]
        truth = self._gts[imgId, catId]
        return np.array([[overlap(d["poly"], g["poly"]) for g in truth] for d in found]) if found and truth else []


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two convex polygons x1, y1, x2, y2, ..."""
    first, second = (np.array(polygon, np.float32).reshape(-1, 2) for polygon in (a, b))
    both, _ = cv2.intersectConvexConvex(first, second)
    return both / max(cv2.contourArea(first) + cv2.contourArea(second) - both, 1e-9)


def _annotation(task: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """The object of a label line, whose numbers after the class are `values`."""
    if task in ("segment", "obb"):
        points = values.reshape(-1, 2) * SIZE
        low, size = points.min(0), np.ptp(points, 0)
        flat = points.flatten().tolist()
        return {"bbox": [*low, *size], "area": size.prod(), "segmentation": [flat], "poly": flat}
    size = values[2:4] * SIZE
    box = {"bbox": [*(values[:2] * SIZE - size / 2), *size], "area": size.prod()}
    if task == "pose":
        points = values[4:].reshape(KPT_SHAPE) * (SIZE, SIZE, 1)
        box |= {"keypoints": points.flatten().tolist(), "num_keypoints": int((points[:, 2] > 0).sum()),
                "area": size.prod() * KEYPOINT_AREA}
    return box


def truth(labels: Path, task: str) -> COCO:
    """Ground truth from the label files of a folder; pictures are numbered by their names."""
    images, annotations = [], []
    for path in sorted(labels.glob("*.txt")):
        images.append({"id": int(path.stem), "width": SIZE, "height": SIZE, "file_name": path.stem})
        for line in path.read_text().splitlines():
            category, *values = line.split()
            annotations.append(_annotation(task, np.array(values, np.float64)) | {
                "id": len(annotations) + 1, "image_id": int(path.stem), "category_id": int(category), "iscrowd": 0})
    coco = COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(shapes.NAMES)]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    coco.createIndex()
    return coco


def main() -> None:
    parser = argparse.ArgumentParser(description="Score detections on held-out scenes.")
    parser.add_argument("--task", choices=KINDS, default="detect")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    args = parser.parse_args()
    coco = truth(args.labels, args.task)
    found = coco.loadRes(json.loads(args.found.read_text()))
    for kind in KINDS[args.task]:
        evaluation = TurnedEvaluation(coco, found) if kind == "turned" else COCOeval(coco, found, kind)
        evaluation.params.maxDets = [MAX_DETECTIONS] if kind == "keypoints" else [1, 100, MAX_DETECTIONS]
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.full(KPT_SHAPE[0], 1 / KPT_SHAPE[0])
        evaluation.evaluate()
        evaluation.accumulate()
        # [overlap, recall, class, area, detections]; -1 where there is nothing to measure.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        mean, half = (part[part > -1].mean() for part in (precision, precision[0]))
        print(f"{len(coco.imgs)} scenes, {kind}: mAP50-95 {mean:.4f}, mAP50 {half:.4f}")


if __name__ == "__main__":
    main()
