"""Requests whose model is a published configuration of MagicAnimate."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...pipelines.job import Video
from .denoiser import MagicAnimateSampling
from .job import MagicAnimateJob
from .options import MagicAnimateOptions
from .original import read_config
from .poses import GivenPoses


class MagicAnimateOriginalJob(MagicAnimateJob):
    """A request whose model is a published configuration, sampled as the published code does."""

    def __init__(self, request: Any, models: Any, live: Any = None):
        self.published = read_config(request.model, request.settings)
        super().__init__(request, models, live)

    @classmethod
    def input_files(cls, request: Any, models: Any) -> dict[str, str]:
        found = read_config(request.model, request.settings).files
        return (
            super().input_files(request, models)
            | {"model": request.model}
            | {"inference_config": found["inference_config"]}
        )

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        torch.ones(1, device=device).item()  # refused before gigabytes are read
        half = torch.device(device).type == "cuda" and not self.published.options["--fp32"]
        return self.published.load(torch.float16 if half else torch.float32, allow_pickle=allow_pickle).to(device)

    def settings(self) -> MagicAnimateSampling:
        return MagicAnimateSampling(**self.published.sampling)

    def begin(self, pipe: Any) -> None:
        super().begin(pipe)
        # Its last pose is repeated until the windows come out even; what is made of that is not shown.
        window = self.published.fields["L"]
        if isinstance(self.poses, GivenPoses) and (missing := -len(self.poses) % window):
            self.poses = GivenPoses(np.concatenate([self.poses.frames, self.poses.frames[-1:].repeat(missing, 0)]))

    def arguments(self) -> dict[str, Any]:
        fields = self.published.fields
        stride = {"context_stride": fields["S"], "clip_sample": True, "num_frames": len(self.poses)}
        return super().arguments() | stride


def videos_of(file: str | Path, settings: Iterable[str] = ()) -> Iterator[Video]:
    """The videos that a published configuration asks for, in their order.

    Args:
        settings: see `read_config`.
    All that can be wrong with the files that it names, but weights that do not fit, is refused.
    Raises: InputError that names the field.
    """
    settings = tuple(settings)
    config = read_config(file, settings)
    config.check()
    for picture, video, seed in config.videos:
        request = MagicAnimateOptions(
            model=str(file),
            image=picture,
            video=video,
            offset=config.fields["offset"],
            frames=config.fields["max_length"],
            fit="stretch",
            settings=settings,
            seed=secrets.randbelow(2**32) if seed is None else seed,
        )
        yield Video(request, config.files, open_seed=seed is None)
