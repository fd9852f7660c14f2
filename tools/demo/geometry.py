"""Keypoints and oriented boxes of placed shapes, in arrays over any number of objects.

A shape that looks the same after a part of a turn has no first corner and no single rotation. Both are made unique
here, so that a network can learn them:

* the keypoints are the corners, clockwise on the picture, and the first is the one that a clock's hand meets first when
  it starts at `FIRST_HOUR`; only corners that the symmetry of the shape makes equal are exchanged, so a star starts
  with a tip. A heart has its notch and its tip. A circle and a ring have none and get the four points where their
  outline is farthest up, right, down and left;
* the oriented box is the tight box of the whole outline, turned by the shape's rotation; of the rotations that the
  symmetry makes equal it takes the one nearest to upright. What is round has an upright box.

Lengths are in pixels, x right, y down; rotations in radians, clockwise on the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import shapes

MAX_KEYPOINTS = 12
FIRST_HOUR = 11
Array = NDArray[np.float64]


def _bases(class_id: int) -> tuple[Array, int]:
    """Keypoints of a class in the unit disc, clockwise, and how many of them make up one part of its symmetry."""
    name = shapes.NAMES[class_id]
    if name in ("circle", "ring"):
        return np.array(((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))), 1
    if name == "heart":
        outline = shapes.contours(class_id)[0]
        return outline[[0, len(outline) // 2]], 2
    corners = shapes.corners(class_id)
    return corners, len(corners) // shapes.SYMMETRY[class_id]


_N = np.array([len(_bases(c)[0]) for c in range(len(shapes.NAMES))])
_PERIOD = np.array([_bases(c)[1] for c in range(len(shapes.NAMES))])
_SYMMETRY = np.array(shapes.SYMMETRY)
_KEYPOINTS = np.stack([np.resize(_bases(c)[0], (MAX_KEYPOINTS, 2)) for c in range(len(shapes.NAMES))])
_OUTLINES = np.stack([np.resize(shapes.contours(c)[0], (96, 2)) for c in range(len(shapes.NAMES))])


def _turn(points: Array, angle: Array) -> Array:
    """Turns points [..., n, 2] clockwise by angles [...]."""
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    x, y = points[..., 0], points[..., 1]
    return np.stack((x * cos - y * sin, x * sin + y * cos), -1)


def _radii(diameter: Array, squash: Array) -> Array:
    """Half axes [..., 2] along the shape's own x and y."""
    return np.stack((diameter, diameter * squash), -1) / 2


def keypoints(class_id: NDArray[np.int64], centre: Array, diameter: Array, rotation: Array,
              squash: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Keypoints [..., MAX_KEYPOINTS, 2] and which of them the class has; `centre` is [..., 2], the others [...]."""
    radii = _radii(diameter, squash)
    points = _turn(_KEYPOINTS[class_id] * radii[..., None, :], rotation)
    # The extreme points of an ellipse a, b turned by r are (a^2 cos^2 + b^2 sin^2, (a^2 - b^2) sin cos) / width and so on.
    variance = radii**2
    cos, sin = np.cos(rotation), np.sin(rotation)
    xx = variance[..., 0] * cos**2 + variance[..., 1] * sin**2
    yy = variance[..., 0] * sin**2 + variance[..., 1] * cos**2
    xy = (variance[..., 0] - variance[..., 1]) * sin * cos
    right = np.stack((xx, xy), -1) / np.sqrt(xx)[..., None]
    down = np.stack((xy, yy), -1) / np.sqrt(yy)[..., None]
    extremes = np.resize(np.arange(4), MAX_KEYPOINTS)
    is_round = (_SYMMETRY[class_id] == 0)[..., None, None]
    points = np.where(is_round, np.stack((-down, right, down, -right), -2)[..., extremes, :], points)

    n, period = _N[class_id][..., None], _PERIOD[class_id][..., None]
    slot = np.arange(MAX_KEYPOINTS)
    hour = np.arctan2(points[..., 0], -points[..., 1]) * 6 / np.pi
    wait = np.where((slot < n) & (slot % period == 0), (hour - FIRST_HOUR) % 12, np.inf)
    order = (wait.argmin(-1)[..., None] + slot) % n
    points = np.take_along_axis(points, order[..., None], -2)
    exists = np.broadcast_to(slot < n, points.shape[:-1]).copy()
    return np.where(exists[..., None], points + centre[..., None, :], 0.0), exists


def oriented_boxes(class_id: NDArray[np.int64], centre: Array, diameter: Array, rotation: Array, squash: Array) -> Array:
    """Oriented boxes [..., 5] (centre x, y, width, height, rotation); arguments as for `keypoints`."""
    part = 2 * np.pi / np.maximum(_SYMMETRY[class_id], 1)
    upright = (rotation + part / 2) % part - part / 2
    upright = np.where(_SYMMETRY[class_id] == 0, 0.0, upright)
    outline = _OUTLINES[class_id] * _radii(diameter, squash)[..., None, :]
    outline = _turn(outline, rotation - upright)
    low, high = outline.min(-2), outline.max(-2)
    middle = _turn((low + high)[..., None, :] / 2, upright)[..., 0, :] + centre
    return np.concatenate((middle, high - low, upright[..., None]), -1)


def corners(boxes: Array) -> Array:
    """Corners [..., 4, 2] of oriented boxes [..., 5], clockwise from the one that is top left before the turn."""
    signs = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) / 2
    return _turn(signs * boxes[..., None, 2:4], boxes[..., 4]) + boxes[..., None, :2]
