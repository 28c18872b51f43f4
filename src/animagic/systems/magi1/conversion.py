"""`animagic convert` of the published files of MAGI-1: a pipeline whose weights stay on disk until they are written."""

from functools import partial
from pathlib import Path
from typing import Any

from ...weights import conversion
from .pipeline import Magi1Pipeline
from .weights import open_original

OPTIONS = ("vae", "t5", "special_tokens")
"""Options of `animagic convert` for this system, besides `config` and `allow_pickle`."""


def takes(source: Path) -> bool:
    """Whether it may be a published transformer or its configuration."""
    return source.is_dir() or source.suffix == ".json"


def open_source(source: Any, **places: Any) -> conversion.Opened:
    """The files to write, in the dtypes in which it is stored; arguments and errors are those of `open_original`."""
    files = open_original(source, **places)
    weights = {name: part.weights for name, part in files.parts.items()}
    return conversion.Opened(files.pipeline(Magi1Pipeline), weights, files.name)


convert = partial(conversion.convert, open_source)
