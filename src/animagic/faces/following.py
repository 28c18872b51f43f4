"""The faces of a picture, and of a video, in which they keep their places from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from ..errors import InputError
from .blazeface import BlazeFace, Crop, Found
from .face import POINTS, Face, Faces

MOST_FACES = 10
_LEAST_SCORE = 0.5
_DETECTIONS_PER_SECOND = 4.0  # to find who comes in while others are being followed
_BRIEFEST = 0.25  # seconds that a face must be seen for; the detector errs for a frame or two
_SAME = 0.25  # of the size of their crops: two faces nearer to each other are one


def find_faces(frame: np.ndarray) -> list[Face]:
    """Up to ten faces of a picture, uint8 (height, width, 3), the largest first; none where nobody shows his face.

    Raises: InputError for a picture of another kind; AnimagicError where LiteRT is not installed.
    """
    faces = [Face(one.mesh, one.score) for one in _found(BlazeFace(), _picture(frame), [])]
    return sorted(faces, key=lambda face: -float(face.box[2:].prod()))


def follow_faces(frames: Iterable[np.ndarray], fps: float, on_frame: Callable[[int, int], None] | None = None) -> Faces:
    """Up to ten faces of a video, those who take most of the picture first.

    Args:
        frames: uint8 (height, width, 3), all of one size; they are taken one by one.
        on_frame: told after each frame how many are done, and how many faces this one shows.
    Returns: as many faces as are seen for a quarter of a second or longer, none if nobody is.
    Raises: InputError for no frames, or frames of different sizes; AnimagicError where LiteRT is not installed.
    """
    followers = _Followers(fps)
    size: tuple[int, ...] = ()
    for number, frame in enumerate(frames, 1):
        if size and frame.shape[:2] != size:
            raise InputError(f"frame {number} is {frame.shape[0]}x{frame.shape[1]}, the first {size[0]}x{size[1]}.")
        shown = followers.follow(_picture(frame))
        size = frame.shape[:2]
        if on_frame is not None:
            on_frame(number, shown)
    if not size:
        raise InputError("there are no frames to find a face in; give a video with at least one.")
    return followers.faces(*size)


class _Followers:
    """One place for each face; the face stays there also while out of sight."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._every = max(1, round(fps / _DETECTIONS_PER_SECOND))
        self._net = BlazeFace()
        self._seen: list[dict[int, Found]] = []  # for each place, by the number of the frame
        self._crops: list[Crop] = []  # for each place, the last one
        self._active: set[int] = set()
        self._number = -1

    def follow(self, frame: Image.Image) -> int:
        """Find every face in the next frame; how many there are."""
        self._number += 1
        now: dict[int, Found] = {}
        for place in sorted(self._active):
            found = self._net.mesh(frame, self._crops[place])
            if _is_face(found, frame) and not _is_among(found, now.values()):
                now[place] = found
        if len(now) < max(1, len(self._active)) or self._number % self._every == 0:
            for found in _found(self._net, frame, list(now.values())):
                now[self._place_for(found, now)] = found
        for place, found in now.items():
            self._seen[place][self._number] = found
            self._crops[place] = found.crop
        self._active = set(now)
        return len(now)

    def _place_for(self, found: Found, now: dict[int, Found]) -> int:
        """The place of the nearest face out of sight, or a new one."""
        free = [place for place in range(len(self._crops)) if place not in now]
        if free:
            return min(free, key=lambda place: _distance(found.crop, self._crops[place]))
        self._seen.append({})
        self._crops.append(found.crop)
        return len(self._crops) - 1

    def faces(self, height: int, width: int) -> Faces:
        """What has been found in all frames."""
        total = self._number + 1
        least = min(_BRIEFEST * self._fps, total / 2)
        kept = [lasting for seen in self._seen if (lasting := _lasting(seen, least))]
        kept.sort(key=lambda seen: -sum(found.crop.size for found in seen.values()))
        mesh = np.zeros((total, len(kept), POINTS, 3), np.float32)
        confidence = np.zeros(mesh.shape[:2], np.float32)
        for face, seen in enumerate(kept):
            for number, found in seen.items():
                mesh[number, face], confidence[number, face] = found.mesh, found.score
        return Faces(mesh, confidence, height, width, self._fps)


def _picture(frame: np.ndarray) -> Image.Image:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"a frame must be uint8 (height, width, 3), not {frame.dtype} {frame.shape}.")
    return Image.fromarray(frame)


def _found(net: BlazeFace, frame: Image.Image, others: list[Found]) -> list[Found]:
    """Faces that are not among the others, the surest first, as many as make ten with them."""
    found: list[Found] = []
    for crop in net.detect(frame):
        if len(others) + len(found) == MOST_FACES:
            break
        rough = net.mesh(frame, crop)
        if _is_face(rough, frame):
            one = net.mesh(frame, rough.crop)  # as it is followed: the detector's crop is a rough one
            if _is_face(one, frame) and not _is_among(one, [*others, *found]):
                found.append(one)
    return found


def _lasting(seen: dict[int, Found], least: float) -> dict[int, Found]:
    """What is seen for so many frames or more, but for shorter breaks."""
    numbers = np.array(sorted(seen))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > max(least, 1)) + 1)
    return {int(number): seen[number] for run in runs if len(run) >= least for number in run}


def _is_face(found: Found, frame: Image.Image) -> bool:
    inside = ((found.mesh[:, :2] >= 0) & (found.mesh[:, :2] < frame.size)).all(-1)
    return found.score >= _LEAST_SCORE and bool(inside.mean() >= 0.5)


def _is_among(found: Found, others: Iterable[Found]) -> bool:
    return any(_distance(found.crop, other.crop) < _SAME * (found.crop.size + other.crop.size) / 2 for other in others)


def _distance(one: Crop, other: Crop) -> float:
    return float(np.hypot(one.x - other.x, one.y - other.y))
