"""Requests for MAGI-1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...media import read_video, resize
from ...media.outputs import Chunk, in_form
from ...pipelines.continuing import KeptLatents
from ...pipelines.job import Job
from ...timeline import Plan
from . import original
from .weights import read_special_tokens

CLIP_FRAMES = 32
"""Frames of a given clip that are continued, as in the published code."""


class Magi1Job(Job):
    """A request for text, image or video to video with MAGI-1."""

    plans = {"staircase": "the model's own"}
    can_be_endless = True
    can_be_continued = True
    before: KeptLatents | None = None
    """Of the video that is continued."""

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        return self.with_special_tokens(super().read(device, allow_pickle, fitted))

    def with_special_tokens(self, pipe: Any) -> Any:
        if self.request.special_token_file is not None:
            channels = pipe.transformer.config.caption_channels
            table = read_special_tokens(Path(self.request.special_token_file), channels)
            pipe.register_modules(special_tokens=table)
        return pipe

    def read_clip(self, path: str) -> np.ndarray:
        # As many frames as the published code takes, but the last ones: the video goes on where the clip ends.
        last = self.request.video_part != "first"
        return read_video(path, fps=self.fps, max_frames=CLIP_FRAMES, last=last).frames

    def begin(self, pipe: Any) -> None:
        super().begin(pipe)
        if self.request.video_part == "first":
            self.hidden = self.given_frames
        if self.request.latents is not None:
            self.before = KeptLatents(Path(self.request.latents))
            self._check_before()

    def _check_before(self) -> None:
        """Raises InputError for latents of another size, and for a video that does not go beyond them."""
        assert self.before is not None
        found, ratio = tuple(self.before.timeline(self.request.latent_frames).shape[1:]), self.pipe.pixels_per_latent
        wanted = self.pipe.latent_channels, self.request.latent_frames, self.height // ratio, self.width // ratio
        if found != wanted:
            raise InputError(
                f"the video that is continued has latents {found}, the model and size asked for {wanted}: "
                "continue it with the same model, in the same size."
            )
        if self.request.frames <= self._frames_before:
            raise InputError(
                f"the video that is continued already has {self._frames_before} frames; ask for more than that."
            )

    @property
    def _frames_before(self) -> int:
        """Frames of the video that is continued; a single latent frame is an image, whose frames are made anew."""
        return self.request.latent_frames * self.frames_per_latent if self.request.latent_frames > 1 else 0

    @property
    def given_frames(self) -> int:
        """Frames of the clip that are whole latent frames."""
        return 0 if self.clip is None else len(self.clip) - len(self.clip) % self.frames_per_latent

    def default_frames(self) -> int:
        return super().default_frames() + self.given_frames

    def plan(self) -> Plan:
        return self.pipe.plan(**self.request.arguments(plan=True), endless=self.request.endless)

    def arguments(self) -> dict[str, Any]:
        given = super().arguments() | {
            "endless": self.request.endless,
            "special_tokens": self.request.special_tokens,
            "negative_special_tokens": self.request.negative_special_tokens,
        }
        if self.before is not None:
            given |= {"image": None, "video": None, "num_frames": self.request.frames - self._frames_before}
            given["prefix_latents"] = self.before.timeline(self.request.latent_frames)
        return given

    def stream(self, *watched: Any) -> Iterator[Chunk]:
        if self.before is not None and self._frames_before:
            yield from self._shown_before()
        for chunk in super().stream(*watched):
            yield replace(chunk, start=chunk.start + (0 if self.before is None else self._frames_before))

    def _shown_before(self) -> Iterator[Chunk]:
        """The frames of the video that is continued, decoded as they were then."""
        assert self.before is not None
        size, given = (self.height, self.width), self.given_frames
        for piece in self.before.pieces(self.request.latent_frames):
            start, count = (x * self.frames_per_latent for x in (piece.start, piece.count))
            skipped = (piece.start - piece.first) * self.frames_per_latent
            if start < given:  # a clip, which is shown as it was given
                assert self.clip is not None
                clip = resize(self.clip[len(self.clip) - given :], *size, self.request.fit)
                pixels = torch.from_numpy(clip)[None].permute(0, 1, 4, 2, 3).float() / 255
            else:
                with torch.no_grad():
                    pixels = self.pipe.decode_frames(piece.latents)[:, skipped:][:, :count]
            yield Chunk(in_form(pixels, "np"), start, self.fps, piece.latents, skipped)


class Magi1OriginalJob(Magi1Job):
    """A request whose model is an original configuration file."""

    places_parts = True

    @classmethod
    def input_files(cls, request: Any, models: Any) -> dict[str, str]:
        return {"model": request.model} | super().input_files(request, models)

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        pipe = original.load_pipeline(
            self.request.model, self.request.settings, device=device, allow_pickle=allow_pickle
        )
        return self.with_special_tokens(pipe)
