"""Poses from what people have: a video or photo of somebody, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import InputError, MediaError
from ..poses import Poses, extract_poses, from_json, smoothed
from ..poses.body import SEEN
from ..tracking import gaps

_LONGEST_WAIT = 30.0  # seconds of a video without anybody, after which the search ends
_LARGEST_JSON = 256 * 2**20  # bytes
OnFrame = Callable[[int], None]
"""Told after each frame how many have been looked at."""


def is_json(source: str) -> bool:
    """Whether it is poses as JSON: a file, or a folder of files as OpenPose writes them, one a frame."""
    path = Path(source)
    return path.suffix.lower() == ".json" or (path.is_dir() and any(path.glob("*.json")))


def read_json(source: str) -> Poses:
    """The poses in JSON; see `is_json` and `animagic.poses.from_json`. Raises InputError, MediaError."""
    path = Path(source)
    try:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if sum(file.stat().st_size for file in files) > _LARGEST_JSON:
            raise InputError(f"{source} is larger than {_LARGEST_JSON >> 20} MB; give a shorter piece.")
        texts = [file.read_text("utf-8") for file in files]
    except FileNotFoundError as error:
        raise MediaError(f"{source} does not exist: check its name.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"{source} cannot be read as JSON ({error}); give a text file.") from error
    return _with_somebody(from_json(texts[0] if len(texts) == 1 else f"[{','.join(texts)}]", source), source)


def find_poses(frames: Iterable[np.ndarray], fps: float, source: str, on_frame: OnFrame = lambda number: None) -> Poses:
    """The poses of up to ten people in the frames of a video, smoothed, those who take most of the picture first.

    source: what errors call it. Raises InputError if nobody is seen, in all of it or in its first half minute.
    """
    most_seen = 0

    def watch(number: int, people: int) -> None:
        nonlocal most_seen
        most_seen = max(most_seen, people)
        on_frame(number)
        if not most_seen and number >= _LONGEST_WAIT * fps:
            raise InputError(f"{source} shows no person in its first {_LONGEST_WAIT:.0f} seconds; cut them off.")

    return smoothed(_with_somebody(extract_poses(frames, fps, watch), source))


def pose_in(picture: np.ndarray, source: str) -> Poses:
    """The poses in a photo, uint8 (height, width, 3): one frame. Raises InputError if nobody is seen."""
    found = extract_poses([picture], 1.0)
    if not (found.confidence > SEEN).any():
        raise InputError(f"{source} shows no person; give a photo on which one is seen from the shoulders down.")
    return found


def largest(poses: Poses, people: int) -> Poses:
    """Those of the first people."""
    return replace(poses, points=poses.points[:, :people], confidence=poses.confidence[:, :people])


def part_of(poses: Poses, start: int, stop: int | None) -> Poses:
    """Some of the frames."""
    return replace(poses, points=poses.points[start:stop], confidence=poses.confidence[start:stop])


def empty_stretches(poses: Poses) -> list[tuple[float, float]]:
    """Seconds (from, to) in which nobody is seen."""
    return gaps(np.any(poses.confidence > SEEN, (1, 2)), poses.fps)


def _with_somebody(poses: Poses, source: str) -> Poses:
    if not (poses.confidence > SEEN).any():
        seconds = len(poses.points) / poses.fps
        raise InputError(f"{source} shows no person in its {seconds:.1f} seconds; give one in which somebody is seen.")
    return poses


def watched(frames: Iterable[np.ndarray], count: int) -> tuple[list[np.ndarray], Iterator[np.ndarray]]:
    """The first frames, and all of them."""
    rest = iter(frames)
    first = list(islice(rest, count))

    def everything() -> Iterator[np.ndarray]:
        yield from first
        yield from rest

    return first, everything()
