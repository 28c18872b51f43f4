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


@dataclass(frozen=True)
class Opened:
    """A pipeline to be written.

    Args:
        pipeline: with its parts; those in `weights` may be on the meta device.
        weights: of the parts that are written as they are stored, in files of limited size.
        model: which published model it is, where that was recognised.
    """

    pipeline: Any
    weights: Mapping[str, Weights] = field(default_factory=dict)
    model: str | None = None

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.weights.values()) + sum(
            _nbytes(part) for name, part in self.pipeline.components.items() if name not in self.weights
        )


@dataclass(frozen=True)
class Converted:
    """What came out. model: which published model it is, where that was recognised; bytes: of its weights."""

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
    open_pipeline: Callable[[], Opened],
    output: PathLike,
    *,
    on_written: Callable[[Written], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Write the folder of a pipeline; it appears when it is whole.

    Args:
        open_pipeline: called once it is known that `output` can be written.
        output: a folder that does not exist, or is empty.
        on_written: called after every file of weights.
        shard_bytes: the size of such a file, and about the most memory that is needed for it.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    began, target = time.monotonic(), Path(output)
    check_writable(target, folder=True)
    opened = open_pipeline()
    total, free = opened.nbytes, shutil.disk_usage(target.absolute().parent).free
    if free < total:
        raise MediaError(f"{output} needs {total / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free there.")

    done = 0
    with atomic_path(target, folder=True) as unfinished:
        unfinished.mkdir()
        for name, component in opened.pipeline.components.items():

            def count(size: int, name: str = name) -> None:
                nonlocal done
                done += size
                if on_written is not None and size:
                    on_written(Written(name, done, total))

            if component is None:
                continue
            folder = unfinished / name
            if name in opened.weights:
                write_part(component, opened.weights[name], folder, count, shard_bytes)
            else:
                with disk_errors(folder):
                    component.save_pretrained(folder)
                count(_nbytes(component))
        opened.pipeline.save_config(unfinished)
    parts = tuple(sorted(folder.name for folder in target.iterdir() if folder.is_dir()))
    return Converted(str(output), opened.model, parts, total, round(time.monotonic() - began, 3))


def write_part(network: Any, weights: Weights, folder: Path, on_bytes: Callable[[int], None], shard_bytes: int) -> None:
    """Write the configuration of a network and its weights, which it need not hold, where its library looks for
    them."""
    folder.mkdir()
    of_diffusers = hasattr(network, "save_config")
    network.save_config(folder) if of_diffusers else network.config.save_pretrained(folder)
    stem = "diffusion_pytorch_model" if of_diffusers else "model"
    write_shards(weights.entries, weights.read(), folder, stem, on_bytes, shard_bytes)


def _nbytes(part: Any) -> int:
    return sum(tensor.nbytes for tensor in part.state_dict().values()) if isinstance(part, nn.Module) else 0
