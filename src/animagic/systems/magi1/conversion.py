"""`animagic convert` of the published files of MAGI-1: a pipeline whose weights stay on disk until they are written."""

from functools import partial
from pathlib import Path

from ...weights import conversion
from .pipeline import Magi1Pipeline
from .weights import open_original

OPTIONS = ("vae", "t5", "special_tokens")
"""Options of `animagic convert` for this system, besides `config` and `allow_pickle`."""

convert = partial(conversion.convert, partial(open_original, Magi1Pipeline))


def takes(source: Path) -> bool:
    """Whether it may be a published transformer or its configuration."""
    return source.is_dir() or source.suffix == ".json"
