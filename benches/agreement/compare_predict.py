#!/usr/bin/env python3
"""Compares what `ferroyolo predict` finds with what Ultralytics' `predict` finds.

    python compare_predict.py FERROYOLO PICTURES CHECKPOINT... [--limit N] [--retina-masks] [--head one2one]
                              [--conf C] [--no-rect] [--verbose]

FERROYOLO is the binary, PICTURES a directory of PNG pictures (or of JPEGs, whose decoders differ by a level here and
there, which adds to the differences), CHECKPOINTs are .pt files. For each checkpoint it prints one row of a Markdown
table: how many detections Ultralytics reports, how many of them have a counterpart, one to one, how many of ours are
left over, and the largest differences among those that match. A counterpart has the same class, a confidence within
0.005, and

    detect, segment, pose   a box with an IoU of at least 0.99
    segment                 a mask with an IoU of at least 0.98, pixel by pixel
    pose                    every keypoint within 0.5 px, its visibility within 0.005
    obb                     a rotated box with an IoU of at least 0.99 and an angle within 0.01 rad
    classify                the class at the same place of the top five

Class maps are compared pixel by pixel, depth maps by their largest relative difference; both are read from the PNGs
that `--save` writes. Unless it is given, each confidence threshold is the highest of a few at which Ultralytics
reports ten or more detections a picture, since random networks are unsure; it stands in the table. One picture is
predicted at a time.
"""
import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from ultralytics import YOLO

CONFS = (0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def box_iou(a, b):
    w = max(0.0, min(a["x2"], b["x2"]) - max(a["x1"], b["x1"]))
    h = max(0.0, min(a["y2"], b["y2"]) - max(a["y1"], b["y1"]))
    area = lambda r: (r["x2"] - r["x1"]) * (r["y2"] - r["y1"])
    union = area(a) + area(b) - w * h
    return w * h / union if union > 0 else float(a == b)


def corners(box):
    return np.array([[box[f"x{i}"], box[f"y{i}"]] for i in range(1, 5)])


def cross(u, v):
    return u[0] * v[1] - u[1] * v[0]


def area(points):
    x, y = np.array(points).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def rotated_iou(a, b):
    """Clips one box by the edges of the other, as Sutherland and Hodgman do."""
    a, b = corners(a), corners(b)
    if cross(b[1] - b[0], b[2] - b[1]) < 0:
        b = b[::-1]
    clipped = list(a)
    for p, q in zip(b, np.roll(b, -1, 0)):
        before, clipped = clipped, []
        for s, e in zip(before, before[1:] + before[:1]):
            ds, de = [cross(q - p, v - p) for v in (s, e)]
            if (ds >= 0) != (de >= 0):
                clipped.append(s + (e - s) * ds / (ds - de))
            if de >= 0:
                clipped.append(e)
        if not clipped:
            return 0.0
    common = area(clipped)
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0.0


def angle(box):
    c = corners(box)
    return math.atan2(c[0][1] - c[3][1], c[0][0] - c[3][0])


def turn(a, b):
    """Difference of two directions up to quarter turns."""
    d = (a - b) % (math.pi / 2)
    return min(d, math.pi / 2 - d)


def mask_iou(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 1.0


class Row:
    """What one checkpoint's comparison comes to."""

    def __init__(self):
        self.theirs = self.matched = self.extra = 0
        self.worst = {}

    def note(self, what, value):
        self.worst[what] = max(self.worst.get(what, 0.0), float(value))

    def __str__(self):
        share = 100 * self.matched / self.theirs if self.theirs else 100.0
        worst = ", ".join(f"{what} {value:.2g}" for what, value in self.worst.items())
        return f"{self.theirs} | {self.matched} ({share:.2f} %) | {self.extra} | {worst}"


def match_objects(row, task, theirs, ours, masks, verbose):
    """Pairs detections of one picture, the surest first, each with the most alike that is left.

    `masks`: theirs as an array of booleans, and a function that reads one of ours.
    """
    free = set(range(len(ours)))
    row.theirs += len(theirs)
    iou = rotated_iou if task == "obb" else box_iou
    for rank, want in enumerate(theirs):
        near = [(iou(want["box"], ours[i]["box"]), i) for i in free if ours[i]["class"] == want["class"]]
        near = [(v, i) for v, i in near if v >= 0.99 and abs(ours[i]["confidence"] - want["confidence"]) <= 0.005]
        # Boxes that are clipped to the same edges are told apart by their confidence.
        near.sort(key=lambda pair: 1 - pair[0] + abs(ours[pair[1]]["confidence"] - want["confidence"]))
        for value, i in near:
            got, differences = ours[i], {"1 - IoU": 1 - value}
            differences["confidence"] = abs(got["confidence"] - want["confidence"])
            good = True
            if task == "segment":
                differences["1 - mask IoU"] = 1 - mask_iou(masks[0][rank], masks[1](i))
                good = differences["1 - mask IoU"] <= 0.02
            if task == "pose":
                a, b = want["keypoints"], got["keypoints"]
                differences["keypoint px"] = max(
                    np.hypot(np.subtract(a["x"], b["x"]), np.subtract(a["y"], b["y"])), default=0.0
                )
                if "visible" in a:
                    differences["visibility"] = np.abs(np.subtract(a["visible"], b["visible"])).max()
                good = differences["keypoint px"] <= 0.5 and differences.get("visibility", 0) <= 0.005
            if task == "obb":
                differences["angle"] = turn(angle(want["box"]), angle(got["box"]))
                good = differences["angle"] <= 0.01
            if good:
                row.matched += 1
                free.remove(i)
                for what, difference in differences.items():
                    row.note(what, difference)
                break
        else:
            if verbose:
                best = max(((iou(want["box"], o["box"]), o["confidence"], o["class"]) for o in ours), default=None)
                print("  no counterpart:", want["class"], want["confidence"], want["box"], "nearest", best)
    row.extra += len(free)


def match_classes(row, theirs, ours):
    row.theirs += len(theirs)
    for want, got in zip(theirs, ours):
        difference = abs(want["confidence"] - got["confidence"])
        # Classes of nearly the same probability may stand in either order.
        if want["class"] == got["class"] or difference < 1e-4:
            row.matched += difference <= 0.005
        row.note("confidence", difference)


def compare(args, checkpoint, pictures):
    model = YOLO(checkpoint)
    task = model.task
    options = {"verbose": False, "retina_masks": args.retina_masks, "rect": not args.no_rect}
    if args.head == "one2one":
        options["end2end"] = True
    conf = args.conf
    if conf is not None:
        options["conf"] = conf
    elif task in ("detect", "segment", "pose", "obb"):
        for conf in CONFS:
            n = sum(len(model.predict(str(p), conf=conf, **options)[0]) for p in pictures[:4])
            if n >= 10 * len(pictures[:4]):
                break
        options["conf"] = conf
    row = Row()
    with tempfile.TemporaryDirectory() as out:
        command = [args.ferroyolo, "predict", "-m", checkpoint, "-s", *map(str, pictures), "--json", "-", "--quiet"]
        command += ["--head", args.head] if args.head else []
        command += ["--conf", str(conf)] if conf is not None else []
        command += ["--retina-masks"] if args.retina_masks else []
        command += ["--no-rect"] if args.no_rect else []
        command += ["--save", out] if task in ("segment", "semantic", "depth") else []
        command += ["--save-masks"] if task == "segment" else []
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            return f"| {Path(checkpoint).stem} | {task} | failed: {run.stderr.strip()} |"
        ours = [json.loads(line) for line in run.stdout.splitlines()]
        for picture, mine in zip(pictures, ours, strict=True):
            theirs = model.predict(str(picture), **options)[0]
            if task == "classify":
                match_classes(row, theirs.summary(decimals=6), mine["results"])
            elif task == "semantic":
                want = theirs.semantic_mask.data.cpu().numpy()
                got = cv2.imread(f"{out}/classes/{picture.stem}.png", cv2.IMREAD_UNCHANGED)
                row.theirs += want.size
                row.matched += int((want == got).sum())
            elif task == "depth":
                want = theirs.depth.data.cpu().numpy()
                got = cv2.imread(f"{out}/depth/{picture.stem}.png", cv2.IMREAD_UNCHANGED) / 256.0
                row.theirs += want.size
                # Half a step of the file is rounding.
                row.matched += int((np.abs(want - got) <= 0.51 / 256).sum())
                row.note("metres", np.abs(want - got).max())
                row.note("nearest", abs(mine["depth"]["min"] - want.min()))
                row.note("farthest", abs(mine["depth"]["max"] - want.max()))
            else:
                masks = None
                if task == "segment":
                    bitmaps = theirs.masks.data.cpu().numpy() > 0 if theirs.masks is not None else []
                    file = f"{out}/masks/{picture.stem}_%d.png"
                    masks = bitmaps, lambda i, file=file: cv2.imread(file % (i + 1), cv2.IMREAD_UNCHANGED) > 0
                match_objects(row, task, theirs.summary(decimals=6), mine["results"], masks, args.verbose)
    flags = " ".join(f for f in (args.head or "", "retina" if args.retina_masks else "") if f)
    conf = "" if conf is None else conf
    return f"| {Path(checkpoint).stem} {flags} | {task} | {conf} | {row} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferroyolo")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--retina-masks", action="store_true")
    parser.add_argument("--head", choices=("one2many", "one2one"))
    parser.add_argument("--conf", type=float)
    parser.add_argument("--no-rect", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    pictures = sorted(p for p in args.pictures.iterdir() if p.suffix in (".png", ".jpg"))[: args.limit]
    print("| network | task | conf | theirs | matched | only ours | largest differences |")
    print("|---|---|---|---|---|---|---|")
    for checkpoint in args.checkpoints:
        print(compare(args, checkpoint, pictures), flush=True)


if __name__ == "__main__":
    main()
