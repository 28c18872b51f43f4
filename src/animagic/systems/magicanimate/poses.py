"""The poses that lead a video: found in what is given, brought to the person in the picture, drawn when needed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ...errors import InputError
from ...media import iter_video, probe
from ...media.framing import Framing
from ...pipelines.poses import empty_stretches, find_poses, is_json, largest, part_of, read_json
from ...poses import PART_COLOURS, Poses, draw_skeleton, is_pose_video, part_map

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
    stop = None if frames is None else offset + frames
    if is_json(path):
        poses = part_of(read_json(path), offset, stop)
        if fps is not None and fps != poses.fps:
            raise InputError(f"{path} has poses at {poses.fps:g} frames per second; leave out --fps.")
        return Driving(poses.fps, poses=_followed(poses, path, people, on_note))
    facts = probe(path)
    fps = fps or facts["fps"]
    if fps is None or facts["frames"] == 1:
        raise InputError(f"{path} has only one frame; give a video of somebody who moves.")
    if facts["frames"] <= offset:
        raise InputError(f"{path} has {facts['frames']} frames; --offset {offset} leaves none.")
    shown = is_pose_video(iter_video(path))
    if shown is not None:
        if shown != kind:
            raise InputError(
                f"{path} shows {_called(shown)}, but this model was trained on {_called(kind)}; give it an ordinary "
                "video, in which the poses are found and drawn as it needs them."
            )
        on_note(f"{path} shows {_called(shown)}: it is used as it is")
        return Driving(fps, facts["audio"], frames=np.stack(list(islice(iter_video(path, fps), offset, stop))))
    on_note(f"looking for people in {path}")
    found = find_poses(islice(iter_video(path, fps), offset, stop), fps, path)
    return Driving(fps, facts["audio"], _followed(found, path, people, on_note))


def _called(kind: str) -> str:
    return "body parts" if kind == "parts" else "skeletons"


def _followed(poses: Poses, path: str, people: int | None, on_note: Callable[[str], None]) -> Poses:
    """The poses of those who are followed."""
    count, wanted = poses.points.shape[1], people or 1
    if count < wanted:
        raise InputError(f"{wanted} people are asked for, but {count} were found in {path}; ask for at most {count}.")
    if count > wanted:
        who = "the one who takes most of the picture is" if wanted == 1 else f"the {wanted} largest are"
        on_note(f"{count} people were found in {path}; {who} followed (--people {count} for all)")
    poses = largest(poses, wanted)
    for start, stop in empty_stretches(poses)[:1]:
        on_note(f"nobody is seen in {path} from {start:.1f} to {stop:.1f} s: the pose is empty there")
    return poses


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
