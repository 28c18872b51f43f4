"""BlazeFace (arXiv 1907.05047) and Face Mesh (arXiv 1907.06724): detectors of faces, and a network that finds the
surface of one face.

The published networks, run by LiteRT; how a frame goes in and what comes out is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..tracking import Crop, Detector, Network, cut, merged, sigmoid, to_frame
from .face import LEFT_EYE, POINTS, RIGHT_EYE

_FOLDER = Path(__file__).parent / "weights"
_CROP_SIZE = 192  # pixels, square
_ENLARGED = 1.5  # a crop against the box around a face
_LEAST_SCORE = 0.5
_LEAST_INSIDE = 0.5  # of the mesh, that must lie inside the frame


class Found(NamedTuple):
    """A face. mesh: float32 (468, 3) as in `Face`; score: 0 to 1, that there is a face at all; crop: where to look
    for it in the next frame."""

    mesh: np.ndarray
    score: float
    crop: Crop


class BlazeFace:
    """The three networks. Raises AnimagicError where LiteRT is not installed."""

    def __init__(self) -> None:
        near, far = _FOLDER / "face_detection_short_range.tflite", _FOLDER / "face_detection_full_range_sparse.tflite"
        self._detectors = [Detector(near, 128, ((8, 2), (16, 6))), Detector(far, 192, ((4, 1),))]
        self._mesh = Network(_FOLDER / "face_landmark.tflite")

    def detect(self, frame: Image.Image) -> Iterator[Crop]:
        """Where faces are, the surest first. One detector is for faces near to the camera, one for small ones."""
        side = max(frame.size)
        corner = np.array([frame.width - side, frame.height - side]) / 2
        crop = Crop(frame.width / 2, frame.height / 2, side, 0)
        found = [detector(cut(frame, crop, detector.size)) for detector in self._detectors]
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        for box in merged(boxes, scores):
            rough = self.look(frame, _crop_around(box, side, corner))
            if rough is not None:
                yield rough.crop  # as faces are followed: the detector's own crop is a rough one

    def look(self, frame: Image.Image, crop: Crop) -> Found | None:
        """The face in a crop; None where it shows none."""
        outputs = {one.size: one for one in self._mesh(cut(frame, crop, _CROP_SIZE))}
        mesh = to_frame(outputs[3 * POINTS].reshape(POINTS, 3) / _CROP_SIZE, crop)
        score = float(sigmoid(outputs[1]).item())
        inside = ((mesh[:, :2] >= 0) & (mesh[:, :2] < frame.size)).all(-1)
        there = score >= _LEAST_SCORE and inside.mean() >= _LEAST_INSIDE
        return Found(mesh.astype(np.float32), score, crop_of(mesh)) if there else None


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
