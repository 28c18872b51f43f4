"""Faces or bodies followed from frame to frame, each of which keeps its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from ..errors import InputError
from .crops import Crop

MOST = 10
"""That are followed at once."""
_DETECTIONS_PER_SECOND = 4.0  # to find who comes in while others are being followed
_BRIEFEST = 0.25  # seconds that somebody must be seen for; detectors err for a frame or two
_SAME = 0.25  # of the size of their crops: two that are nearer to each other are one


class Found(Protocol):
    """One face or body in one frame. crop: where to look for it in the next."""

    @property
    def crop(self) -> Crop: ...


F = TypeVar("F", bound=Found)
Seen = TypeVar("Seen", bound=Found, covariant=True)


class Finder(Protocol[Seen]):
    """What finds faces, or bodies."""

    def detect(self, frame: Image.Image) -> Iterable[Crop]:
        """Where they are, the surest first."""

    def look(self, frame: Image.Image, crop: Crop) -> Seen | None:
        """What a crop shows; None where it is none."""


@dataclass(frozen=True, slots=True)
class Followed(Generic[F]):
    """A video's faces or bodies. places: for each of them what was found, by the number of the frame, those first who
    take most of the picture; frames: how many there are."""

    places: list[dict[int, F]]
    frames: int
    height: int
    width: int


def follow(
    finder: Finder[F],
    frames: Iterable[np.ndarray],
    fps: float,
    on_frame: Callable[[int, int], None] | None = None,
) -> Followed[F]:
    """Follow up to ten of them through frames, uint8 (height, width, 3), all of one size, which are taken one by one.

    Those are kept who are seen for a quarter of a second or longer, and a place also while its owner is out of sight.
    on_frame: told after each frame how many are done, and how many are seen in this one.
    Raises: InputError for no frames, frames of different sizes or of another kind.
    """
    followers = _Followers(finder, fps)
    size: tuple[int, ...] = ()
    for number, frame in enumerate(frames, 1):
        if size and frame.shape[:2] != size:
            raise InputError(f"frame {number} is {frame.shape[0]}x{frame.shape[1]}, the first {size[0]}x{size[1]}.")
        shown = followers.follow(picture_of(frame))
        size = frame.shape[:2]
        if on_frame is not None:
            on_frame(number, shown)
    if not size:
        raise InputError("there are no frames to find anybody in; give a video with at least one.")
    return Followed(followers.lasting(), followers.number + 1, *size)


def picture_of(frame: np.ndarray) -> Image.Image:
    """The frame for Pillow. Raises InputError unless it is uint8 (height, width, 3)."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"a frame must be uint8 (height, width, 3), not {frame.dtype} {frame.shape}.")
    return Image.fromarray(frame)


def newcomers(finder: Finder[F], frame: Image.Image, others: Sequence[F] = ()) -> list[F]:
    """Those in a frame who are not among the others, the surest first, as many as make ten with them."""
    there = list(others)
    for crop in finder.detect(frame):
        if len(there) == MOST:
            break
        if not _is_among(crop, there):
            found = finder.look(frame, crop)
            if found is not None and not _is_among(found.crop, there):
                there.append(found)
    return there[len(others) :]


class _Followers(Generic[F]):
    def __init__(self, finder: Finder[F], fps: float) -> None:
        self.number = -1
        self._finder, self._fps = finder, fps
        self._every = max(1, round(fps / _DETECTIONS_PER_SECOND))
        self._seen: list[dict[int, F]] = []  # for each place, by the number of the frame
        self._crops: list[Crop] = []  # for each place, the last one
        self._active: set[int] = set()

    def follow(self, frame: Image.Image) -> int:
        """Find everybody in the next frame; how many there are."""
        self.number += 1
        now: dict[int, F] = {}
        for place in sorted(self._active):
            found = self._finder.look(frame, self._crops[place])
            if found is not None and not _is_among(found.crop, now.values()):
                now[place] = found
        if len(now) < MOST and (len(now) < max(1, len(self._active)) or self.number % self._every == 0):
            for found in newcomers(self._finder, frame, list(now.values())):
                now[self._place_for(found, now)] = found
        for place, found in now.items():
            self._seen[place][self.number] = found
            self._crops[place] = found.crop
        self._active = set(now)
        return len(now)

    def _place_for(self, found: F, now: dict[int, F]) -> int:
        """The place of the nearest one out of sight, or a new one."""
        free = [place for place in range(len(self._crops)) if place not in now]
        if free:
            return min(free, key=lambda place: found.crop.distance(self._crops[place]))
        self._seen.append({})
        self._crops.append(found.crop)
        return len(self._crops) - 1

    def lasting(self) -> list[dict[int, F]]:
        least = min(_BRIEFEST * self._fps, (self.number + 1) / 2)
        kept = [lasting for seen in self._seen if (lasting := _lasting(seen, least))]
        return sorted(kept, key=lambda seen: -sum(found.crop.size for found in seen.values()))


def _lasting(seen: dict[int, F], least: float) -> dict[int, F]:
    """What is seen for so many frames or more, but for shorter breaks."""
    numbers = np.array(sorted(seen))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > max(least, 1)) + 1)
    return {int(number): seen[number] for run in runs if len(run) >= least for number in run}


def _is_among(crop: Crop, others: Iterable[Found]) -> bool:
    return any(crop.distance(other.crop) < _SAME * (crop.size + other.crop.size) / 2 for other in others)
