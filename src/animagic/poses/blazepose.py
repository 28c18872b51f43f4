"""BlazePose (arXiv 2006.10204): a detector of people, and a network that finds the landmarks of one person.

The published networks, run by LiteRT; how a frame goes in and what comes out is read here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import AnimagicError
from .skeleton import LANDMARKS

_FOLDER = Path(__file__).parent / "weights"
_DETECTOR_SIZE, _CROP_SIZE = 224, 256  # pixels, square
_STRIDES = ((8, 2), (16, 2), (32, 6))  # of the detector's grids, and its anchors in a cell
_LEAST_SCORE = 0.5
_SAME_PERSON = 0.3  # intersection over union of two boxes from which on they are one
_ENLARGED = 1.25  # a crop against the circle around a person
_HEAT = 7  # cells of the heat map around a landmark that correct it
_LEAST_HEAT = 0.5


class Crop(NamedTuple):
    """The square of a frame that shows one person upright: centre and side in pixels, angle in radians, clockwise."""

    x: float
    y: float
    size: float
    angle: float


class Found(NamedTuple):
    """A person. points: (33, 3) and confidence: (33,) as in `Poses`; score: 0 to 1, that there is a person at all;
    crop: where to look for the person in the next frame."""

    points: np.ndarray
    confidence: np.ndarray
    score: float
    crop: Crop


class BlazePose:
    """The two networks. Raises AnimagicError where LiteRT is not installed."""

    def __init__(self) -> None:
        self._detector = _Network("pose_detection.tflite")
        self._landmarks = _Network("pose_landmark_full.tflite")
        self._anchors = _anchors()

    def detect(self, frame: Image.Image) -> list[Crop]:
        """Where people are, the surest first."""
        side = max(frame.size)
        picture = _cut(frame, Crop(frame.width / 2, frame.height / 2, side, 0), _DETECTOR_SIZE)
        raw, scores = self._detector(picture * 2 - 1)
        boxes = _people(raw[0], scores[0, :, 0], self._anchors)
        corner = np.array([frame.width - side, frame.height - side]) / 2
        return [_crop_between(*(box[4:8].reshape(2, 2) * side + corner)) for box in boxes]

    def landmarks(self, frame: Image.Image, crop: Crop) -> Found:
        """The person in a crop."""
        outputs = {one.shape: one for one in self._landmarks(_cut(frame, crop, _CROP_SIZE))}
        values, heat, metres = outputs[1, 195].reshape(39, 5), outputs[1, 64, 64, 39][0], outputs[1, 117].reshape(39, 3)
        score = float(outputs[1, 1][0, 0])
        visible, present = _sigmoid(values[: len(LANDMARKS), 3]), _sigmoid(values[: len(LANDMARKS), 4])
        local = values[:, :3] / _CROP_SIZE
        local[:, :2] = _corrected(local[:, :2], heat)
        local[:, 2] = _depths(local[:, :2], metres)
        points = _to_frame(local, crop)
        return Found(points[: len(LANDMARKS)], present * visible, score, _crop_between(*points[33:35, :2]))


class _Network:
    def __init__(self, name: str) -> None:
        with _without_notices():
            try:
                from ai_edge_litert.interpreter import Interpreter
            except ImportError as error:
                raise AnimagicError(f"finding poses needs LiteRT ({error}): pip install ai-edge-litert.") from error
            self._interpreter = Interpreter(str(_FOLDER / name), num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs for one picture, float32 (height, width, 3)."""
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


@contextmanager
def _without_notices() -> Iterator[None]:
    """LiteRT writes to stderr by itself how it has begun, and cannot be told not to."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


def _cut(frame: Image.Image, crop: Crop, size: int) -> np.ndarray:
    """The crop upright at `size`: float32 (size, size, 3), 0 to 1; black beside the frame."""
    factor = max(1, int(crop.size / size / 1.5))
    if factor > 1:  # or fine patterns would flicker
        frame, crop = frame.reduce(factor), Crop(crop.x / factor, crop.y / factor, crop.size / factor, crop.angle)
    cos, sin = np.cos(crop.angle) * crop.size / size, np.sin(crop.angle) * crop.size / size
    x, y = crop.x - (cos - sin) * size / 2, crop.y - (sin + cos) * size / 2
    matrix = (cos, -sin, x, sin, cos, y)
    cut = frame.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(cut, np.float32) / 255


def _depths(points: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """(39,): depths from the body in metres (39, 3), at the scale at which it fits the landmarks (39, 2).

    The network's other answer for depth, beside the landmarks, makes a body about three times too deep.
    """
    body = slice(0, len(LANDMARKS))
    flat = metres[body, :2] - metres[body, :2].mean(0)
    scale = ((points[body] - points[body].mean(0)) * flat).sum() / max((flat**2).sum(), 1e-9)
    return metres[:, 2] * scale


def _to_frame(local: np.ndarray, crop: Crop) -> np.ndarray:
    """Points (n, 3) in shares of a crop as pixels of the frame; a depth has the scale of x and y."""
    x, y = (local[:, 0] - 0.5) * crop.size, (local[:, 1] - 0.5) * crop.size
    cos, sin = np.cos(crop.angle), np.sin(crop.angle)
    return np.stack([crop.x + cos * x - sin * y, crop.y + sin * x + cos * y, local[:, 2] * crop.size], -1)


def _crop_between(hips: np.ndarray, top: np.ndarray) -> Crop:
    """The crop around the circle whose centre lies between the hips, and whose radius reaches to `top`, the head."""
    along = top - hips
    x, y = hips.tolist()
    return Crop(x, y, 2 * _ENLARGED * float(np.hypot(*along)), float(np.arctan2(along[0], -along[1])))


def _anchors() -> np.ndarray:
    """(2254, 2): the middle of the cell to which each answer of the detector belongs, 0 to 1."""
    grids = []
    for stride, count in _STRIDES:
        places = (np.arange(_DETECTOR_SIZE // stride) + 0.5) * stride / _DETECTOR_SIZE
        grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, count, 0))
    return np.concatenate(grids)


def _people(raw: np.ndarray, logits: np.ndarray, anchors: np.ndarray) -> list[np.ndarray]:
    """Boxes, (12,) each: x, y, width, height and four points, 0 to 1; the surest first.

    raw: (2254, 12) relative to the anchors, in pixels. Boxes of one person are averaged, weighted with their scores.
    """
    scores = _sigmoid(logits)
    order = np.flatnonzero(scores >= _LEAST_SCORE)
    order = order[np.argsort(-scores[order])]
    boxes, scores = raw[order] / _DETECTOR_SIZE, scores[order]
    boxes.reshape(-1, 6, 2)[:, [0, 2, 3, 4, 5]] += anchors[order, None]
    people = []
    while len(boxes):
        same = _overlap(boxes[0], boxes) > _SAME_PERSON
        same[0] = True
        people.append(np.average(boxes[same], axis=0, weights=scores[same]))
        boxes, scores = boxes[~same], scores[~same]
    return people


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others."""
    low = np.maximum(box[:2] - box[2:4] / 2, boxes[:, :2] - boxes[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2)
    common = np.maximum(high - low, 0).prod(-1)
    return common / np.maximum(box[2:4].prod() + boxes[:, 2:4].prod(-1) - common, 1e-9)


def _corrected(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Landmarks (39, 2), 0 to 1, moved to the centre of the heat around them, (height, width, 39), where it is hot."""
    height, width = heat.shape[:2]
    result = points.copy()
    cells = (points * (width, height)).astype(int)
    for i, (column, row) in enumerate(cells):
        left, right = max(0, column - _HEAT // 2), min(width, column + _HEAT // 2 + 1)
        top, bottom = max(0, row - _HEAT // 2), min(height, row + _HEAT // 2 + 1)
        if not (0 <= column < width and 0 <= row < height):
            continue
        near = _sigmoid(heat[top:bottom, left:right, i])
        if near.max() >= _LEAST_HEAT:
            x = (near.sum(0) * np.arange(left, right)).sum() / near.sum()
            y = (near.sum(1) * np.arange(top, bottom)).sum() / near.sum()
            result[i] = x / width, y / height
    return result
