"""From the published files of MAGI-1 to a pipeline folder, without ever holding the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...weights import conversion
from ...weights.files import SHARD_BYTES, PathLike
from .pipeline import Magi1Pipeline
from .weights import FIND, open_original


def convert(
    source: Any,
    output: PathLike,
    *,
    config: Any = None,
    vae: PathLike | None = FIND,
    t5: PathLike | None = FIND,
    special_tokens: PathLike | None = FIND,
    allow_pickle: bool = False,
    on_written: Callable[[conversion.Written], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
    **places: Any,
) -> conversion.Converted:
    """Write the folder of a published model, in the dtypes in which it is stored.

    Args:
        source, config, vae, t5, special_tokens, allow_pickle, places: see `open_original`.
        output, on_written, shard_bytes: see `weights.conversion.convert`.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    places |= {"vae": vae, "t5": t5, "special_tokens": special_tokens, "allow_pickle": allow_pickle}

    def open_pipeline() -> conversion.Opened:
        files = open_original(source, config=config, **places)
        weights = {name: part.weights for name, part in files.parts.items()}
        return conversion.Opened(files.pipeline(Magi1Pipeline), weights, files.name)

    return conversion.convert(open_pipeline, output, on_written=on_written, shard_bytes=shard_bytes)
