"""COCO average precision of detections on scenes never trained on, by pycocotools.

    python scenes.py --split val --count 500 --out /tmp/scenes
    ferroyolo predict -s /tmp/scenes/images/val --conf 0.001 --multi-label --json - > /tmp/found.jsonl
    python evaluate.py --labels /tmp/scenes/labels/val --found /tmp/found.jsonl

`--found` takes the lines that `ferroyolo predict --json -` prints. Instead, `--weights /tmp/demo/weights.pt --images
/tmp/scenes/images/val` scores the PyTorch network itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Iterable

import cv2
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import batched_nms

import shapes
from export import load
from network import predict

CONF, IOU, MAX_DET = 0.001, 0.7, 300


def truth(labels: Path, sizes: dict[str, tuple[int, int]]) -> COCO:
    """Ground truth from YOLO label files; `sizes` holds (height, width) in pixels by stem."""
    images, annotations = [], []
    for image_id, stem in enumerate(sorted(sizes), 1):
        height, width = sizes[stem]
        images.append({"id": image_id, "width": width, "height": height, "file_name": stem})
        for line in (labels / f"{stem}.txt").read_text().splitlines():
            category, cx, cy, w, h = map(float, line.split())
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": int(category),
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    coco = COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(shapes.NAMES)]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    coco.createIndex()
    return coco


def from_json(path: Path) -> Iterable[dict[str, Any]]:
    """Pictures as `ferroyolo predict --json -` prints them."""
    for line in path.read_text().splitlines():
        picture = json.loads(line)
        if "error" in picture:
            raise SystemExit(f"{picture['path']}: {picture['error']}")
        found = [
            (r["class"], r["confidence"], r["box"]["x1"], r["box"]["y1"], r["box"]["x2"], r["box"]["y2"])
            for r in picture["results"]
        ]
        yield {"stem": Path(picture["path"]).stem, "size": tuple(picture["shape"]), "found": found}


def from_network(weights: Path, images: Path) -> Iterable[dict[str, Any]]:
    """Pictures as the PyTorch network sees them, several labels a box."""
    net = load(weights)
    for path in sorted(images.glob("*.png")):
        picture = cv2.imread(str(path))[..., ::-1].copy()
        output = predict(net, torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)[0]
        cell, category = torch.where(output[4:].T > CONF)
        score = output[4:].T[cell, category]
        centre, size = output[:2].T[cell], output[2:4].T[cell]
        boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
        keep = batched_nms(boxes, score, category, IOU)[:MAX_DET]
        found = [(int(category[k]), float(score[k]), *boxes[k].tolist()) for k in keep]
        yield {"stem": path.stem, "size": picture.shape[:2], "found": found}


def main() -> None:
    parser = argparse.ArgumentParser(description="Score detections on held-out scenes.")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--found", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path)
    args = parser.parse_args()
    if args.found:
        pictures = list(from_json(args.found))
    elif args.weights and args.images:
        pictures = list(from_network(args.weights, args.images))
    else:
        parser.error("give --found, or --weights and --images")
    coco = truth(args.labels, {p["stem"]: p["size"] for p in pictures})
    ids = {image["file_name"]: image["id"] for image in coco.dataset["images"]}
    detections = [
        {"image_id": ids[p["stem"]], "category_id": c, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for p in pictures
        for c, score, x1, y1, x2, y2 in p["found"]
    ]
    evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    print(f"{len(pictures)} scenes, mAP50-95 {evaluation.stats[0]:.4f}, mAP50 {evaluation.stats[1]:.4f}")


if __name__ == "__main__":
    main()
