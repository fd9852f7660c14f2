"""Backgrounds, fills and colours, all float32 RGB in 0..255."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]
Picture = NDArray[np.float32]


def random_colour(rng: np.random.Generator) -> Colour:
    """Any hue, saturation and brightness."""
    return rng.uniform(0, 255, 3).astype(np.float32)


def far_colour(rng: np.random.Generator, others: list[Colour]) -> Colour:
    """A colour that stands out from `others`; the best of a few draws if none is far enough from all of them."""
    best, best_distance = random_colour(rng), -1.0
    for _ in range(12):
        colour = random_colour(rng)
        distance = min(float(np.linalg.norm(colour - other)) for other in others)
        if distance > best_distance:
            best, best_distance = colour, distance
        if distance > 110:
            break
    return best


def _ramp(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """[H, W] linear ramp in 0..1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    t = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    low, high = t.min(), t.max()
    return (t - low) / max(high - low, 1e-6)


def _waves(rng: np.random.Generator, height: int, width: int, period: float) -> NDArray[np.float32]:
    """[H, W] stripes in 0..1 of the given period (pixels) in a random direction."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    t = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    wave = np.sin(t * np.float32(2 * np.pi / period) + np.float32(rng.uniform(0, 6.28)))
    return np.clip(wave * np.float32(rng.uniform(0.6, 3)), -1, 1) / 2 + 0.5


def _clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """[H, W] smooth noise in 0..1 with about `cells` blobs a side."""
    coarse = rng.uniform(0, 1, (cells + 2, cells + 2)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _checker(rng: np.random.Generator, height: int, width: int, period: float) -> NDArray[np.float32]:
    """[H, W] turned checkerboard of 0 and 1 with soft edges; `period` in pixels."""
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    k = np.float32(np.pi / period)
    return np.clip(np.sin((x * cos + y * sin) * k) * np.sin((y * cos - x * sin) * k) * 4, -1, 1) / 2 + 0.5


def _pattern(rng: np.random.Generator, height: int, width: int, period: float) -> NDArray[np.float32]:
    """[H, W] pattern in 0..1 of a random kind; `period` is the size of its details in pixels."""
    kind = rng.integers(5)
    if kind == 0:
        return _ramp(rng, height, width)
    if kind == 1:
        return _waves(rng, height, width, period)
    if kind == 2:
        return _clouds(rng, height, width, max(1, round(max(height, width) / period)))
    if kind == 3:
        return _checker(rng, height, width, period)
    return _clouds(rng, height, width, 2) * _waves(rng, height, width, period)


def background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """[H, W, 3]: a blend of two colours by one pattern, overlaid with a fainter second one and perhaps fine grain."""
    unit = min(height, width) / 256
    first = random_colour(rng)
    second = first + rng.uniform(-70, 70, 3).astype(np.float32)
    t = _pattern(rng, height, width, float(rng.uniform(12, 90)) * unit)[..., None]
    canvas = first * (1 - t) + second * t
    if rng.random() < 0.6:
        t = _pattern(rng, height, width, float(rng.uniform(6, 60)) * unit)[..., None]
        canvas = canvas + (t - 0.5) * rng.uniform(-50, 50, 3).astype(np.float32)
    if rng.random() < 0.3:
        grain = rng.normal(0, float(rng.uniform(4, 22)), (height, width, 1)).astype(np.float32)
        canvas = canvas + cv2.GaussianBlur(grain, (0, 0), 0.8 * unit).reshape(height, width, 1) * np.float32(2)
    return np.clip(canvas, 0, 255).astype(np.float32)


def fill_texture(rng: np.random.Generator, height: int, width: int, colour: Colour, diameter: float) -> Picture:
    """[H, W, 3] or [1, 1, 3]: plain, or the colour with a pattern of brighter or darker tones."""
    if rng.random() < 0.45:
        return colour.reshape(1, 1, 3)
    t = _pattern(rng, height, width, diameter * float(rng.uniform(0.12, 0.5)))[..., None]
    strength = float(rng.uniform(15, 50)) * (1 if rng.random() < 0.5 else -1)
    return np.clip(colour + (t - 0.5) * np.float32(strength), 0, 255)
