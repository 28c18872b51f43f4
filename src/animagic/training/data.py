"""Training data. A batch is a function of (seed, step), so a resumed run sees exactly what it would have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from ..synthetic import Scene, caption, render, sample_scene

Split = Literal["train", "test"]


def draw_scene(rng: np.random.Generator, simple_share: float = 0.0, split: Split = "train") -> Scene:
    """A scene of the studio; at least `simple_share` of them are simple, see SceneBatches."""
    simple = rng.random() < simple_share
    while True:
        scene = sample_scene(rng, split)
        plain = len(scene.things) == 1 and scene.camera == "still" and scene.background.kind != "photo"
        if plain or not simple:
            return scene


@dataclass(frozen=True)
class SceneBatches(Dataset):
    """Captioned clips from the drawing studio; item `step` is a whole batch.

    Args:
        seed: of the whole stream.
        chunks_per_batch: clips are as many as make this number of chunks.
        chunk_frames: frames of a chunk.
        clip_chunks: the possible lengths of clips in chunks; `clip_shares` how often each is chosen.
        height, width: pixels.
        held_share: share of the clips that begin as a still, their first frame shown `held_frames` times more.
        late_share: share of the clips that begin later on their scene's timeline.
        simple_share: at least this share shows one thing before a drawn background, under a camera that stands still:
            what a small model can learn first.
        split: which scenes.

    Items: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str], "held": bool (clips,),
    "index": int}.
    """

    seed: int
    steps: int
    chunks_per_batch: int = 32
    chunk_frames: int = 24
    clip_chunks: Sequence[int] = (1,)
    clip_shares: Sequence[float] = (1.0,)
    height: int = 64
    width: int = 64
    held_share: float = 0.0
    held_frames: int = 3
    late_share: float = 0.1
    simple_share: float = 0.0
    split: Split = "train"

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        chunks = int(rng.choice(self.clip_chunks, p=self.clip_shares))
        clips = max(1, self.chunks_per_batch // chunks)
        frames = chunks * self.chunk_frames
        video = np.empty((clips, frames, self.height, self.width, 3), np.uint8)
        captions, held = [], rng.random(clips) < self.held_share
        for i in range(clips):
            scene = draw_scene(rng, self.simple_share, self.split)
            captions.append(caption(scene, rng))
            start = int(rng.integers(1, 4)) * self.chunk_frames if rng.random() < self.late_share else 0
            drawn = render(scene, frames, self.height, self.width, start=start)
            if held[i]:
                drawn = np.concatenate([drawn[:1]] * self.held_frames + [drawn[: -self.held_frames]])
            video[i] = drawn
        return {
            "video": torch.from_numpy(video).permute(0, 4, 1, 2, 3),
            "captions": captions,
            "held": torch.from_numpy(held),
            "index": step,
        }


def to_unit(video: torch.Tensor) -> torch.Tensor:
    """Bytes 0..255 to float -1..1."""
    return video.float() / 127.5 - 1
