"""BlazeFace (arXiv 1907.05047) and Face Mesh (arXiv 1907.06724): detectors of faces, and a network that finds the
surface of one face.

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
from .face import LEFT_EYE, POINTS, RIGHT_EYE

_FOLDER = Path(__file__).parent / "weights"
_CROP_SIZE = 192  # pixels, square
_ENLARGED = 1.5  # a crop against the box around a face
_LEAST_SCORE = 0.5
_SAME_FACE = 0.3  # intersection over union of two boxes from which on they are one


class Crop(NamedTuple):
    """The square of a frame that shows one face upright: centre and side in pixels, angle in radians, clockwise."""

    x: float
    y: float
    size: float
    angle: float


class Found(NamedTuple):
    """A face. mesh: (468, 3) as in `Face`; score: 0 to 1, that there is a face at all; crop: where to look for it in
    the next frame."""

    mesh: np.ndarray
    score: float
    crop: Crop


class BlazeFace:
    """The three networks. Raises AnimagicError where LiteRT is not installed."""

    def __init__(self) -> None:
        near, far = "face_detection_short_range.tflite", "face_detection_full_range_sparse.tflite"
        self._detectors = [_Detector(near, 128, ((8, 2), (16, 6))), _Detector(far, 192, ((4, 1),))]
        self._mesh = _Network("face_landmark.tflite")

    def detect(self, frame: Image.Image) -> list[Crop]:
        """Where faces are, the surest first. One detector is for faces near to the camera, one for small ones."""
        side = max(frame.size)
        corner = np.array([frame.width - side, frame.height - side]) / 2
        crop = Crop(frame.width / 2, frame.height / 2, side, 0)
        found = [detector(cut(frame, crop, detector.size)) for detector in self._detectors]
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return [_crop_around(box, side, corner) for box in _merged(boxes, scores)]

    def mesh(self, frame: Image.Image, crop: Crop) -> Found:
        """The face in a crop."""
        outputs = {one.size: one for one in self._mesh(cut(frame, crop, _CROP_SIZE))}
        mesh = _to_frame(outputs[3 * POINTS].reshape(POINTS, 3) / _CROP_SIZE, crop)
        return Found(mesh, float(_sigmoid(outputs[1]).item()), crop_of(mesh))


class _Detector:
    """strides: of its grids in pixels, with the anchors in a cell."""

    def __init__(self, name: str, size: int, strides: tuple[tuple[int, int], ...]) -> None:
        self.size = size
        self._network = _Network(name)
        self._anchors = _anchors(size, strides)

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes, (n, 16): x, y, width, height and six points, 0 to 1; and their scores, (n,)."""
        raw, logits = self._network(picture * 2 - 1)
        scores = _sigmoid(logits[0, :, 0])
        kept = scores >= _LEAST_SCORE
        boxes = raw[0, kept] / self.size
        boxes.reshape(-1, 8, 2)[:, [0, 2, 3, 4, 5, 6, 7]] += self._anchors[kept, None]
        return boxes, scores[kept]


class _Network:
    def __init__(self, name: str) -> None:
        with _without_notices():
            try:
                from ai_edge_litert.interpreter import Interpreter
            except ImportError as error:
                raise AnimagicError(f"finding faces needs LiteRT ({error}): pip install ai-edge-litert.") from error
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


def crop_of(mesh: np.ndarray) -> Crop:
    """The crop around a face, whose eyes lie on a level in it."""
    across = mesh[LEFT_EYE[0], :2] - mesh[RIGHT_EYE[0], :2]
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    x, y = ((low + high) / 2).tolist()
    return Crop(x, y, _ENLARGED * float((high - low).max()), float(np.arctan2(across[1], across[0])))


def _crop_around(box: np.ndarray, side: int, corner: np.ndarray) -> Crop:
    """The crop of a detector's box; its first two points are the right and the left eye."""
    right, left = box[4:6], box[6:8]
    x, y = (box[:2] * side + corner).tolist()
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    return Crop(x, y, _ENLARGED * float(box[2:4].max()) * side, angle)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


def _to_frame(local: np.ndarray, crop: Crop) -> np.ndarray:
    """Points (n, 3) in shares of a crop as pixels of the frame; a depth has the scale of x and y."""
    x, y = (local[:, 0] - 0.5) * crop.size, (local[:, 1] - 0.5) * crop.size
    cos, sin = np.cos(crop.angle), np.sin(crop.angle)
    return np.stack([crop.x + cos * x - sin * y, crop.y + sin * x + cos * y, local[:, 2] * crop.size], -1)


def _anchors(size: int, strides: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(n, 2): the middle of the cell to which each answer of a detector belongs, 0 to 1."""
    grids = []
    for stride, count in strides:
        places = (np.arange(size // stride) + 0.5) * stride / size
        grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, count, 0))
    return np.concatenate(grids)


def _merged(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """One box for each face, the surest first: boxes of one face are averaged, weighted with their scores."""
    order = np.argsort(-scores)
    boxes, scores = boxes[order], scores[order]
    faces = []
    while len(boxes):
        same = _overlap(boxes[0], boxes) > _SAME_FACE
        same[0] = True
        faces.append(np.average(boxes[same], axis=0, weights=scores[same]))
        boxes, scores = boxes[~same], scores[~same]
    return faces


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others."""
    low = np.maximum(box[:2] - box[2:4] / 2, boxes[:, :2] - boxes[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2)
    common = np.maximum(high - low, 0).prod(-1)
    return common / np.maximum(box[2:4].prod() + boxes[:, 2:4].prod(-1) - common, 1e-9)
