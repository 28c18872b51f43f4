"""The parts of a picture that a face takes, as masks with soft edges."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..errors import InputError
from .face import SPEAKING, Face

_FINE = 4  # the outline is drawn so many times larger, so that a mask that moves does not jump from pixel to pixel


def face_mask(face: Face, height: int, width: int, feather: float = 0.1, grow: float = 0.08) -> np.ndarray:
    """float32 (height, width), 0 to 1: the face from hairline to chin, in a frame of that size.

    Args:
        feather: width of the soft edge, as a share of the face's size; half of it lies outside.
        grow: how far the edge lies outside of the face, as a share of its size.
    Raises: InputError for a size below 1 or a negative share.
    """
    return _mask(face, face.mesh[:, :2], height, width, feather, grow)


def mouth_mask(face: Face, height: int, width: int, feather: float = 0.1, grow: float = 0.05) -> np.ndarray:
    """float32 (height, width), 0 to 1: lips, cheeks beside them and chin: what moves when somebody speaks. Arguments
    and errors are those of `face_mask`."""
    return _mask(face, face.mesh[list(SPEAKING), :2], height, width, feather, grow)


def _mask(face: Face, points: np.ndarray, height: int, width: int, feather: float, grow: float) -> np.ndarray:
    if height < 1 or width < 1:
        raise InputError(f"a mask cannot be {height}x{width}; give the size of the frame.")
    if feather < 0 or grow < 0:
        raise InputError(f"a mask cannot have an edge of {feather} and grow by {grow}; give 0 or more.")
    mask = np.zeros((height, width), np.float32)
    size = float(face.box[2:].mean())
    margin = (grow + feather) * size + 1
    low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + margin), (width, height)).astype(int)
    if (high > low).all():  # else the face lies beside the frame
        part = _shape((points - low) * _FINE, high - low, grow * size * _FINE, feather * size * _FINE)
        mask[low[1] : high[1], low[0] : high[0]] = part
    return mask


def _shape(points: np.ndarray, size: np.ndarray, grow: float, feather: float) -> np.ndarray:
    """The hull of points, grown, with a soft edge, all in fine pixels. size: of the result, width and height."""
    picture = Image.new("L", tuple((size * _FINE).tolist()))
    draw = ImageDraw.Draw(picture)
    corners = _hull(points)
    draw.polygon(corners, fill=255)
    if grow > 0:
        draw.line([*corners, *corners[:2]], fill=255, width=round(2 * grow), joint="curve")
    picture = picture.reduce(_FINE)
    # Of a blurred edge, 95 % of the step lie within four standard deviations.
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(feather / _FINE / 4)), np.float32) / 255


def _hull(points: np.ndarray) -> list[tuple[float, float]]:
    """The corners of the smallest convex polygon around points (n, 2) (Andrew, 1979)."""
    ordered = sorted(map(tuple, points.tolist()))
    hull: list[tuple[float, float]] = []
    for chain in (ordered, ordered[::-1]):
        side: list[tuple[float, float]] = []
        for x, y in chain:
            while len(side) > 1:
                (x0, y0), (x1, y1) = side[-2:]
                if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                    break
                side.pop()
            side.append((x, y))
        hull += side[:-1]
    return hull
