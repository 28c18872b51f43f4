"""Requests whose model is an entry of an original inference file of AnimateDiff."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...media import resize
from ...pipelines.job import Video
from ...pipelines.options import default_of, flag_of
from .denoiser import AnimateDiffSampling
from .job import AnimateDiffJob
from .options import AnimateDiffOptions
from .original import normalised, read_entries, read_entry

# What the file itself says.
_FIXED = ("motion_module", "dreambooth", "embeddings", "controlnet", "loras", "motion_loras")


class AnimateDiffOriginalJob(AnimateDiffJob):
    """A request whose model is an entry of an original inference file."""

    def __init__(self, request: Any, models: Any, live: Any = None):
        self.entry = read_entry(request.model, request.settings, request.entry)
        fields = AnimateDiffOptions.model_fields
        for name in _FIXED:
            if getattr(request, name) != default_of(fields[name]):
                flag = flag_of(name, fields[name])
                raise InputError(f"{self.entry} says itself which weights are used: leave out {flag}.")
        super().__init__(request, models, live)

    @classmethod
    def input_files(cls, request: Any, models: Any) -> dict[str, str]:
        found = read_entry(request.model, request.settings, request.entry).files
        small = {name: found[name] for name in ("inference_config", "controlnet_config") if name in found}
        return super().input_files(request, models) | {"model": request.model} | small

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        torch.ones(1, device=device).item()  # refused before gigabytes are read
        half = torch.device(device).type == "cuda" and not self.entry.options["--fp32"]
        return self.entry.load(torch.float16 if half else torch.float32, allow_pickle=allow_pickle).to(device)

    def settings(self) -> AnimateDiffSampling:
        return AnimateDiffSampling(**self.entry.sampling)

    def begin(self, pipe: Any) -> None:
        super().begin(pipe)
        if self.entry.fields["normalize_condition_images"]:
            size = (self.height, self.width)
            self.pictures = {
                frame: normalised(resize(picture[None], *size, "crop")[0]) for frame, picture in self.pictures.items()
            }


def videos_of(file: str | Path, settings: Iterable[str] = ()) -> Iterator[Video]:
    """The videos that an original inference file asks for: one for every prompt of every entry, in their order.

    Args:
        settings: see `read_entries`.
    All that can be wrong with the files that it names, but weights that do not fit, is refused.
    Raises: InputError that names the entry and the field.
    """
    settings = tuple(settings)
    entries = read_entries(file, settings)
    for entry in entries:
        entry.check()
    for entry in entries:
        frames, height, width = entry.size
        for prompt, negative, seed in entry.videos:
            request = AnimateDiffOptions(
                prompt=prompt,
                model=str(file),
                negative_prompt=negative,
                frames=frames,
                height=height,
                width=width,
                steps=entry.fields["steps"],
                guidance=entry.fields["guidance_scale"],
                controls=entry.controls,
                settings=settings,
                entry=entry.number,
                seed=secrets.randbelow(2**32) if seed is None else seed,
            )
            yield Video(request, entry.weights, open_seed=seed is None)
