"""The faces of a picture, and of a video, in which they keep their places from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..tracking import follow, newcomers
from ..tracking.following import picture_of
from .blazeface import BlazeFace
from .face import POINTS, Face, Faces


def find_faces(frame: np.ndarray) -> list[Face]:
    """Up to ten faces of a picture, uint8 (height, width, 3), the largest first; none where there are none.

    Raises: InputError for a picture of another kind; AnimagicError where LiteRT is not installed.
    """
    faces = [Face(one.mesh, one.score) for one in newcomers(BlazeFace(), picture_of(frame))]
    return sorted(faces, key=lambda face: -float(face.box[2:].prod()))


def follow_faces(frames: Iterable[np.ndarray], fps: float, on_frame: Callable[[int, int], None] | None = None) -> Faces:
    """Up to ten faces of a video, those who take most of the picture first.

    Args:
        frames: uint8 (height, width, 3), all of one size; they are taken one by one.
        on_frame: told after each frame how many are done, and how many faces this one shows.
    Returns: as many faces as are seen for a quarter of a second or longer, none if nobody is.
    Raises: InputError for no frames, or frames of different sizes; AnimagicError where LiteRT is not installed.
    """
    followed = follow(BlazeFace(), frames, fps, on_frame)
    mesh = np.zeros((followed.frames, len(followed.places), POINTS, 3), np.float32)
    confidence = np.zeros(mesh.shape[:2], np.float32)
    for face, seen in enumerate(followed.places):
        for number, found in seen.items():
            mesh[number, face], confidence[number, face] = found.mesh, found.score
    return Faces(mesh, confidence, followed.height, followed.width, fps)
