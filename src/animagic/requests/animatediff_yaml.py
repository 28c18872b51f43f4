"""Requests that an original inference file of AnimateDiff describes: one for every prompt of every entry."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, MediaError
from ..media import contact_sheet, iter_video, probe, read_metadata, resize, write_image
from ..systems.animatediff.denoiser import AnimateDiffSampling
from ..systems.animatediff.original import Entry, normalised, read_entries
from .animatediff import AnimateDiffJob
from .carrying import generate, pipeline_for
from .kept import kept_seed
from .loading import be_quiet, default_device, refusing
from .request import Report, Request, Result, slug

FORMATS = ("mp4", "webm", "gif")
SHEET = "sheet.png"
_SHEET_COLUMNS = 8
# What the file itself says.
_FIXED = ("motion_module", "dreambooth", "embeddings", "controlnet", "loras", "motion_loras")


class YamlJob(AnimateDiffJob):
    """A request whose model is an entry of an original inference file."""

    def __init__(self, request: Request, live: Any = None):
        self.entry = _entry_of(request)
        defaults = Request("nothing", request.model)
        for name in _FIXED:
            if getattr(request, name) != getattr(defaults, name):
                option = name.removesuffix("s").replace("_", "-")
                raise InputError(f"{self.entry} says itself which weights are used: leave out --{option}.")
        super().__init__(request, live)

    @classmethod
    def input_files(cls, request: Request) -> dict[str, str]:
        found = _entry_of(request).files
        small = {name: found[name] for name in ("inference_config", "controlnet_config") if name in found}
        return super().input_files(request) | {"model": request.model} | small

    @classmethod
    def load(cls, request: Request, device: str | None, allow_pickle: bool, fitted: Any) -> Any:
        be_quiet()
        device, entry = device or default_device(), _entry_of(request)
        with refusing(device):
            torch.ones(1, device=device).item()  # before gigabytes are read
        on_gpu = torch.device(device).type == "cuda"
        half = on_gpu and not entry.options["--fp32"]
        pipe = entry.load(torch.float16 if half else torch.float32, allow_pickle=allow_pickle)
        pipe.set_progress_bar_config(disable=True)
        with refusing(device):
            return pipe.to(device)

    @classmethod
    def settings_of(cls, request: Request) -> AnimateDiffSampling:
        return AnimateDiffSampling(**_entry_of(request).sampling)

    def begin(self, pipe: Any) -> None:
        super().begin(pipe)
        if self.entry.fields["normalize_condition_images"]:
            size = (self.height, self.width)
            self.pictures = {
                frame: normalised(resize(picture[None], *size, "crop")[0]) for frame, picture in self.pictures.items()
            }


def _entry_of(request: Request) -> Entry:
    entries = read_entries(request.model, request.settings)
    if request.entry >= len(entries):
        raise InputError(f"{request.model} has no entry {request.entry}: it has {len(entries)}, counted from 0.")
    return entries[request.entry]


def requests_of(file: str | Path, settings: Iterable[str] = ()) -> list[Request]:
    """What an original inference file asks for: a request for every prompt of every entry, in their order.

    Args:
        settings: see `read_entries`.
    Seeds that the file leaves open are chosen. All that can be wrong with the files that it names, but weights that do
    not fit, is refused.
    Raises: InputError that names the entry and the field.
    """
    settings, made = tuple(settings), []
    for entry in read_entries(file, settings):
        entry.check()
        frames, height, width = entry.size
        for video in entry.videos:
            made.append(
                Request(
                    video.prompt,
                    str(file),
                    negative_prompt=video.negative_prompt,
                    frames=frames,
                    height=height,
                    width=width,
                    steps=entry.fields["steps"],
                    guidance=entry.fields["guidance_scale"],
                    controls=entry.controls,
                    settings=settings,
                    entry=entry.number,
                    seed=secrets.randbelow(2**32) if video.seed is None else video.seed,
                )
            )
    return made


def generate_all(
    file: str | Path,
    folder: str | Path,
    settings: Iterable[str] = (),
    *,
    format: str = "mp4",
    resume: bool = False,
    device: str | None = None,
    allow_pickle: bool = False,
    reporting: Callable[[int, int, Request], AbstractContextManager[Callable[[Report], None] | None]] | None = None,
) -> Iterator[Result]:
    """Make every video of an original inference file, `N-PROMPT.mp4` in a folder, and yield what came out of each; at
    the end, `sheet.png` shows them all, a row each.

    Args:
        settings: see `read_entries`.
        format: of FORMATS.
        resume: keep what is in the making, go on with it, and leave as they are videos that are finished.
        device, allow_pickle: see `generate`.
        reporting: called with a video's number, how many there are, and its request, gives a context in which it is
            made, and `on_report` for it.
    Raises: as `generate`; InputError for videos that are there already, without `resume`.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise InputError(f"the format {format!r} is unknown; choose {', '.join(FORMATS)}.")
    if folder.exists() and not folder.is_dir():
        raise MediaError(f"{folder} is a file; give a folder for the videos.")
    asked = requests_of(file, settings)
    paths = [folder / f"{i}-{slug(request.prompt)}.{format}" for i, request in enumerate(asked)]
    there = [path for path in paths if path.exists()]
    if there and not resume:
        raise InputError(
            f"{there[0]} is there already; choose another folder, or --resume to make only what is missing."
        )
    open_seeds = [video.seed is None for entry in read_entries(file, settings) for video in entry.videos]
    finished = {
        path: _finished(request, path, is_open)
        for request, path, is_open in zip(asked, paths, open_seeds, strict=True)
        if path in there
    }
    pipe, loaded = None, None
    for number, (request, path) in enumerate(zip(asked, paths, strict=True)):
        if path in finished:
            yield finished[path]
            continue
        if resume and open_seeds[number]:
            request = replace(request, seed=kept_seed(path))
        weights = _entry_of(request).weights
        with reporting(number, len(asked), request) if reporting else nullcontext() as on_report:
            if weights != loaded:
                pipe = None  # before the next is read
                pipe, loaded = pipeline_for(request, device, allow_pickle=allow_pickle), weights
            folder.mkdir(parents=True, exist_ok=True)
            yield generate(
                request, path, pipe=pipe, device=device, resume=resume, allow_pickle=allow_pickle, on_report=on_report
            )
    write_image(folder / SHEET, _sheet(paths))


def _finished(request: Request, path: Path, open_seed: bool) -> Result:
    """What a video that is there already is. Raises InputError if it was made from something else."""
    stored = Request.from_metadata(read_metadata(path), str(path))
    wanted = replace(request, seed=stored.seed) if open_seed else request
    other = [part.name for part in fields(Request) if getattr(stored, part.name) != getattr(wanted, part.name)]
    if other:
        name = other[0].replace("_", " ")
        raise InputError(f"{path} is there already, made with another {name}; choose another folder.")
    facts = probe(path)
    size = (facts["height"], facts["width"])
    return Result(str(path), facts["frames"], *size, facts["fps"], stored.seed, 0.0)


def _sheet(paths: Sequence[Path]) -> np.ndarray:
    """Evenly spaced frames of every video, a row each, uint8 (height, width, 3)."""
    clips = [np.stack(list(iter_video(path))) for path in paths]
    columns = min(_SHEET_COLUMNS, *(len(clip) for clip in clips))
    height, width = clips[0].shape[1:3]
    factor = min(1.0, 256 / max(height, width))
    size = (round(height * factor), round(width * factor))
    rows = [clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)] for clip in clips]
    return contact_sheet(np.concatenate([resize(row, *size, "pad") for row in rows]), columns, len(clips))
