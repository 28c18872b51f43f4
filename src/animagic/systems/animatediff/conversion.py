"""`animagic convert` of a motion module and a text-to-image model, as they are shared; in float32."""

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...weights import conversion
from ...weights.files import SUFFIXES, PathLike
from .pipeline import AnimateDiffPipeline

OPTIONS = ("base", "dreambooth", "version")
"""Options of `animagic convert` for this system, besides `config` and `allow_pickle`."""


def takes(source: Path) -> bool:
    """Whether it may be a motion module."""
    return source.suffix in SUFFIXES and not source.is_dir()


def open_source(source: PathLike, base: PathLike | None = None, **files: Any) -> conversion.Opened:
    """The files to write; arguments and errors are those of `AnimateDiffPipeline.from_published`."""
    if base is None:
        raise InputError(
            f"{source} is taken for a motion module; give the text-to-image model that it is to animate as --base."
        )
    return conversion.Opened(AnimateDiffPipeline.from_published(base, source, **files))


convert = partial(conversion.convert, open_source)
