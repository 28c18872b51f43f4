"""Requests for MAGI-1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...media import read_video
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

    @property
    def given_frames(self) -> int:
        """Frames of the clip that are whole latent frames."""
        return 0 if self.clip is None else len(self.clip) - len(self.clip) % self.frames_per_latent

    def default_frames(self) -> int:
        return super().default_frames() + self.given_frames

    def plan(self) -> Plan:
        return self.pipe.plan(**self.request.arguments(plan=True), endless=self.request.endless)

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {
            "endless": self.request.endless,
            "special_tokens": self.request.special_tokens,
            "negative_special_tokens": self.request.negative_special_tokens,
        }


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
