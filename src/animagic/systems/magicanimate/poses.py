"""The poses that lead a video: found in what is given, brought to the person in the picture, drawn when needed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...media import iter_video, probe
from ...media.framing import Framing
from ...poses import (
    PART_COLOURS,
    Poses,
    draw_skeleton,
    extract_poses,
    from_json,
    is_pose_video,
    part_map,
    smoothed,
)

_BACKGROUND = 24
"""Difference in colour, 0 to 255, by which a pose picture's people stand out from its corner."""


class DrawnPoses:
    """Pictures of the poses of a video, drawn when they are first asked for and kept packed: a long video needs little
    memory.

    Args:
        poses: with the height and width of the pictures.
        kind: "parts" or "skeleton".
    """

    def __init__(self, poses: Poses, kind: str):
        self.poses, self.kind = poses, kind
        self._packed: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.poses.points)

    def __getitem__(self, frames: Sequence[int]) -> np.ndarray:
        """uint8 (frames, height, width, 3)."""
        drawn = self._drawn(frames)
        return PART_COLOURS[drawn] if self.kind == "parts" else drawn

    def masks(self, frames: Sequence[int]) -> np.ndarray:
        """Where people are, bool (frames, height, width)."""
        return part_map(self._of(frames), self.poses.height, self.poses.width) > 0

    def _of(self, frames: Sequence[int]) -> Poses:
        chosen = list(frames)
        return replace(self.poses, points=self.poses.points[chosen], confidence=self.poses.confidence[chosen])

    def _drawn(self, frames: Sequence[int]) -> np.ndarray:
        height, width = self.poses.height, self.poses.width
        missing = sorted({frame for frame in frames if frame not in self._packed})
        if missing:
            draw = part_map if self.kind == "parts" else draw_skeleton
            for frame, picture in zip(missing, draw(self._of(missing), height, width), strict=True):
                self._packed[frame] = zlib.compress(picture.tobytes(), 1)
        shape = (height, width) if self.kind == "parts" else (height, width, 3)
        read = (np.frombuffer(zlib.decompress(self._packed[frame]), np.uint8) for frame in frames)
        return np.stack([one.reshape(shape) for one in read])


class GivenPoses:
    """Pose pictures that came as a video, uint8 (frames, height, width, 3)."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: Sequence[int]) -> np.ndarray:
        return self.frames[list(frames)]

    def masks(self, frames: Sequence[int]) -> np.ndarray:
        """Where people are, bool (frames, height, width): what has not the colour of the upper left corner."""
        chosen = self[frames].astype(np.int16)
        return np.abs(chosen - chosen[:, :1, :1]).max(-1) > _BACKGROUND


@dataclass(frozen=True)
class Driving:
    """What a driving video says. Either its poses, in its own frame, or, if it shows poses already, its frames.

    audio: whether it has sound.
    """

    fps: float
    audio: bool = False
    poses: Poses | None = None
    frames: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames) if self.poses is None else len(self.poses.points)  # type: ignore[arg-type]


def read_driving(
    path: str,
    kind: str,
    *,
    fps: float | None = None,
    frames: int | None = None,
    offset: int = 0,
    people: int | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Driving:
    """Look at a driving video: pose pictures are taken as they are, JSON is read, in all else people are looked for.

    Args:
        kind: of pose pictures that the model reads, "parts" or "skeleton".
        fps: frames per second; None: the video's. frames: at most so many, after `offset` that are left out.
        people: how many are followed, those who take most of the picture; None: one.
    Raises: InputError, MediaError: one sentence.
    """
    chosen = (offset, None if frames is None else offset + frames)
    if Path(path).suffix.lower() == ".json":
        poses = from_json(Path(path).read_text("utf-8"), path)
        if fps is not None and fps != poses.fps:
            raise InputError(f"{path} has poses at {poses.fps:g} frames per second; leave out --fps.")
        part = slice(*chosen)
        poses = replace(poses, points=poses.points[part], confidence=poses.confidence[part])
        return Driving(poses.fps, poses=_followed(poses, path, people, on_note))
    facts = probe(path)
    fps = fps or facts["fps"]
    if fps is None or facts["frames"] == 1:
        raise InputError(f"{path} has only one frame; give a video of somebody who moves.")
    shown = is_pose_video(iter_video(path))
    if shown is not None:
        if shown != kind:
            raise InputError(
                f"{path} shows {_called(shown)}, but this model was trained on {_called(kind)}; give it an ordinary "
                "video, in which the poses are found and drawn as it needs them."
            )
        on_note(f"{path} shows {_called(shown)}: it is used as it is")
        return Driving(fps, facts["audio"], frames=np.stack(list(islice(iter_video(path, fps), *chosen))))
    on_note(f"looking for people in {path}")
    found = extract_poses(islice(iter_video(path, fps), *chosen), fps)
    return Driving(fps, facts["audio"], smoothed(_followed(found, path, people, on_note)))


def _called(kind: str) -> str:
    return "body parts" if kind == "parts" else "skeletons"


def _followed(poses: Poses, path: str, people: int | None, on_note: Callable[[str], None]) -> Poses:
    """The poses of those who are followed."""
    count, frames = poses.points.shape[1], len(poses.points)
    seen = poses.confidence.max(-1) > 0  # (frames, people)
    if not seen.any():
        raise InputError(
            f"no person was found in {path}, from 0.0 to {frames / poses.fps:.1f} s; give a video in which somebody is "
            "seen."
        )
    if people is not None and count < people:
        raise InputError(f"{people} people are asked for, but {count} were found in {path}; ask for at most {count}.")
    wanted = people or 1
    if count > wanted:
        who = "the one who takes most of the picture is" if wanted == 1 else f"the {wanted} largest are"
        on_note(f"{count} people were found in {path}; {who} followed (--people {count} for all)")
    missing = np.flatnonzero(~seen[:, :wanted].all(1))
    if len(missing):
        at = missing[0] / poses.fps
        on_note(f"in {len(missing)} of {frames} frames of {path} nobody or not everybody is found, first at {at:.1f} s")
    return replace(poses, points=poses.points[:, :wanted], confidence=poses.confidence[:, :wanted])


def pose_of(picture: np.ndarray, path: Any, people: int | None = None) -> Poses:
    """The poses in a picture, one frame. Raises InputError if nobody is seen."""
    found = extract_poses([picture], 1.0)
    if not (found.confidence > 0).any():
        raise InputError(
            f"no person was found in the picture {path}; give one in which a person is seen, or --no-retarget."
        )
    return replace(found, points=found.points[:, : people or 1], confidence=found.confidence[:, : people or 1])


def framed(poses: Poses, framing: Framing) -> Poses:
    """Poses in the frame that the model sees."""
    height, width = framing.target
    return replace(poses, points=framing.map_points(poses.points).astype(np.float32), height=height, width=width)


def box_of(poses: Iterable[Poses]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom): where everybody is, in all frames."""
    points = np.concatenate([one.points[one.confidence > 0.3][:, :2] for one in poses])
    (left, top), (right, bottom) = points.min(0), points.max(0)
    head = 0.08 * (bottom - top)  # landmarks end at the eyes
    return float(left), float(top - head), float(right), float(bottom)
