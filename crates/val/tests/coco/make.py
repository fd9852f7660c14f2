"""Made-up labels and detections, and what pycocotools says of them; the tests hold the crate's metrics against it.

    pip install numpy pycocotools
    python make.py

writes `coco.json` beside this file. Everything follows from the seed. Classes are few and confidences coarse, so that
labels are missed, found twice, and found with equal confidence; some have no keypoints; areas of poses are 0.53 of their
boxes, as labels in text files have it. At most 100 detections a picture and class, which is as many as pycocotools looks at.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SEED, PICTURES, CLASSES, SIZE = 7, 24, 3, 48


def box_mask(box: list[float]) -> np.ndarray:
    """The ellipse in a box, as pixels."""
    x, y, w, h = box
    v, u = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    return (((u - x - w / 2) / (w / 2)) ** 2 + ((v - y - h / 2) / (h / 2)) ** 2 <= 1).astype(np.uint8)


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, beginning outside."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def instance(rng: np.random.Generator, box: list[float], shift: float) -> dict[str, Any]:
    """A box moved by up to `shift` pixels, with its mask and a pose in it."""
    x, y, w, h = (np.array(box) + rng.uniform(-shift, shift, 4)).tolist()
    x, y, w, h = np.round([x, y, max(w, 4), max(h, 4)], 2).tolist()
    points = np.stack([x + w * np.linspace(0.1, 0.9, 17), y + h * np.abs(np.sin(np.arange(17)))], 1)
    points = np.round(points + rng.uniform(-shift, shift, (17, 2)), 2)
    return {"box": [x, y, w, h], "points": points.tolist(), "runs": runs(box_mask([x, y, w, h]))}


def pictures(rng: np.random.Generator) -> list[dict[str, Any]]:
    made = []
    for _ in range(PICTURES):
        truth, found = [], []
        for _ in range(rng.integers(0, 7)):
            box = [*rng.uniform(2, 24, 2), *rng.uniform(8, 22, 2)]
            label = {"class": int(rng.integers(CLASSES)), **instance(rng, box, 0)}
            # Of some labels no keypoint is known; pycocotools does not want those to be found.
            label["visible"] = (rng.random(17) < (0.8 if rng.random() < 0.7 else 0.0)).tolist()
            truth.append(label)
            for _ in range(rng.integers(0, 4)):
                cls = label["class"] if rng.random() < 0.85 else int(rng.integers(CLASSES))
                found.append({"class": cls, "conf": round(float(rng.beta(2, 2)), 2), **instance(rng, box, rng.exponential(1.2))})
        for _ in range(rng.integers(0, 4)):
            box = [*rng.uniform(2, 24, 2), *rng.uniform(8, 22, 2)]
            found.append({"class": int(rng.integers(CLASSES)), "conf": round(float(rng.beta(1, 3)), 2), **instance(rng, box, 0)})
        made.append({"truth": truth, "found": found})
    return made


def judge(made: list[dict[str, Any]], kind: str) -> list[list[float]]:
    """Average precision of each class at each overlap."""
    truth, found = [], []
    for image_id, picture in enumerate(made, 1):
        for entry, out in [(label, truth) for label in picture["truth"]] + [(one, found) for one in picture["found"]]:
            segmentation = rle.encode(np.asfortranarray(box_mask(entry["box"])))
            segmentation["counts"] = segmentation["counts"].decode()
            common = {"id": len(out) + 1, "image_id": image_id, "category_id": entry["class"], "bbox": entry["box"], "segmentation": segmentation}
            area = entry["box"][2] * entry["box"][3]
            visible = entry.get("visible", [True] * 17)
            keypoints = [value for (x, y), on in zip(entry["points"], visible) for value in ((x, y, 2) if on else (0, 0, 0))]
            if out is truth:
                common |= {"iscrowd": 0, "area": area * (0.53 if kind == "keypoints" else 1), "keypoints": keypoints, "num_keypoints": sum(visible)}
            else:
                common |= {"score": entry["conf"]}
                if kind == "keypoints":
                    common |= {"keypoints": keypoints}
            if out is found and kind != "segm":
                del common["segmentation"]
            if out is found and kind == "segm":
                del common["bbox"]
            out.append(common)
    coco = COCO()
    coco.dataset = {
        "info": {}, "images": [{"id": idx, "width": SIZE, "height": SIZE} for idx in range(1, len(made) + 1)], "annotations": truth,
        "categories": [{"id": idx, "name": str(idx), "keypoints": [str(point) for point in range(17)]} for idx in range(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), kind)
        evaluation.params.maxDets = [100]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    return precision.mean(axis=1).T.tolist()


def main() -> None:
    made = pictures(np.random.default_rng(SEED))
    expected = {kind: judge(made, kind) for kind in ("bbox", "segm", "keypoints")}
    target = Path(__file__).with_name("coco.json")
    target.write_text(json.dumps({"size": SIZE, "pictures": made, "expected": expected}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
