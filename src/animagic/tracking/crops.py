"""Squares of a frame, turned so that what they show stands upright, and the boxes of detectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

_SAME = 0.3  # intersection over union of two boxes from which on they are one


class Crop(NamedTuple):
    """A square of a frame: its centre and side in pixels, its angle in radians, clockwise."""

    x: float
    y: float
    size: float
    angle: float

    def distance(self, other: Crop) -> float:
        """Pixels between the centres."""
        return float(np.hypot(self.x - other.x, self.y - other.y))


def cut(frame: Image.Image, crop: Crop, size: int) -> np.ndarray:
    """The crop upright at `size`: float32 (size, size, 3), 0 to 1; black beside the frame."""
    factor = max(1, int(crop.size / size / 1.5))
    if factor > 1:  # or fine patterns would flicker
        frame, crop = frame.reduce(factor), Crop(crop.x / factor, crop.y / factor, crop.size / factor, crop.angle)
    cos, sin = np.cos(crop.angle) * crop.size / size, np.sin(crop.angle) * crop.size / size
    x, y = crop.x - (cos - sin) * size / 2, crop.y - (sin + cos) * size / 2
    matrix = (cos, -sin, x, sin, cos, y)
    picture = frame.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 255


def to_frame(local: np.ndarray, crop: Crop) -> np.ndarray:
    """Points (n, 3) in shares of a crop as pixels of the frame; a depth has the scale of x and y."""
    x, y = (local[:, 0] - 0.5) * crop.size, (local[:, 1] - 0.5) * crop.size
    cos, sin = np.cos(crop.angle), np.sin(crop.angle)
    return np.stack([crop.x + cos * x - sin * y, crop.y + sin * x + cos * y, local[:, 2] * crop.size], -1)


def anchors_of(size: int, strides: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(n, 2): the middle of the cell to which each answer of a detector belongs, 0 to 1."""
    grids = []
    for stride, count in strides:
        places = (np.arange(size // stride) + 0.5) * stride / size
        grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, count, 0))
    return np.concatenate(grids)


def merged(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """One box, (4 + 2 points,), for each thing that is there, the surest first: boxes of the same one are averaged,
    weighted with their scores."""
    order = np.argsort(-scores)
    boxes, scores = boxes[order], scores[order]
    result = []
    while len(boxes):
        same = _overlap(boxes[0], boxes) > _SAME
        same[0] = True
        result.append(np.average(boxes[same], axis=0, weights=scores[same]))
        boxes, scores = boxes[~same], scores[~same]
    return result


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others."""
    low = np.maximum(box[:2] - box[2:4] / 2, boxes[:, :2] - boxes[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2)
    common = np.maximum(high - low, 0).prod(-1)
    return common / np.maximum(box[2:4].prod() + boxes[:, 2:4].prod(-1) - common, 1e-9)
