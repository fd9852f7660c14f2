#!/usr/bin/env python3
"""Holds `ferroyolo val` against Ultralytics' own `val` and against pycocotools, and prints rows of docs/val.md.

    compare_val.py --ferroyolo BIN MODEL DATA [--imgsz N] [--batch N] [--conf C] [--no-ultralytics] [--pixel-centres]

MODEL is a .pt, DATA the YAML file of a data set (for classifiers its folder) whose split `val` is measured. Both programs
get the same input size, batch and confidence. pycocotools judges what ferroyolo found (`--save-json`) by the labels as they
stand in the files, in the size of the pictures, up to 300 detections a picture; with --pixel-centres it gets polygons as
masks of the pixels whose centres are inside, in place of drawing them by its own rule. It needs `pip install
ultralytics==8.4.190 pycocotools`; ultralytics is run, and nothing of it is read. It leaves a labels.cache in the data set.
Its suppression has a time limit, which it warns of but does not fail by: random networks need a high --conf.
"""
import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

COCO_KEYS = {"box": "bbox", "mask": "segm", "pose": "keypoints"}
MEANS = ("map50_95", "map50", "map75")


def ferroyolo(args, boxes):
    command = [args.ferroyolo, "val", "-q", "-m", args.model, "-d", args.data, "--batch", str(args.batch), "--json", "-"]
    if args.imgsz:
        command += ["--imgsz", str(args.imgsz)]
    if args.conf is not None:
        command += ["--conf", str(args.conf)]
    command += ["--save-json", str(boxes)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        sys.exit(f"ferroyolo ended with {run.returncode}")
    return json.loads(run.stdout)


def ultralytics(args):
    options = {"batch": args.batch, "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
    if args.imgsz:
        options["imgsz"] = args.imgsz
    if args.conf is not None:
        options["conf"] = args.conf
    # It takes hold of stdout when it is imported; its notices shall not stand among the rows.
    with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(sys.stderr):
        import torch
        from ultralytics import YOLO

        torch.set_num_threads(1)
        result = YOLO(args.model).val(data=args.data, project=runs, **options)
    out = {}
    for name, key in (("box", "box"), ("seg", "mask"), ("pose", "pose")):
        metric = getattr(result, name, None)
        if metric is not None and hasattr(metric, "map75"):
            values = {"map50_95": metric.map, "map50": metric.map50, "map75": metric.map75}
            out[key] = values | {"precision": metric.mp, "recall": metric.mr}
    for key, name in (("top1", "top1"), ("top5", "top5"), ("miou", "miou"), ("pixel_accuracy", "pixel_accuracy")):
        value = getattr(result, name, None)
        if value is not None:
            out[key] = float(value)
    return out


def labels(args, kpt_shape, image_ids):
    """COCO's form of the labels of the pictures, whose numbers are `image_ids` by file name."""
    import yaml

    described = yaml.safe_load(Path(args.data).read_text())
    folder = Path(args.data).parent / described.get("path", "") / described["val"]
    images, objects = [], []
    for picture in sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png")):
        height, width = cv2.imread(str(picture)).shape[:2]
        image = image_ids.get(picture.name)
        if image is None:
            # Nothing was found in it; its labels are missed all the same.
            image = max([*image_ids.values(), 0]) + 1
            image_ids[picture.name] = image
        images.append({"id": image, "width": width, "height": height})
        path = Path(str(picture).replace("/images/", "/labels/")).with_suffix(".txt")
        lines = dict.fromkeys(path.read_text().splitlines()) if path.exists() else {}
        for line in filter(str.strip, lines):
            found, *values = map(float, line.split())
            points = np.array(values).reshape(-1, 2) if len(values) > 4 and not kpt_shape else None
            if points is None:
                x, y, w, h = np.array(values[:4]) * [width, height, width, height]
                box = [x - w / 2, y - h / 2, w, h]
            else:
                points = points * [width, height]
                box = [*points.min(0), *(points.max(0) - points.min(0))]
            entry = {"id": len(objects) + 1, "image_id": image, "category_id": int(found), "iscrowd": 0}
            entry |= {"bbox": [float(side) for side in box], "area": float(box[2] * box[3])}
            if points is not None:
                entry["segmentation"] = [points.ravel().tolist()]
            if kpt_shape:
                keypoints = np.array(values[4:]).reshape(kpt_shape[0], -1)
                if keypoints.shape[1] == 2:
                    keypoints = np.c_[keypoints, np.where((keypoints != 0).any(1), 2, 0)]
                keypoints = keypoints * [width, height, 1]
                # Text labels give no area; this share of the box is what is taken for it everywhere.
                entry |= {"keypoints": keypoints.ravel().tolist(), "area": entry["area"] * 0.53}
                entry["num_keypoints"] = int((keypoints[:, 2] > 0).sum())
            objects.append(entry)
    names = described["names"]
    classes = [{"id": idx, "name": str(idx)} for idx in range(len(names))]
    return {"info": {}, "images": images, "annotations": objects, "categories": classes}


def pixels_inside(polygon, height, width):
    """The run lengths of the pixels whose centres are inside the polygon, by the even-odd rule."""
    from pycocotools import mask

    starts = np.array(polygon).reshape(-1, 2)
    ends = np.roll(starts, -1, axis=0)
    inside = np.zeros((height, width), np.uint8, order="F")
    for row, pixels in enumerate(inside):
        y = row + 0.5
        crossed = (starts[:, 1] <= y) != (ends[:, 1] <= y)
        (x1, y1), (x2, y2) = starts[crossed].T, ends[crossed].T
        crossings = np.sort(x1 + (y - y1) / (y2 - y1) * (x2 - x1))
        for left, right in np.clip(np.ceil(crossings - 0.5), 0, width).astype(int).reshape(-1, 2):
            pixels[left:right] = 1
    return mask.encode(inside)


def pycocotools(args, task, boxes):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    import yaml

    found = json.loads(boxes.read_text())
    kpt_shape = yaml.safe_load(Path(args.data).read_text()).get("kpt_shape") if task == "pose" else None
    truth = COCO()
    truth.dataset = labels(args, kpt_shape, {entry["file_name"]: entry["image_id"] for entry in found})
    if args.pixel_centres:
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth.dataset["images"]}
        for entry in truth.dataset["annotations"]:
            if "segmentation" in entry:
                entry["segmentation"] = pixels_inside(entry["segmentation"][0], *sizes[entry["image_id"]])
    out = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        for what in {"segment": ("box", "mask"), "pose": ("box", "pose")}.get(task, ("box",)):
            # With masks or keypoints in them, entries would be given boxes of their own.
            kept = ("image_id", "category_id", "score", "bbox") if what == "box" else tuple(found[0])
            entries = [{key: entry[key] for key in kept if what == "box" or key != "bbox"} for entry in found]
            judge = COCOeval(truth, truth.loadRes(entries), COCO_KEYS[what])
            judge.params.maxDets, judge.params.areaRng, judge.params.areaRngLbl = [300], [[0, 1e10]], ["all"]
            if kpt_shape and kpt_shape[0] != 17:
                judge.params.kpt_oks_sigmas = np.full(kpt_shape[0], 1 / kpt_shape[0])
            judge.evaluate()
            judge.accumulate()
            precision = judge.eval["precision"][..., 0, 0]
            means = [precision, precision[:1], precision[5:6]]
            out[what] = {key: float(of[of > -1].mean()) for key, of in zip(MEANS, means)}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--ferroyolo", required=True)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--conf", type=float)
    parser.add_argument("--no-ultralytics", action="store_true")
    parser.add_argument("--pixel-centres", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        boxes = Path(folder) / "found.json"
        ours = ferroyolo(args, boxes)
        task = ours["task"]
        coco = pycocotools(args, task, boxes) if task in ("detect", "segment", "pose") else {}
    theirs = {} if args.no_ultralytics else ultralytics(args)
    name = Path(args.model).stem

    def cell(values, keys=MEANS):
        return " / ".join(f"{values[key]:.4f}" for key in keys) if values else ""

    for what in ("box", "mask", "pose"):
        if what in ours:
            of, by = ours[what], theirs.get(what)
            columns = [cell(of), cell(coco.get(what)), cell(of["ultralytics"]), cell(by)]
            rates = ("precision", "recall")
            columns += [cell(of["ultralytics"], rates), cell(by, rates)]
            print(f"| {name}, {what} | " + " | ".join(columns) + " |")
    for what in ("top1", "top5", "miou", "pixel_accuracy"):
        if what in ours:
            columns = [f"{ours[what]:.4f}", f"{theirs[what]:.4f}" if what in theirs else ""]
            print(f"| {name}, {what} | " + " | ".join(columns) + " |")


if __name__ == "__main__":
    main()
