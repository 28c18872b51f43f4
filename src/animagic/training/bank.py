"""Scenes that are drawn and encoded once and lie on the disk: an autoencoder and a text encoder that stay as they are
need not take part in every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..synthetic import COLOURS, MOTIONS, SHAPES, caption, picture_caption, render
from .data import draw_scene

LABELS = {"shape": SHAPES, "colour": tuple(COLOURS), "motion": MOTIONS}
"""What is known of a scene's main thing -> its values."""
_PART = 32  # scenes of a file
_OF_SCENES = {
    *("scene_seed", "num_frames", "fps", "height", "width", "patch_length"),
    *("simple_share", "held_share", "captions", "picture_share"),
}  # what the files depend on

EncodeVideo = Callable[[Tensor], Tensor]
"""uint8 (clips, 3, frames, height, width) -> latents (clips, channels, latent frames, h, w)."""
EncodeText = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""texts -> embeddings (texts, length, channels) and where there is text, boolean (texts, length)."""


@dataclass
class SceneBank(Dataset):
    """Batches of pieces of scenes of the studio, which lie encoded on the disk.

    Each piece begins at a random latent frame of a random scene, and has one of the scene's captions. The files are
    made when they are first needed: more scenes join as training goes on, at the same steps in every run. Drawing and
    encoding cost as much as a step of training does, so every scene is used for many pieces. Where the files of a run
    are lost, as on another machine, it goes on with as many scenes as it began with, and they join anew.

    Args:
        seed: of the pieces. steps: batches.
        batch_size: latent frames of a batch, over `length`: pieces of it.
        scenes: how many there are in the end. begin: how many at the first step; then 32 more every `grow` steps.
        scene_seed: of the scenes.
        lengths: of the pieces in latent frames, one for a whole batch; `shares` how often each is chosen.
        num_frames, fps, height, width: of a scene, pixels. patch_length: frames of a latent frame.
        simple_share: see SceneBatches.
        held_share: share of the scenes that begin as a still, their first frame shown `patch_length` times. Pieces of
            more than one latent frame begin there.
        captions: of a scene; picture_share: share of those that do not tell what the thing does.

    Items: {"latents": (pieces, channels, length, h, w), "text": (pieces, tokens, channels), "text_mask": bool (pieces,
    tokens), "held": bool (pieces,), "inside": (pieces, length, 2 h, 2 w), "labels": (pieces, len(LABELS))}.
    Inside is which part of each quarter of a latent belongs to the things. Labels are -1 in a scene of several.
    """

    seed: int
    steps: int
    batch_size: int = 32
    scenes: int = 6000
    begin: int = 640
    grow: int = 20
    scene_seed: int = 0
    lengths: Sequence[int] = (1,)
    shares: Sequence[float] | None = None
    num_frames: int = 96
    fps: float = 24
    height: int = 128
    width: int = 128
    patch_length: int = 4
    simple_share: float = 1.0
    held_share: float = 0.1
    captions: int = 4
    picture_share: float = 0.5
    folder: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._parts: list[dict[str, Tensor]] = []
        if self.num_frames % self.patch_length or not 0 < max(self.lengths) <= self.num_frames // self.patch_length:
            raise InputError("num_frames must be a multiple of patch_length, and lengths fit into it.")

    def __len__(self) -> int:
        return self.steps

    def open(
        self, folder: Path, encode_video: EncodeVideo, encode_text: EncodeText, key: str = "", first: int = 0
    ) -> None:
        """Where the files lie, and what encodes those that are missing. key: tells encoders apart; scenes of other ones
        lie in another folder inside. first: the item that this run begins with."""
        own = {name: value for name, value in vars(self).items() if name in _OF_SCENES}
        name = hashlib.sha256(repr((key, own)).encode()).hexdigest()[:12]
        self.folder, self._encode_video, self._encode_text = folder / name, encode_video, encode_text
        self.folder.mkdir(parents=True, exist_ok=True)
        self._first, self._found = first, 0  # files without a gap
        while (self.folder / f"{self._found:05}.safetensors").exists():
            self._found += 1

    def __getitem__(self, item: int) -> dict:
        joined, since = item // self.grow, item // self.grow - self._first // self.grow
        there = max(-(-self.begin // _PART), self._found) + since
        parts = self._opened(min(-(-self.scenes // _PART), -(-self.begin // _PART) + joined, there))
        rng = np.random.default_rng((self.seed, 1, item))
        length = int(rng.choice(self.lengths, p=self.shares))
        rows: list[dict[str, Tensor]] = []
        for _ in range(max(1, self.batch_size // length)):
            part = parts[int(rng.integers(len(parts)))]
            scene, wording = int(rng.integers(len(part["held"]))), int(rng.integers(self.captions))
            last = part["latents"].shape[2] - length
            first = 0 if length > 1 and part["held"][scene] else int(rng.integers(last + 1))
            piece = slice(first, first + length)
            rows.append(
                {
                    "latents": part["latents"][scene, :, piece].float(),
                    "text": part["text"][scene, wording].float(),
                    "text_mask": part["text_mask"][scene, wording],
                    "held": part["held"][scene] & (length > 1),
                    "inside": part["inside"][scene, piece].float() / 255,
                    "labels": part["labels"][scene],
                }
            )
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        used = int(batch["text_mask"].any(0).nonzero()[-1]) + 1
        return batch | {"text": batch["text"][:, :used], "text_mask": batch["text_mask"][:, :used]}

    def _opened(self, count: int) -> list[dict[str, Tensor]]:
        """The first files. Raises AssertionError if there is no folder yet."""
        assert self.folder is not None, "a bank must be opened before it is read"
        for number in range(len(self._parts), count):
            file = self.folder / f"{number:05}.safetensors"
            if not file.exists():
                new = file.with_suffix(".new")
                save_file(self._made(number), new)
                new.replace(file)  # a crash in between leaves nothing half-written
            self._parts.append(load_file(file))
        return self._parts[:count]

    @torch.no_grad()
    def _made(self, number: int) -> dict[str, Tensor]:
        from ..synthetic.drawing import silhouettes

        cells = (2 * self.height // 8, 2 * self.width // 8)
        latents, inside, held, labels, captions = [], [], [], [], []
        for index in range(number * _PART, (number + 1) * _PART):
            rng = np.random.default_rng((self.scene_seed, 0, index))
            scene = draw_scene(rng, self.simple_share)
            start = int(rng.integers(1, 4)) * 24 if rng.random() < 0.1 else 0
            still = rng.random() < self.held_share
            frames = render(scene, self.num_frames, self.height, self.width, self.fps, start)
            middles = (np.arange(0, self.num_frames, self.patch_length) + (self.patch_length - 1) / 2 + start) * 24
            if still:
                frames = np.concatenate([frames[:1]] * (self.patch_length - 1) + [frames[: 1 - self.patch_length]])
                middles = np.maximum(middles - (self.patch_length - 1) * 24, start * 24)
            video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None]
            latents.append(self._encode_video(video).half())
            inside.append(torch.from_numpy(silhouettes(scene, (middles / self.fps).tolist(), *cells)))
            held.append(still)
            main = scene.things[0]
            values = (main.shape, main.colour, main.motion.name)
            alone = len(scene.things) == 1
            labels.append([names.index(v) if alone else -1 for names, v in zip(LABELS.values(), values, strict=True)])
            for _ in range(self.captions):
                captions.append((picture_caption if rng.random() < self.picture_share else caption)(scene, rng))
        text, mask = self._encode_text(captions)
        return {
            "latents": torch.cat(latents),
            "inside": torch.stack(inside),
            "held": torch.tensor(held),
            "labels": torch.tensor(labels),
            "text": text.unflatten(0, (_PART, -1)).half(),
            "text_mask": mask.unflatten(0, (_PART, -1)),
        }
