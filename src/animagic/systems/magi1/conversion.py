"""From the published files of MAGI-1 to a pipeline folder, without ever holding the model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MediaError
from ...media.files import atomic_path, check_writable
from ...shards import SHARD_BYTES, write_shards
from .files import open_original
from .pipeline import Magi1Pipeline

# transformers looks for other file names than diffusers.
_STEMS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@dataclass(frozen=True)
class Converted:
    """What came out. model: which of the published models it is, where that was recognised."""

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
    source: Any,
    output: str | Path,
    *,
    on_written: Callable[[Written], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
    **places: Any,
) -> Converted:
    """Write the diffusers layout of a published model, in the dtypes in which it is stored.

    Args:
        source, places: as in `open_original`.
        output: a folder that does not exist, or is empty.
        on_written: called after every file of weights.
        shard_bytes: the size of such a file, and about the most memory that is needed.

    The folder appears when it is whole. Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt
    passes through.
    """
    began, target = time.monotonic(), Path(output)
    check_writable(target, folder=True)
    files = open_original(source, **places)
    free = shutil.disk_usage(target.absolute().parent).free
    if free < files.nbytes:
        raise MediaError(f"{output} needs {files.nbytes / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free there.")

    done = 0
    with atomic_path(target, folder=True) as unfinished:
        unfinished.mkdir()
        for name, part in files.parts.items():

            def count(size: int, name: str = name) -> None:
                nonlocal done
                done += size
                if on_written is not None:
                    on_written(Written(name, done, files.nbytes))

            folder, network = unfinished / name, part.network
            folder.mkdir()
            network.config.save_pretrained(folder) if name == "text_encoder" else network.save_config(folder)
            write_shards(part.weights, folder, _STEMS[name], count, shard_bytes)
        if files.tokenizer is not None:
            files.tokenizer.save_pretrained(unfinished / "tokenizer")
        if files.special_tokens is not None:
            files.special_tokens.save_pretrained(unfinished / "special_tokens")
        files.pipeline(Magi1Pipeline).save_config(unfinished)
    parts = tuple(sorted(folder.name for folder in target.iterdir() if folder.is_dir()))
    return Converted(str(output), files.name, parts, files.nbytes, round(time.monotonic() - began, 3))
