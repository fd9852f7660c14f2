"""The heads of a model file in PyTorch, from their published formulas; see reference.py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from reference import Network, Node

DEFAULT_MAX_DET = 300


def run_head(net: Network, node: Node, inputs: list[Tensor]) -> dict[str, Tensor]:
    """What the last layer gives: `output0`, and `one2one` and `proto` where there is such a thing."""
    if node.kind == "yolox.Head":
        return {"output0": center_size(net, node, inputs)}
    if node.kind == "Classify":
        features = net.apply(node["conv"], torch.cat(inputs, 1)).mean((2, 3), keepdim=True)
        return {"output0": net.linear(node["linear"], features).softmax(1)}
    if node.kind == "SemanticSegment":
        return {"output0": net.apply(node["classifier"], inputs[0])}
    if node.kind == "Depth":
        return {"output0": depth(net, node, inputs)}
    out = distances(net, node, inputs)
    if "proto" in node.children:
        out["proto"] = prototypes(net, node["proto"], inputs)
    return out


def distances(net: Network, node: Node, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Boxes by the distances of their edges from the anchor, and what comes with them."""
    # A class attribute of the original and so absent from most checkpoints.
    reg_max, max_det = node.attrs["reg_max"], node.attrs.get("max_det", DEFAULT_MAX_DET)
    anchors, strides = cells(net, inputs)
    out = {}
    for name, prefix in {"output0": "", "one2one": "one2one_"}.items():
        if f"{prefix}cv2" not in node.children:
            continue

        def levels(part: str, values: list[Tensor]) -> list[Tensor]:
            return [net.apply(node[f"{prefix}{part}"][str(level)], x) for level, x in enumerate(values)]

        def joined(maps: list[Tensor]) -> Tensor:
            return torch.cat([x.flatten(2) for x in maps], 2)

        sides = joined(levels("cv2", inputs))
        scores = joined(levels("cv3", inputs)).sigmoid()
        if reg_max > 1:
            n, _, a = sides.shape
            shares = sides.view(n, 4, reg_max, a).softmax(2)
            sides = (shares * torch.arange(reg_max, dtype=torch.float32)[:, None]).sum(2)
        extra = sides[:, :0]
        if f"{prefix}cv4" in node.children:
            maps = levels("cv4", inputs)
            extra = joined(levels("cv4_kpts", maps) if f"{prefix}cv4_kpts" in node.children else maps)
        before, behind = sides[:, :2], sides[:, 2:]
        if node.kind in ("OBB", "OBB26"):
            if node.kind == "OBB":
                extra = (extra.sigmoid() - 0.25) * math.pi
            x, y = ((behind - before) / 2).split(1, 1)
            turned = torch.cat([x * extra.cos() - y * extra.sin(), x * extra.sin() + y * extra.cos()], 1)
            center_size_boxes = torch.cat([turned + anchors, before + behind], 1) * strides
            boxes = center_size_boxes
        else:
            corners = torch.cat([anchors - before, anchors + behind], 1) * strides
            center_size_boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
            boxes = corners
        if node.kind in ("Pose", "Pose26"):
            extra = keypoints(net, node, extra, anchors, strides)
        if name == "output0":
            out[name] = torch.cat([center_size_boxes, scores, extra], 1)
        else:
            out[name] = best_of(boxes, scores, extra, max_det)
    return out


def keypoints(net: Network, node: Node, raw: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    n, values = net.document["kpt_shape"]
    points = raw.view(raw.shape[0], n, values, -1)
    xy = points[:, :, :2]
    xy = (xy + anchors if node.kind == "Pose26" else xy * 2 + (anchors - 0.5)) * strides
    return torch.cat([xy, points[:, :, 2:].sigmoid()], 2).flatten(1, 2)


def prototypes(net: Network, node: Node, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if node.kind == "Proto26":
        for level, coarser in enumerate(inputs[1:]):
            refined = net.apply(node["feat_refine"][str(level)], coarser)
            x = x + F.interpolate(refined, inputs[0].shape[2:], mode="nearest")
        x = net.apply(node["feat_fuse"], x)
    for name in ("cv1", "upsample", "cv2", "cv3"):
        x = net.apply(node[name], x)
    return x


def depth(net: Network, node: Node, inputs: list[Tensor]) -> Tensor:
    features = [net.apply(node["proj"][str(level)], x) for level, x in enumerate(inputs)]
    x = features.pop()
    for level in reversed(range(len(features))):
        x = features[level] + F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = net.apply(node["refine"][str(level)], x)
    a, b = (net.tensors[f"{node.path}.{name}"].to(x.dtype) for name in ("cal_a", "cal_b"))
    return (a * net.apply(node["head"], x).clamp(-4, 5) + b).exp()


def center_size(net: Network, node: Node, inputs: list[Tensor]) -> Tensor:
    levels = []
    for level, x in enumerate(inputs):
        part = {name: child[str(level)] for name, child in node.children.items()}
        stem = net.apply(part["stems"], x)
        classes = net.apply(part["cls_preds"], net.apply(part["cls_convs"], stem)).sigmoid()
        features = net.apply(part["reg_convs"], stem)
        boxes, objectness = (net.apply(part[name], features) for name in ("reg_preds", "obj_preds"))
        levels.append(torch.cat([boxes, classes * objectness.sigmoid()], 1).flatten(2))
    raw = torch.cat(levels, 2)
    anchors, strides = cells(net, inputs)
    corner = anchors - 0.5
    return torch.cat([(raw[:, :2] + corner) * strides, raw[:, 2:4].exp() * strides, raw[:, 4:]], 1)


def cells(net: Network, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Centers of all cells [2, A] in cells, and the stride of each [A]."""
    centers, strides = [], []
    for x, stride in zip(inputs, net.document["stride"]):
        h, w = x.shape[2:]
        ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        centers.append(torch.stack([xs.flatten(), ys.flatten()]))
        strides.append(torch.full((h * w,), float(stride)))
    return torch.cat(centers, 1), torch.cat(strides)


def best_of(boxes: Tensor, scores: Tensor, extra: Tensor, max_det: int) -> Tensor:
    """The end-to-end rows: the k anchors with the best class, then the best k of all their classes."""
    n_classes, k = scores.shape[1], min(max_det, scores.shape[2])
    rows = []
    for places, by_anchor, others in zip(*(values.transpose(1, 2) for values in (boxes, scores, extra))):
        anchors = by_anchor.max(1).values.topk(k).indices
        values, pairs = by_anchor[anchors].flatten().topk(k)
        chosen = anchors[pairs // n_classes]
        rows.append(torch.cat([places[chosen], values[:, None], (pairs % n_classes)[:, None].float(), others[chosen]], 1))
    return torch.stack(rows)
