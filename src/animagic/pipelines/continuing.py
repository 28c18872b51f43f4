"""The latents of a video, kept so that it can be continued without being encoded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..media.outputs import Chunk


@dataclass(frozen=True)
class Piece:
    """Latents that were decoded together.

    Args:
        latents: (1, channels, latent frames, h, w).
        first: where on the timeline they begin.
        start, count: the latent frames of the timeline whose video frames are shown as decoded from them.
    """

    latents: torch.Tensor
    first: int
    start: int
    count: int


class KeptLatents:
    """A folder with what a video was decoded from, piece by piece: `NUMBER-FIRST-START.npy`, float32 (latent frames,
    channels, h, w), see `Piece`. Where pieces overlap, the later one has the same latents."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._written = 0

    def add(self, chunk: Chunk, frames_per_latent: int) -> None:
        """Keep what a chunk was decoded from, if it says it. Chunks come in order, all of them again in a run that
        goes on."""
        if chunk.latents is None:
            return
        start = chunk.start // frames_per_latent
        first = start - chunk.skipped // frames_per_latent
        self.folder.mkdir(exist_ok=True)
        frames = chunk.latents[0].transpose(0, 1).float().cpu().numpy()
        np.save(self.folder / f"{self._written:06d}-{first}-{start}.npy", frames)
        self._written += 1

    def _files(self) -> list[tuple[Path, int, int]]:
        """The files, and `first` and `start` of each. Raises InputError if there are none."""
        files = sorted(self.folder.glob("*-*-*.npy"))
        if not files:
            raise InputError(f"the latents of the video that is continued are gone from {self.folder}.")
        return [(file, *map(int, file.stem.split("-")[1:])) for file in files]  # type: ignore[misc]

    def pieces(self, frames: int) -> Iterator[Piece]:
        """Those of the first `frames` latent frames. Raises InputError."""
        files = [entry for entry in self._files() if entry[2] < frames]
        stops = [start for _, _, start in files[1:]] + [frames]
        for (file, first, start), stop in zip(files, stops, strict=True):
            yield Piece(torch.from_numpy(np.load(file)).transpose(0, 1)[None], first, start, stop - start)

    def timeline(self, frames: int) -> torch.Tensor:
        """The first `frames` latent frames, (1, channels, frames, h, w). Raises InputError."""
        shown = [p.latents[:, :, p.start - p.first :][:, :, : p.count] for p in self.pieces(frames)]
        return torch.cat(shown, dim=2)

    def copy(self, folder: Path, frames: int) -> None:
        """Copies of what the first `frames` latent frames need, which take no space where the disk allows."""
        folder.mkdir(parents=True)
        for file, _, start in self._files():
            if start < frames:
                try:
                    os.link(file, folder / file.name)
                except OSError:
                    shutil.copyfile(file, folder / file.name)
