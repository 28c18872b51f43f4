"""The poses of a video, found, fitted to a photo's person, drawn and kept: what command, app and server share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from .. import poses as room
from ..errors import InputError
from ..media import VideoWriter, atomic_path, iter_video, probe, read_image, resize, write_image
from ..media.files import check_writable
from ..media.keeping import check_apart
from ..media.reading import DEFAULT_FPS
from ..pipelines.poses import empty_stretches, find_poses, is_json, part_of, pose_in, read_json, watched
from ..poses.extraction import MOST_PEOPLE

Look = Literal["parts", "skeleton"]
Progress = Callable[[str, int, int | None], None]  # what, done, of how many

_AT_ONCE = 16  # frames in memory
_DRAW = {"parts": room.draw_parts, "skeleton": room.draw_skeleton}


@dataclass(frozen=True, slots=True)
class PoseResult:
    """What became of a video: the files written, and the seconds (from, to) of longer stretches that show nobody."""

    output: str
    json: str | None
    frames: int
    people: int
    empty: tuple[tuple[float, float], ...]


def make_poses(
    source: str,
    output: str,
    look: Look | None = None,
    people: int | None = None,
    reference: str | None = None,
    json: str | None = None,
    show: bool = False,
    on_progress: Progress | None = None,
) -> PoseResult:
    """Find the poses of a video and write them.

    Args:
        source: a video, a photo, or poses as JSON (see `animagic.poses.from_json`).
        output: a video, a picture for one frame, or a JSON file, as its suffix says.
        look: how poses are drawn; None: as body parts.
        people: the most that the video may show; None: up to ten.
        reference: a photo (or pose JSON) of the person who is to move so.
        json: also write the poses there.
        show: write the video with the poses drawn over it, and beside it what would be written otherwise.
    Raises: InputError or MediaError, in one sentence, before anything is written.
    """
    as_json, picture = _suffix(output) == ".json", _suffix(output) in (".png", ".jpg", ".jpeg") and "%" not in output
    read = {"source": source} if reference is None else {"source": source, "reference": reference}
    check_apart(read, {"output": output, "file of poses": json})
    if as_json and (look or show or json):
        given = f"--{look}" if look else "--show" if show else "--json"
        raise InputError(f"{output} holds poses as numbers, so {given} says nothing; leave it out or write an .mp4.")
    if show and _suffix(source) == ".json":
        raise InputError(f"{source} holds no pictures to show beside the poses; leave --show out.")
    for path in filter(None, (json, output if as_json or picture else None)):
        check_writable(Path(path))
    writer = None if as_json or picture else VideoWriter(output, 1)  # a name that cannot be is found at once
    model = None if reference is None else reference_pose(reference)
    found = read_poses(source, people, on_progress)
    fitted = found if model is None else room.retargeted(found, model)
    frames = _shown(source, found, fitted, look or "parts") if show else _drawn(fitted, look or "parts")
    with ExitStack() as stack:
        for path in filter(None, (json, output if as_json else None)):
            stack.enter_context(atomic_path(path)).write_text(room.to_json(fitted), "utf-8")
        if picture:
            if len(fitted.points) > 1:
                raise InputError(
                    f"{output} is one picture, but {source} has {len(fitted.points)} frames; write an .mp4."
                )
            write_image(output, next(frames)[0])
        elif writer is not None:
            about = {"source": Path(source).name, "look": look or "parts", "people": found.points.shape[1]}
            writer = stack.enter_context(VideoWriter(output, fitted.fps, metadata={"pose": about}))
            for chunk in frames:
                writer.write(chunk)
                if on_progress is not None:
                    on_progress("drawing", writer.frames, len(fitted.points))
    return PoseResult(output, json, len(found.points), found.points.shape[1], tuple(empty_stretches(found)))


def read_poses(source: str, people: int | None = None, on_progress: Progress | None = None) -> room.Poses:
    """The poses of a video, smoothed, or those of a JSON file as they are.

    Raises: InputError if it shows nobody, more than `people`, or poses that are drawn already.
    """
    if people is not None and not 1 <= people <= MOST_PEOPLE:
        raise InputError(f"--people is {people}; it must lie between 1 and {MOST_PEOPLE}.")
    if is_json(source):
        found = read_json(source)
    else:
        facts = probe(source)
        fps, total = facts["fps"] or DEFAULT_FPS, facts["frames"]
        first, frames = watched(iter_video(source, fps if facts["fps"] else None), 3)
        if (kind := room.is_pose_video(first)) is not None:
            drawn = "body parts" if kind == "parts" else "a skeleton"
            raise InputError(f"{source} is a pose already ({drawn}); give the video of a person.")

        def on_frame(number: int) -> None:
            if on_progress is not None:
                on_progress("finding poses", number, max(number, total))

        found = find_poses(frames, fps, source, on_frame)
    count = found.points.shape[1]
    if people is not None and count > people:
        raise InputError(
            f"{source} shows {count} people, more than --people {people}; give --people {count}, or cut it."
        )
    return found


def reference_pose(source: str) -> room.Poses:
    """The pose of the people in a photo, or in the first frame of a pose JSON. Raises InputError if it shows nobody."""
    return part_of(read_json(source), 0, 1) if is_json(source) else pose_in(read_image(source), source)


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()


def _slices(poses: room.Poses) -> Iterator[room.Poses]:
    for start in range(0, len(poses.points), _AT_ONCE):
        yield part_of(poses, start, start + _AT_ONCE)


def _drawn(poses: room.Poses, look: Look) -> Iterator[np.ndarray]:
    for part in _slices(poses):
        yield _DRAW[look](part, poses.height, poses.width)


def _shown(source: str, found: room.Poses, fitted: room.Poses, look: Look) -> Iterator[np.ndarray]:
    """The video with the poses that were found, and beside it what is drawn, at the video's height."""
    video = iter_video(source, found.fps if probe(source)["fps"] else None)
    width = max(1, round(fitted.width * found.height / fitted.height))
    for part, drawn in zip(_slices(found), _drawn(fitted, look), strict=True):
        frames = np.stack(list(islice(video, len(drawn))))
        beside = drawn if fitted.height == found.height else resize(drawn, found.height, width)
        yield np.concatenate([room.overlay(frames, part), beside], 2)
