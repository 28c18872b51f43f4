"""`animagic convert` of HunyuanVideo: a folder from which MagicInfinite's training starts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import AnimagicError, InputError
from ...weights import conversion
from ...weights.files import PathLike, SafetensorsFile, read_json
from ...weights.hunyuan_video import is_original
from .pipeline import MagicInfinitePipeline
from .weights import open_published

OPTIONS = ("base", "vae", "wav2vec")
"""Options of `animagic convert` for this system, besides `config` and `allow_pickle`."""


def takes(source: Path) -> bool:
    """Whether it may be HunyuanVideo in diffusers' layout, or the original file of its transformer."""
    try:
        if source.is_dir():
            return read_json(source / "model_index.json").get("_class_name", "").startswith("HunyuanVideo")
        if source.suffix == ".safetensors":
            return is_original(SafetensorsFile(source).entries)
    except AnimagicError:
        return False
    return source.name.endswith("_model_states.pt")


def open_source(
    source: PathLike, base: PathLike | None = None, config: PathLike | None = None, **files: Any
) -> conversion.Opened:
    """The files to write. base: HunyuanVideo in diffusers' layout, where the source is its transformer alone; config: a
    JSON file. The others, and the errors, are those of `MagicInfinitePipeline.from_published`."""
    if base is None and not Path(source).is_dir():
        raise InputError(f"{source} holds the transformer of HunyuanVideo; give a folder of the other parts as --base.")
    fields = None if config is None else read_json(Path(config), InputError)
    transformer = None if base is None else source
    return open_published(MagicInfinitePipeline, base or source, transformer=transformer, config=fields, **files)


convert = partial(conversion.convert, open_source)
