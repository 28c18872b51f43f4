"""BlazePose (arXiv 2006.10204): a detector of people, and a network that finds the landmarks of one person.

The published networks, run by LiteRT; how a frame goes in and what comes out is read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..tracking import Crop, Detector, Network, cut, merged, sigmoid, to_frame
from .skeleton import LANDMARKS

_FOLDER = Path(__file__).parent / "weights"
_CROP_SIZE = 256  # pixels, square
_LEAST_SCORE = 0.5
_FEWEST_POINTS = 5  # that must lie inside the frame
_ENLARGED = 1.25  # a crop against the circle around a person
_HEAT = 7  # cells of the heat map around a landmark that correct it
_LEAST_HEAT = 0.5


class Found(NamedTuple):
    """A person. points: (33, 3) and confidence: (33,) as in `Poses`; crop: where to look for the person in the next
    frame."""

    points: np.ndarray
    confidence: np.ndarray
    crop: Crop


class BlazePose:
    """The two networks. Raises AnimagicError where LiteRT is not installed."""

    def __init__(self) -> None:
        self._detector = Detector(_FOLDER / "pose_detection.tflite", 224, ((8, 2), (16, 2), (32, 6)))
        self._landmarks = Network(_FOLDER / "pose_landmark_full.tflite")

    def detect(self, frame: Image.Image) -> list[Crop]:
        """Where people are, the surest first."""
        side = max(frame.size)
        crop = Crop(frame.width / 2, frame.height / 2, side, 0)
        boxes = merged(*self._detector(cut(frame, crop, self._detector.size)))
        corner = np.array([frame.width - side, frame.height - side]) / 2
        return [_crop_between(*(box[4:8].reshape(2, 2) * side + corner)) for box in boxes]

    def look(self, frame: Image.Image, crop: Crop) -> Found | None:
        """The person in a crop; None where it shows none."""
        outputs = {one.shape: one for one in self._landmarks(cut(frame, crop, _CROP_SIZE))}
        values, heat, metres = outputs[1, 195].reshape(39, 5), outputs[1, 64, 64, 39][0], outputs[1, 117].reshape(39, 3)
        score = float(outputs[1, 1][0, 0])
        visible, present = sigmoid(values[: len(LANDMARKS), 3]), sigmoid(values[: len(LANDMARKS), 4])
        local = values[:, :3] / _CROP_SIZE
        local[:, :2] = _corrected(local[:, :2], heat)
        local[:, 2] = _depths(local[:, :2], metres)
        points = to_frame(local, crop)
        found = Found(points[: len(LANDMARKS)], present * visible, _crop_between(*points[33:35, :2]))
        inside = ((found.points[:, :2] >= 0) & (found.points[:, :2] < frame.size)).all(-1) & (found.confidence >= 0.5)
        return found if score >= _LEAST_SCORE and inside.sum() >= _FEWEST_POINTS else None


def _depths(points: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """(39,): depths from the body in metres (39, 3), at the scale at which it fits the landmarks (39, 2).

    The network's other answer for depth, beside the landmarks, makes a body about three times too deep.
    """
    body = slice(0, len(LANDMARKS))
    flat = metres[body, :2] - metres[body, :2].mean(0)
    scale = ((points[body] - points[body].mean(0)) * flat).sum() / max((flat**2).sum(), 1e-9)
    return metres[:, 2] * scale


def _crop_between(hips: np.ndarray, top: np.ndarray) -> Crop:
    """The crop around the circle whose centre lies between the hips, and whose radius reaches to `top`, the head."""
    along = top - hips
    x, y = hips.tolist()
    return Crop(x, y, 2 * _ENLARGED * float(np.hypot(*along)), float(np.arctan2(along[0], -along[1])))


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
        near = sigmoid(heat[top:bottom, left:right, i])
        if near.max() >= _LEAST_HEAT:
            x = (near.sum(0) * np.arange(left, right)).sum() / near.sum()
            y = (near.sum(1) * np.arange(top, bottom)).sum() / near.sum()
            result[i] = x / width, y / height
    return result
