"""From the weights of a pipeline, however they came, to its folder in the layout of diffusers, part by part."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import MediaError
from ..media.files import atomic_path, check_writable
from .files import SHARD_BYTES, PathLike, Weights, disk_errors, write_shards
from .fit import Part


@dataclass(frozen=True)
class Opened:
    """A pipeline that was put together from files.

    Args:
        pipeline: with its networks; those in `parts` are on the meta device until they are loaded.
        parts: networks whose weights are still on disk, and are written as they are stored.
        model: which published model it is, where that was recognised.
    """

    pipeline: Any
    parts: Mapping[str, Part] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True)
class Converted:
    """The result of a conversion. model: which published one it is, if it was recognised; bytes: of its weights."""

    output: str
    model: str | None
    parts: tuple[str, ...]
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Written:
    """How far a conversion is, in bytes of weights."""

    part: str
    done: int
    total: int


def convert(
    open_source: Callable[..., Opened],
    source: Any,
    output: PathLike,
    *,
    on_written: Callable[[Written], None] = lambda written: None,
    shard_bytes: int = SHARD_BYTES,
    **options: Any,
) -> Converted:
    """Write the folder of a pipeline; it appears when it is whole.

    Args:
        open_source: called with `source` and `options` once it is known that `output` can be written.
        output: a folder that does not exist, or is empty.
        on_written: called after every file of weights.
        shard_bytes: the size of such a file, and about the most memory that is needed for it.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    began, target = time.monotonic(), Path(output)
    check_writable(target, folder=True)
    opened = open_source(source, **options)
    parts = {name: part for name, part in opened.pipeline.components.items() if part is not None}
    weights = {name: part.weights for name, part in opened.parts.items()}
    total = sum(weights[name].nbytes if name in weights else _nbytes(parts[name]) for name in parts)
    free = shutil.disk_usage(target.absolute().parent).free
    if free < total:
        raise MediaError(f"{output} needs {total / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free there.")
    done = 0
    with atomic_path(target, folder=True) as unfinished:
        unfinished.mkdir(exist_ok=True)
        for name, part in parts.items():

            def count(size: int, name: str = name) -> None:
                nonlocal done
                done += size
                on_written(Written(name, done, total))

            _write(part, weights.get(name), unfinished / name, count, shard_bytes)
        opened.pipeline.save_config(unfinished)
    return Converted(str(output), opened.model, tuple(sorted(parts)), total, round(time.monotonic() - began, 3))


def _write(part: Any, weights: Weights | None, folder: Path, count: Callable[[int], None], shard_bytes: int) -> None:
    if weights is None:
        with disk_errors(folder):
            part.save_pretrained(folder)
        if size := _nbytes(part):
            count(size)
        return
    folder.mkdir()
    if hasattr(part, "save_config"):
        part.save_config(folder)
        stem = "diffusion_pytorch_model"
    else:  # of transformers, which looks for other file names
        part.config.save_pretrained(folder)
        stem = "model"
    write_shards(weights.entries, weights.read(), folder, stem, count, shard_bytes)


def _nbytes(part: Any) -> int:
    return sum(tensor.nbytes for tensor in part.state_dict().values()) if isinstance(part, nn.Module) else 0
