"""Outlines of the eight classes in the unit disc: the circle of radius 1 around the origin, x right, y down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAMES = ("circle", "square", "triangle", "star", "pentagon", "cross", "ring", "heart")
_RING_HOLE = 0.55
_STAR_WAIST = 0.45
_CROSS_ARM = 0.32


def _regular(n: int, radius: float = 1.0, start: float = -np.pi / 2) -> NDArray[np.float64]:
    """[n, 2] points, evenly spaced on a circle, clockwise on the picture from the angle `start`."""
    angles = start + 2 * np.pi * np.arange(n) / n
    return radius * np.stack((np.cos(angles), np.sin(angles)), 1)


def _star() -> NDArray[np.float64]:
    points = np.empty((10, 2))
    points[0::2] = _regular(5)
    points[1::2] = _regular(5, _STAR_WAIST, -np.pi / 2 + np.pi / 5)
    return points


def _cross() -> NDArray[np.float64]:
    a, b = _CROSS_ARM, float(np.sqrt(1 - _CROSS_ARM**2))
    return np.array(((-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)))


def _heart() -> NDArray[np.float64]:
    t = 2 * np.pi * np.arange(96) / 96
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    points = np.stack((x, y), 1)
    points -= (points.max(0) + points.min(0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


_CONTOURS: tuple[list[NDArray[np.float64]], ...] = (
    [_regular(96)],
    [_regular(4, start=-3 * np.pi / 4)],
    [_regular(3)],
    [_star()],
    [_regular(5)],
    [_cross()],
    [_regular(96), _regular(96, _RING_HOLE)],
    [_heart()],
)
_ROUND = ("circle", "ring", "heart")
# Into how many equal parts a full turn falls that each leave the shape as it is; 0: every turn does.
SYMMETRY = (0, 4, 3, 5, 5, 4, 0, 1)


def contours(class_id: int) -> list[NDArray[np.float64]]:
    """Outline of a class, [n, 2] each; a second contour is a hole."""
    return _CONTOURS[class_id]


def corners(class_id: int) -> NDArray[np.float64]:
    """[k, 2] corners of a class in a fixed order; none for round shapes."""
    return np.zeros((0, 2)) if NAMES[class_id] in _ROUND else _CONTOURS[class_id][0]
