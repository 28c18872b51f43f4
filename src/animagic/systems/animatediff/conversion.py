"""From a motion module and a text-to-image model, as they are shared, to a pipeline folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import InputError
from ...weights import conversion
from ...weights.files import PathLike
from .pipeline import AnimateDiffPipeline


def convert(
    source: PathLike,
    output: PathLike,
    *,
    base: PathLike | None = None,
    dreambooth: PathLike | None = None,
    version: str | None = None,
    config: PathLike | None = None,
    allow_pickle: bool = False,
    on_written: Callable[[conversion.Written], None] | None = None,
    **files: Any,
) -> conversion.Converted:
    """Write the folder of a pipeline, in float32; it appears when it is whole.

    Args:
        source: the motion module.
        output, on_written: see `weights.conversion.convert`.
        base, dreambooth, version, config, allow_pickle, files: see `AnimateDiffPipeline.from_published`.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    if base is None:
        raise InputError(
            f"{source} is taken for a motion module; give the text-to-image model that it is to animate as --base."
        )
    files |= {"dreambooth": dreambooth, "version": version, "config": config, "allow_pickle": allow_pickle}

    def open_pipeline() -> conversion.Opened:
        return conversion.Opened(AnimateDiffPipeline.from_published(base, source, **files))

    return conversion.convert(open_pipeline, output, on_written=on_written)
