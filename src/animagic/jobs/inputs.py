"""What a request brings along: checked against the limits, and copied into the job's folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..media.headers import Header, read_header
from ..pipelines.continuing import KeptLatents
from ..pipelines.options import VideoOptions, option_of
from .errors import TooLarge
from .settings import Limits

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".npz", ".zst", ".yaml")
"""Names of files that hold a model or a part of it: they stay where they are."""


def is_input(path: str) -> bool:
    """Whether a file that a request names belongs to this request alone."""
    return Path(path).is_file() and not path.lower().endswith(WEIGHTS)


def with_files(request: VideoOptions, change: Callable[[str], str]) -> VideoOptions:
    """The request with the path of every input file changed."""
    changes: dict[str, Any] = {}
    for name, info in type(request).model_fields.items():
        option, value = option_of(info), getattr(request, name)
        if option is None or option.file is None or not value:
            continue
        if isinstance(value, str):
            changes[name] = change(value) if is_input(value) else value
        elif isinstance(value, tuple):
            changes[name] = tuple(change(path) if is_input(path) else path for path in value)
        elif all(isinstance(path, str) for path in value.values()):
            changes[name] = {key: change(path) if is_input(path) else path for key, path in value.items()}
    return request.changed(**changes)


def copied(request: VideoOptions, folder: Path) -> VideoOptions:
    """The request with copies of its input files in a folder."""
    known: dict[str, str] = {}

    def copy(path: str) -> str:
        if path not in known:
            folder.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^\w.-]", "_", Path(path).name)[-80:]
            target = folder / f"{len(known)}-{name}"
            shutil.copyfile(path, target)
            known[path] = str(target)
        return known[path]

    request = with_files(request, copy)
    if (latents := getattr(request, "latents", None)) is None:
        return request
    KeptLatents(Path(latents)).copy(folder / "latents", request.latent_frames)  # type: ignore[attr-defined]
    return request.changed(latents=str(folder / "latents"))


def fingerprint(request: VideoOptions, **more: Any) -> str:
    """What two requests have in common that ask for the same, wherever their files lie. A seed counts if given."""

    def content(path: str) -> str:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    seed = {} if "seed" in request.model_fields_set else {"seed": None}
    stored = with_files(request, content).stored() | seed | more
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def check_limits(request: VideoOptions, limits: Limits) -> None:
    """Raises InputError for a video, or an input file, beyond the limits. Nothing of a file but its head is decoded."""
    if request.frames is not None and request.frames > limits.frames:
        raise InputError(f"{request.frames} frames are asked for; this server makes at most {limits.frames}.")
    if request.height and request.width and request.height * request.width > limits.pixels:
        raise InputError(
            f"{request.width}x{request.height} pixels are asked for; this server makes at most {limits.pixels} a frame."
        )
    for _, called, path in request.files():
        if is_input(path):
            check_file(Path(path), f"the {called}", limits)


def check_file(path: Path, called: str, limits: Limits) -> Header:
    """What a file is. Raises TooLarge for one beyond the limits, MediaError for what holds nothing to see or hear."""
    size = path.stat().st_size
    if size > limits.upload:
        raise TooLarge(f"{called} has {size} bytes; this server takes at most {limits.upload}.")
    header = read_header(path)
    if header.pixels > limits.pixels:
        raise TooLarge(f"{called} has {header.pixels} pixels a frame; this server takes at most {limits.pixels}.")
    if header.frames > limits.frames:
        raise TooLarge(f"{called} has {header.frames} frames; this server takes at most {limits.frames}.")
    if header.seconds > limits.seconds:
        raise TooLarge(f"{called} lasts {header.seconds:.0f} s; this server takes at most {limits.seconds:g} s.")
    return header
