"""Seeded scenes of plain shapes over textured backgrounds, drawn with numpy and OpenCV.

Scene `index` of split `split` is a pure function of (seed, split, index): splits never share a scene. A label's box is
the tight extent of the object's visible pixels; at least `MIN_VISIBLE` of every object is in the frame and uncovered.
The full outline and rotation of each object stay in the description for keypoints and turned boxes. `write.py` makes
data sets of scenes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

import geometry
import shapes
from textures import background, far_colour, fill_texture

SEED = 20250
SIZE = 256
SUPERSAMPLE = 4
MIN_VISIBLE = 0.65
MIN_DIAMETER, MAX_DIAMETER = 28.0, 136.0


@dataclass
class SceneObject:
    """One object; all lengths in pixels, x right, y down."""

    class_id: int
    centre: tuple[float, float]
    diameter: float
    rotation: float
    """Radians, clockwise on the picture."""
    squash: float
    """Scale of the shape's own y axis."""
    contours: list[NDArray[np.float64]]
    """Full outline, [n, 2] each; a second contour is a hole."""
    corners: NDArray[np.float64]
    """[k, 2] corner points in the shape's own order; empty for round shapes."""
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Visible extent x1, y1, x2, y2."""
    visible: float = 1.0
    """Share of the area that is in the frame and uncovered."""

    def _placed(self) -> tuple[np.ndarray, ...]:
        values = (self.class_id, self.centre, self.diameter, self.rotation, self.squash)
        return tuple(np.asarray(value) for value in values)

    def keypoints(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Places [K, 2] of all keypoints of any class, and which of them [K] this one has; see `geometry.py`."""
        return geometry.keypoints(*self._placed())

    def oriented_box(self) -> NDArray[np.float64]:
        """[5]: centre x, y, width, height, rotation in radians; see `geometry.py`."""
        return geometry.oriented_boxes(*self._placed())


@dataclass
class Scene:
    """A picture [H, W, 3] of uint8 RGB, its objects from back to front, and the front object of each fine pixel."""

    image: NDArray[np.uint8]
    objects: list[SceneObject] = field(default_factory=list)
    owner: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 0), np.int16))
    """[H * SUPERSAMPLE, W * SUPERSAMPLE], index of the object that is seen there or -1."""


def scene_rng(split: str, index: int, seed: int = SEED) -> np.random.Generator:
    """The generator of one scene, independent of all others."""
    return np.random.default_rng((seed, zlib.crc32(split.encode()), index))


def _mask(obj: SceneObject, height: int, width: int) -> tuple[NDArray[np.uint8], slice, slice, float]:
    """Fine mask of the part in the frame, its rows and columns (fine pixels), and its share of the whole area."""
    ss = SUPERSAMPLE
    points = np.concatenate(obj.contours)
    # The window starts and ends on whole pixels, so that it shrinks to the picture's grid without a remainder.
    x0, y0 = (np.floor(points.min(0)).astype(int) - 1) * ss
    x1, y1 = (np.ceil(points.max(0)).astype(int) + 1) * ss
    full = np.zeros((y1 - y0, x1 - x0), np.uint8)
    shift = 4
    # A sample of the fine grid sits at (i + 0.5) / ss pixels.
    fixed = [np.round((c * ss - 0.5 - (x0, y0)) * (1 << shift)).astype(np.int32) for c in obj.contours]
    cv2.fillPoly(full, fixed, 1, cv2.LINE_8, shift)
    rows = slice(max(y0, 0), min(y1, height * ss))
    cols = slice(max(x0, 0), min(x1, width * ss))
    inside = full[rows.start - y0 : rows.stop - y0, cols.start - x0 : cols.stop - x0]
    return inside, rows, cols, float(inside.sum()) / max(float(full.sum()), 1.0)


def _propose(rng: np.random.Generator, height: int, width: int, unit: float) -> SceneObject:
    """An object of random class, size, place and rotation; `unit` scales the diameters."""
    class_id = int(rng.integers(len(shapes.NAMES)))
    diameter = unit * float(np.exp(rng.uniform(np.log(MIN_DIAMETER), np.log(MAX_DIAMETER))))
    margin = diameter * (0.3 if rng.random() < 0.15 else 0.5)
    centre = rng.uniform((margin, margin), (max(width - margin, margin + 1), max(height - margin, margin + 1)))
    rotation = float(rng.uniform(0, 2 * np.pi)) if rng.random() < 0.8 else float(rng.normal(0, 0.05))
    squash = float(rng.uniform(0.82, 1.0))
    cos, sin = np.cos(rotation), np.sin(rotation)
    turn = np.array(((cos, sin), (-sin, cos)))

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points * (diameter / 2, diameter / 2 * squash)) @ turn + centre

    contours = [place(c) for c in shapes.contours(class_id)]
    corners = place(shapes.corners(class_id))
    return SceneObject(class_id, (float(centre[0]), float(centre[1])), diameter, rotation, squash, contours, corners)


def _in_frame(obj: SceneObject, height: int, width: int) -> bool:
    """Whether the oriented box of an object lies in the frame."""
    corners = geometry.corners(obj.oriented_box())
    return bool((corners >= 0).all() and (corners <= (width, height)).all())


def _paint(canvas: NDArray[np.float32], obj: SceneObject, mask: NDArray[np.uint8], rows: slice, cols: slice,
           colour: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Blends the object into `canvas` [H, W, 3] (RGB, 0..255), with a texture and perhaps an edge and a shadow."""
    ss = SUPERSAMPLE
    y0, y1, x0, x1 = rows.start // ss, rows.stop // ss, cols.start // ss, cols.stop // ss
    alpha = cv2.resize(mask.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    part = canvas[y0:y1, x0:x1]
    if rng.random() < 0.3:
        offset = rng.uniform(0.02, 0.06, 2) * obj.diameter
        shift = np.array(((1, 0, offset[0]), (0, 1, offset[1])), np.float32)
        shadow = cv2.warpAffine(alpha, shift, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        shadow = cv2.GaussianBlur(shadow, (0, 0), 0.6 + 0.02 * obj.diameter)
        part *= 1 - float(rng.uniform(0.15, 0.4)) * shadow[..., None]
    fill = fill_texture(rng, y1 - y0, x1 - x0, colour, obj.diameter)
    if rng.random() < 0.4:
        # An edge in a darker or lighter tone, inside the outline, so that the extent stays the same.
        thickness = max(1, round(float(rng.uniform(0.03, 0.08)) * obj.diameter * ss / 2))
        core = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thickness + 1,) * 2))
        core = cv2.resize(core.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)[..., None]
        edge = colour * float(rng.uniform(0.35, 0.7)) if colour.mean() > 90 else 255 - (255 - colour) * 0.5
        fill = fill * core + edge * (1 - core)
    part += alpha[..., None] * (fill - part)


def draw_scene(split: str, index: int, height: int = SIZE, width: int = SIZE, count: tuple[int, int] = (2, 8),
               seed: int = SEED, whole: bool = False) -> Scene:
    """Draws one scene of `count[0]` to `count[1]` objects; sizes follow the frame's shorter side.

    `whole` keeps the oriented box of every object in the frame, for labels that can't say otherwise.
    """
    rng = scene_rng(split, index, seed)
    ss = SUPERSAMPLE
    unit = min(height, width) / SIZE
    canvas = background(rng, height, width)
    owner = np.full((height * ss, width * ss), -1, np.int16)
    objects: list[SceneObject] = []
    areas: list[float] = []
    colours: list[NDArray[np.float32]] = []
    wanted = int(rng.integers(count[0], count[1] + 1))
    for _ in range(wanted * 12):
        if len(objects) == wanted:
            break
        obj = _propose(rng, height, width, unit)
        mask, rows, cols, inside = _mask(obj, height, width)
        if inside < MIN_VISIBLE or (whole and not _in_frame(obj, height, width)):
            continue
        under = owner[rows, cols]
        covered = under[mask > 0]
        hit = np.bincount(covered[covered >= 0], minlength=len(objects))
        # Most objects stand free: an overlap is kept one time in four, and only if what it covers stays visible.
        overlaps = bool(hit.any())
        if overlaps and (rng.random() > 0.25 or any(o.visible - h / a < MIN_VISIBLE for o, h, a in zip(objects, hit, areas))):
            continue
        y0, x0 = rows.start // ss, cols.start // ss
        behind = canvas[y0 : rows.stop // ss, x0 : cols.stop // ss].reshape(-1, 3).mean(0)
        colour = far_colour(rng, [behind] + [c for c, h in zip(colours, hit) if h])
        for other, hidden, area in zip(objects, hit, areas):
            other.visible -= hidden / area
        _paint(canvas, obj, mask, rows, cols, colour, rng)
        under[mask > 0] = len(objects)
        obj.visible = inside
        objects.append(obj)
        areas.append(float(mask.sum()) / inside)
        colours.append(colour)
    for k, obj in enumerate(objects):
        seen = owner == k
        xs, ys = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        obj.box = (xs[0] / ss, ys[0] / ss, (xs[-1] + 1) / ss, (ys[-1] + 1) / ss)
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.3, 0.9)) * unit)
    if rng.random() < 0.7:
        canvas = canvas + rng.normal(0, float(rng.uniform(1, 10)), canvas.shape).astype(np.float32)
    return Scene(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), objects, owner)
