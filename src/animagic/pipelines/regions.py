"""Where somebody is seen in the frames of a video: by a face that was found or given, or by a painted mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from ..faces import Face, Faces, face_mask, mouth_mask
from ..media.framing import Framing
from ..media.reading import iter_video


class Region(Protocol):
    """Somebody's place in every frame of a video; after its last frame it stays."""

    def face(self, frames: range, height: int, width: int) -> np.ndarray:
        """float32 (F, height, width), 0 to 1: the face in frames of that size; nothing where it is not seen."""

    def mouth(self, frames: range, height: int, width: int) -> np.ndarray:
        """As `face`: of it, what moves when somebody speaks."""

    def seen(self, frames: range) -> np.ndarray:
        """bool (F,): whether the face is seen."""

    def boxes(self, frames: range) -> np.ndarray:
        """float32 (F, 4): left, top, right, bottom of the face in pixels; nan where it is not seen."""

    def framed(self, framings: Sequence[Framing]) -> Region:
        """As a model sees it that is shown a box of the frames: one for each frame, the last for all that follow."""


class ForwardFrames:
    """The frames of a video that are asked for in order, in constant memory; going back costs reading it anew. After
    the last frame that one stays."""

    def __init__(self, path: str | Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._rest: Iterator[np.ndarray] = iter(())
        self._number, self._last = -1, np.zeros((0, 0, 3), np.uint8)

    def __getitem__(self, frames: range) -> np.ndarray:
        """uint8 (F, height, width, 3)."""
        return np.stack([self._at(number) for number in frames])

    def _at(self, number: int) -> np.ndarray:
        if number < self._number or self._number < 0:
            self._rest, self._number = iter_video(self._path, self._fps), -1
        while self._number < number:
            self._last = next(self._rest, self._last)
            self._number += 1
        return self._last


@dataclass(frozen=True)
class FaceRegion:
    """One of the faces of a video, or of a picture, which is one frame."""

    faces: Faces
    number: int = 0

    @classmethod
    def still(cls, face: Face, height: int, width: int) -> FaceRegion:
        """A face that stays where it is, in frames of that size."""
        return cls(Faces(face.mesh[None, None], np.ones((1, 1), np.float32), height, width, 1.0))

    def face(self, frames: range, height: int, width: int) -> np.ndarray:
        return self._drawn(face_mask, frames, height, width)

    def mouth(self, frames: range, height: int, width: int) -> np.ndarray:
        return self._drawn(mouth_mask, frames, height, width)

    def _drawn(self, draw: Callable[..., np.ndarray], frames: range, height: int, width: int) -> np.ndarray:
        scale = np.array([width / self.faces.width, height / self.faces.height, 1], np.float32)
        masks = np.zeros((len(frames), height, width), np.float32)
        for mask, number in zip(masks, self._held(frames), strict=True):
            if (face := self.faces.at(number, self.number)) is not None:
                mask[:] = draw(replace(face, mesh=face.mesh * scale), height, width)
        return masks

    def seen(self, frames: range) -> np.ndarray:
        return self.faces.confidence[self._held(frames), self.number] > 0

    def boxes(self, frames: range) -> np.ndarray:
        boxes = self.faces.box[self._held(frames), self.number]
        boxes[:, 2:] += boxes[:, :2]
        return np.where(self.seen(frames)[:, None], boxes, np.nan)

    def framed(self, framings: Sequence[Framing]) -> FaceRegion:
        numbers = range(max(len(framings), len(self.faces.mesh)))
        height, width = framings[0].target
        held = self._held(numbers)
        each = zip(self.faces.mesh[held], _held(numbers, framings), strict=True)
        mesh = np.stack([framings[at].map_points(mesh) for mesh, at in each])
        return replace(self, faces=Faces(mesh, self.faces.confidence[held], height, width, self.faces.fps))

    def _held(self, frames: range) -> list[int]:
        return _held(frames, self.faces.mesh)


@dataclass(frozen=True)
class MaskRegion:
    """A painted mask, a picture or a video: white is the face, all of which counts as the mouth."""

    painted: ForwardFrames
    framings: Sequence[Framing] = ()

    def face(self, frames: range, height: int, width: int) -> np.ndarray:
        masks = np.empty((len(frames), height, width), np.float32)
        for i, number in enumerate(frames):
            painted = self.painted[range(number, number + 1)]
            if self.framings:
                painted = self.framings[_held([number], self.framings)[0]].into(painted)
            grey = Image.fromarray(painted[0].mean(-1, dtype=np.float32) / 255)
            masks[i] = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
        return masks

    mouth = face

    def seen(self, frames: range) -> np.ndarray:
        return np.isfinite(self.boxes(frames)[:, 0])

    def boxes(self, frames: range) -> np.ndarray:
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        for box, number in zip(boxes, frames, strict=True):
            y, x = np.nonzero(self.painted[range(number, number + 1)][0].max(-1) > 127)
            if len(x):
                box[:] = x.min(), y.min(), x.max() + 1, y.max() + 1
        return boxes

    def framed(self, framings: Sequence[Framing]) -> MaskRegion:
        if self.framings:
            raise InputError("a mask is framed already: frame the one that was read.")
        return replace(self, framings=framings)


def _held(frames: Sequence[int], items: Sequence | np.ndarray) -> list[int]:
    """The places of frames in what has an end, whose last one stays."""
    return [min(number, len(items) - 1) for number in frames]
