"""From a mask to one polygon."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Parts smaller than this, in cells of the mask, are left out.
MIN_AREA = 4.0
# How far a simplified outline may be from the true one, in half cells.
TOLERANCE = 2.0


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The polygon [n, 2] (x, y in cells of the mask) around what is set.

    Every further part and every hole is joined to the first outline by a seam there and back, which encloses nothing.
    """
    # Cells on odd places of a finer grid, their edges on even ones, so that contours run along the edges of cells.
    fine = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    fine[1::2, 1::2] = mask
    fine = cv2.dilate(fine, np.ones((3, 3), np.uint8))
    found, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found = sorted((c for c in found if cv2.contourArea(c) >= 4 * MIN_AREA), key=cv2.contourArea, reverse=True)
    first, *others = (cv2.approxPolyDP(c, TOLERANCE, True)[:, 0] for c in found)
    points = [first]
    for other in others:
        points += [first[:1], other, other[:1]]
    return np.concatenate(points + [first[:1]] if others else points).astype(np.float64) / 2
