"""Contour lines as compact SVG path data, and images as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

WEBP = WebPImagePlugin.WebPImageFile.format  # importing registers it, else Pillow imports all formats
UNITS_PER_MM = 10  # paths are whole numbers of 0.1 mm


def contour_path(values: NDArray[Any], level: float, spacing_mm: tuple[float, float]) -> str:
    """Lines of equal value as smooth closed curves (quadratic B-splines of the marching-squares polygon).

    Args:
        values: image `[row, column]`; the outside counts as below the level.
        level: value of the lines.
        spacing_mm: pixel size along columns and rows.

    Returns:
        Path data in units of 0.1 mm from the outer corner of pixel `[0, 0]`; empty without a line.
    """
    below = min(0.0, level - abs(level) - 1e-3)
    framed = np.pad(np.asarray(values, dtype=np.float64), 1, constant_values=below)
    scale = UNITS_PER_MM * np.array(spacing_mm)
    lines = contour_generator(z=framed).lines(level)
    return "".join(_smooth((np.asarray(line) - 0.5) * scale) for line in lines if len(line) > 3)


def _smooth(points: NDArray[np.float64]) -> str:
    """A closed curve through the middles of the polygon's edges."""
    corners = np.rint(points[:-1]).astype(int)
    middles = (corners + np.roll(corners, -1, axis=0)) // 2
    start = middles[-1]
    steps = np.concatenate((corners - np.roll(middles, 1, axis=0), middles - np.roll(middles, 1, axis=0)), axis=1)
    return f"M{start[0]} {start[1]}q" + " ".join(f"{a} {b} {c} {d}" for a, b, c, d in steps) + "z"


def image_address(pixels: NDArray[np.uint8], quality: int = 80, lossless: bool = False) -> str:
    """A grey `[row, column]` or RGBA `[row, column, 4]` image as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, WEBP, quality=quality, alpha_quality=quality, lossless=lossless, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
