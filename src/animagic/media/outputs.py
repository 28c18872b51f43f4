"""Outputs of pipelines: a whole video, or a piece of one, in the form asked for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from ..errors import InputError

if TYPE_CHECKING:  # PyAV is not needed before something is saved
    from .sound import Sound

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class VideoOutput(BaseOutput):
    """frames: list (one a video) of lists of PIL images; or np (videos, frames, height, width, 3) in [0, 1], pt
    (videos, frames, 3, height, width) in [0, 1], latent (videos, channels, latent frames, height, width)."""

    frames: Any
    fps: float = 24

    def save(
        self,
        path: str | Path,
        metadata: dict | None = None,
        sound: Sound | str | Path | None = None,
        sound_start: float = 0.0,
    ) -> Path:
        """Write the first video to a file; the suffix chooses the format, and the rest is as in `VideoWriter`. Raises
        MediaError."""
        from .writing import VideoWriter

        if not len(self.frames) or not len(self.frames[0]):
            raise InputError("there are no frames to save: the run was interrupted before any was final.")
        # Three latent frames look like colours, but pixels are never negative.
        if isinstance(self.frames, torch.Tensor) and (self.frames.shape[2] != 3 or self.frames.min() < 0):
            raise InputError("latents cannot be saved as a video; ask for output_type pil, np or pt.")
        frames = to_bytes(self.frames[0])
        with VideoWriter(path, fps=self.fps, metadata=metadata, sound=sound, sound_start=sound_start) as writer:
            writer.write(frames)
        return Path(path)


@dataclass(frozen=True)
class Chunk:
    """A piece of video that is final. frames: as in VideoOutput, one entry a video."""

    frames: Any
    start: int
    """Index of its first frame in the video."""
    fps: float
    latents: torch.Tensor | None = None
    """What it was decoded from: (videos, channels, latent frames, h, w)."""
    skipped: int = 0
    """Frames that these begin with and that came before it."""

    def __len__(self) -> int:
        return len(self.frames[0])

    @property
    def stop(self) -> int:
        """Index of the frame after its last one."""
        return self.start + len(self)


def to_bytes(frames: Any) -> np.ndarray:
    """One video's frames (PIL images, np or pt in [0, 1]) as uint8 (frames, height, width, 3)."""
    if isinstance(frames, torch.Tensor):
        frames = frames.permute(0, 2, 3, 1).float().cpu().numpy()
    if isinstance(frames, np.ndarray):
        return (frames * 255).round().clip(0, 255).astype(np.uint8)
    return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


def in_form(video: torch.Tensor, output_type: str) -> Any:
    """Videos (batch, frames, 3, height, width) in [0, 1] in the form asked for."""
    if output_type == "pt":
        return video
    array = video.permute(0, 1, 3, 4, 2).cpu().numpy()
    if output_type == "np":
        return array
    return [[Image.fromarray(frame) for frame in to_bytes(one)] for one in array]


def joined(chunks: Sequence[Chunk], output_type: str) -> Any:
    """The frames of all chunks as one VideoOutput has them; none: an empty list."""
    if not chunks:  # interrupted before any frame was final
        return []
    pieces = [chunk.frames for chunk in chunks]
    if output_type in ("latent", "pt"):
        return torch.cat(pieces, dim=2 if output_type == "latent" else 1)
    if output_type == "np":
        return np.concatenate(pieces, axis=1)
    return [list(itertools.chain.from_iterable(video)) for video in zip(*pieces, strict=True)]


def check_output_type(output_type: str) -> None:
    """Raises InputError for an unknown one."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"output_type {output_type!r} is unknown; choose pil, np, pt or latent.")
