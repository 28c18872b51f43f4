"""From a motion module and a picture model, as they are shared, to a pipeline folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...media.files import atomic_path, check_writable
from .files import PathLike
from .pipeline import AnimateDiffPipeline


@dataclass(frozen=True)
class Converted:
    """What came out. parts: its folders; bytes: of its weights."""

    output: str
    parts: tuple[str, ...]
    bytes: int
    seconds: float


def convert(motion_module: PathLike, output: PathLike, *, base: PathLike, **files: Any) -> Converted:
    """Write the diffusers layout of a pipeline, in float32; it appears when it is whole.

    Args:
        output: a folder that does not exist, or is empty.
        base, files: as in `files.load_published`.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    began, target = time.monotonic(), Path(output)
    check_writable(target, folder=True)
    pipe = AnimateDiffPipeline.from_published(base, motion_module, **files)
    with atomic_path(target, folder=True) as unfinished:
        pipe.save_pretrained(unfinished)
    parts = tuple(sorted(folder.name for folder in target.iterdir() if folder.is_dir()))
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    return Converted(str(output), parts, size, round(time.monotonic() - began, 3))
