"""`animagic convert` of the published parts of MagicAnimate and Stable Diffusion 1.5; in float32."""

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...weights import conversion
from ...weights.files import PathLike
from .pipeline import MagicAnimatePipeline
from .weights import FILES

OPTIONS = ("base", "vae")
"""Options of `animagic convert` for this system, besides `config` and `allow_pickle`."""


def takes(source: Path) -> bool:
    """Whether it may be the folder of the published parts."""
    return any((source / place).exists() for place in FILES.values())


def open_source(source: PathLike, base: PathLike | None = None, **files: Any) -> conversion.Opened:
    """The files to write; arguments and errors are those of `MagicAnimatePipeline.from_published`."""
    if base is None:
        raise InputError(f"{source} holds parts of MagicAnimate; give Stable Diffusion 1.5 as --base.")
    return conversion.Opened(MagicAnimatePipeline.from_published(base, source, **files))


convert = partial(conversion.convert, open_source)
