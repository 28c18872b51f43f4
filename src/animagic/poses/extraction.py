"""The poses of everybody in a video, who keep their places from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..tracking import MOST, follow
from .blazepose import BlazePose
from .skeleton import LANDMARKS, Poses

MOST_PEOPLE = MOST


def extract_poses(
    frames: Iterable[np.ndarray], fps: float, on_frame: Callable[[int, int], None] | None = None
) -> Poses:
    """The poses of up to ten people, those who take most of the picture first.

    Args:
        frames: uint8 (height, width, 3), all of one size; they are taken one by one.
        on_frame: told after each frame how many are done, and how many people this one shows.
    Returns: as many people as are seen for a quarter of a second or longer, none if nobody is; frames without a
        person have confidence 0.
    Raises: InputError for no frames, or frames of different sizes; AnimagicError where LiteRT is not installed.
    """
    followed = follow(BlazePose(), frames, fps, on_frame)
    points = np.zeros((followed.frames, len(followed.places), len(LANDMARKS), 3), np.float32)
    confidence = np.zeros(points.shape[:3], np.float32)
    for person, seen in enumerate(followed.places):
        for number, found in seen.items():
            points[number, person], confidence[number, person] = found.points, found.confidence
    return Poses(points, confidence, followed.height, followed.width, fps)
