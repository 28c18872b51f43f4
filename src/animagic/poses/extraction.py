"""The poses of everybody in a video, who keep their places from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from ..errors import InputError
from .blazepose import BlazePose, Crop, Found
from .skeleton import LANDMARKS, Poses

MOST_PEOPLE = 10
_LEAST_SCORE = 0.5
_FEWEST_POINTS = 5  # that must lie inside the frame
_DETECTIONS_PER_SECOND = 4.0  # to find who comes in while others are being followed
_BRIEFEST = 0.25  # seconds that somebody must be seen for; the detector errs for a frame or two
_SAME = 0.25  # of the size of their crops: two people nearer to each other are one


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
    followers = _Followers(fps)
    size: tuple[int, ...] = ()
    for number, frame in enumerate(frames, 1):
        if size and frame.shape[:2] != size:
            raise InputError(f"frame {number} is {frame.shape[0]}x{frame.shape[1]}, the first {size[0]}x{size[1]}.")
        size = frame.shape[:2]
        shown = followers.follow(Image.fromarray(frame))
        if on_frame is not None:
            on_frame(number, shown)
    if not size:
        raise InputError("there are no frames to find a pose in; give a video with at least one.")
    return followers.poses(*size)


class _Followers:
    """One place for each person; the person stays there also while out of sight."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._every = max(1, round(fps / _DETECTIONS_PER_SECOND))
        self._net = BlazePose()
        self._seen: list[dict[int, Found]] = []  # for each place, by the number of the frame
        self._crops: list[Crop] = []  # for each place, the last one
        self._active: set[int] = set()
        self._number = -1

    def follow(self, frame: Image.Image) -> int:
        """Find everybody in the next frame; how many there are."""
        self._number += 1
        now: dict[int, Found] = {}
        for place in sorted(self._active):
            found = self._net.landmarks(frame, self._crops[place])
            if _is_person(found, frame) and not _is_among(found, now):
                now[place] = found
        if len(now) < MOST_PEOPLE and (len(now) < max(1, len(self._active)) or self._number % self._every == 0):
            for crop in self._net.detect(frame):
                if len(now) == MOST_PEOPLE or any(_is_same(crop, one.crop) for one in now.values()):
                    continue
                found = self._net.landmarks(frame, crop)
                if _is_person(found, frame) and not _is_among(found, now):
                    now[self._place_for(found, now)] = found
        for place, found in now.items():
            self._seen[place][self._number] = found
            self._crops[place] = found.crop
        self._active = set(now)
        return len(now)

    def _place_for(self, found: Found, now: dict[int, Found]) -> int:
        """The place of the nearest person out of sight, or a new one."""
        free = [place for place in range(len(self._crops)) if place not in now]
        if free:
            return min(free, key=lambda place: _distance(found.crop, self._crops[place]))
        self._seen.append({})
        self._crops.append(found.crop)
        return len(self._crops) - 1

    def poses(self, height: int, width: int) -> Poses:
        """What has been found in all frames."""
        total = self._number + 1
        least = min(_BRIEFEST * self._fps, total / 2)
        kept = [lasting for seen in self._seen if (lasting := _lasting(seen, least))]
        kept.sort(key=lambda seen: -sum(found.crop.size for found in seen.values()))
        points = np.zeros((total, len(kept), len(LANDMARKS), 3), np.float32)
        confidence = np.zeros(points.shape[:3], np.float32)
        for person, seen in enumerate(kept):
            for number, found in seen.items():
                points[number, person], confidence[number, person] = found.points, found.confidence
        return Poses(points, confidence, height, width, self._fps)


def _lasting(seen: dict[int, Found], least: float) -> dict[int, Found]:
    """What is seen for so many frames or more, but for shorter breaks."""
    numbers = np.array(sorted(seen))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > max(least, 1)) + 1)
    return {int(number): seen[number] for run in runs if len(run) >= least for number in run}


def _is_person(found: Found, frame: Image.Image) -> bool:
    x, y = found.points[:, 0], found.points[:, 1]
    inside = (x >= 0) & (x < frame.width) & (y >= 0) & (y < frame.height) & (found.confidence >= 0.5)
    return found.score >= _LEAST_SCORE and inside.sum() >= _FEWEST_POINTS


def _is_among(found: Found, others: dict[int, Found]) -> bool:
    return any(_is_same(found.crop, other.crop) for other in others.values())


def _is_same(one: Crop, other: Crop) -> bool:
    return _distance(one, other) < _SAME * (one.size + other.size) / 2


def _distance(one: Crop, other: Crop) -> float:
    return float(np.hypot(one.x - other.x, one.y - other.y))
