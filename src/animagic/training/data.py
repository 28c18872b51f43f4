"""Training data from the drawing studio. A batch is a function of (seed, item), so a resumed run sees what it would
have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from ..synthetic import Scene, caption, motion_caption, picture_caption, render, sample_scene
from ..synthetic.cameras import move_camera
from ..synthetic.styles import apply_style

Split = Literal["train", "test"]
PLAIN = "plain"
_SCENE_FRAMES = 48  # so long a thing stays in view


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
    """Captioned clips (or images: clips of one frame) from the drawing studio; item i is a whole batch.

    What is None is neither left to chance nor part of the batch.

    Args:
        seed: of the whole stream.
        steps: batches.
        batch_size: clips of a batch; where they have several chunks, the chunks of all of them.
        num_frames, fps: of a clip (of a chunk, where it has several); height, width: pixels.
        simple_share: at least this share shows one thing before a drawn background, under a camera that stands still:
            what a small model can learn first.
        split: which scenes.
        motion_share: share of the captions that tell what the thing does, too; None: all of them.
        alone_share: share of the motion prompts that tell nothing but the motion; the others are a whole caption.
        clip_chunks: the possible lengths of clips in chunks, one for a whole batch; `clip_shares` how often each is
            chosen.
        held_share: share of the clips that begin as a still, their first frame shown `held_frames` times more.
        late_share: share of the clips that begin some chunks later on their scene's timeline.
        anywhere: all clips begin anywhere on their scene's timeline.
        camera: a key of CAMERA_MOVES that all clips are seen with.
        looks: look -> how often it is drawn in, "plain" being none.
        crop: pixels of the sides of the random part of the picture that is kept.
        recolour: share of the clips whose colour channels change places.

    Items: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str], "index": int}; with alone_share
    "motions": list[str], with held_share "held": bool (clips,).
    """

    seed: int
    steps: int
    batch_size: int = 4
    num_frames: int = 16
    fps: float = 24
    height: int = 64
    width: int = 64
    simple_share: float = 0.0
    split: Split = "train"
    motion_share: float | None = None
    alone_share: float | None = None
    clip_chunks: Sequence[int] | None = None
    clip_shares: Sequence[float] | None = None
    held_share: float | None = None
    held_frames: int = 3
    late_share: float | None = None
    anywhere: bool = False
    camera: str | None = None
    looks: Mapping[str, float] | None = None
    crop: int | None = None
    recolour: float = 0.0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, item: int) -> dict:
        rng = np.random.default_rng((self.seed, item))
        chunks = 1 if self.clip_chunks is None else int(rng.choice(self.clip_chunks, p=self.clip_shares))
        clips, frames = max(1, self.batch_size // chunks), chunks * self.num_frames
        held = np.zeros(clips, bool) if self.held_share is None else rng.random(clips) < self.held_share
        size = (self.height, self.width) if self.crop is None else (self.crop, self.crop)
        video = np.empty((clips, frames, *size, 3), np.uint8)
        captions, motions = [], []
        for i in range(clips):
            scene = draw_scene(rng, self.simple_share, self.split)
            tell = caption if self.motion_share is None or rng.random() < self.motion_share else picture_caption
            captions.append(tell(scene, rng))
            if self.alone_share is not None:
                motions.append((motion_caption if rng.random() < self.alone_share else caption)(scene, rng))
            drawn = self._draw(rng, scene, frames)
            if held[i]:
                drawn = np.concatenate([drawn[:1]] * self.held_frames + [drawn[: -self.held_frames]])
            if self.crop is not None:
                y, x = (int(rng.integers((side - self.crop) // 8 + 1)) * 8 for side in (self.height, self.width))
                drawn = drawn[:, y : y + self.crop, x : x + self.crop]
            if self.recolour and rng.random() < self.recolour:
                drawn = drawn[..., rng.permutation(3)]
            video[i] = drawn
        batch = {"video": torch.from_numpy(video).permute(0, 4, 1, 2, 3), "captions": captions, "index": item}
        batch |= {} if self.held_share is None else {"held": torch.from_numpy(held)}
        return batch if self.alone_share is None else batch | {"motions": motions}

    def _draw(self, rng: np.random.Generator, scene: Scene, frames: int) -> np.ndarray:
        """uint8 (frames, height, width, 3)."""
        start = int(rng.integers(_SCENE_FRAMES)) if self.anywhere else 0
        if self.late_share is not None and rng.random() < self.late_share:
            start = int(rng.integers(1, 4)) * self.num_frames
        if self.camera is not None:
            side = 2 * max(self.height, self.width)
            return move_camera(render(scene, frames, side, side, self.fps, start), self.camera, self.height, self.width)
        drawn = render(scene, frames, self.height, self.width, self.fps, start)
        if self.looks is None:
            return drawn
        look, paper = str(rng.choice(list(self.looks), p=list(self.looks.values()))), int(rng.integers(2**31))
        return drawn if look == PLAIN else apply_style(look, drawn, paper)


def to_unit(video: torch.Tensor) -> torch.Tensor:
    """Bytes 0..255 to float -1..1."""
    return video.float() / 127.5 - 1
