"""Personalising a model by name: what the command line and the web app share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import zoo
from .errors import InputError

if TYPE_CHECKING:
    from .systems.animatediff.personalize import OnProgress, Personalisation

DEFAULT = "animatediff-tiny"


def personalize(
    settings: Personalisation,
    output: str | Path,
    *,
    model: str | Path = DEFAULT,
    resume: bool = False,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Let a model (a zoo name, a folder or a hub id) learn from a few pictures; returns `output`.

    See `animagic.systems.animatediff.personalize`, whose arguments these are; `threads` of the processor to use.
    Raises: InputError, CheckpointError, MediaError.
    """
    import torch

    from .systems.animatediff.personalize import personalize as run

    if threads is not None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}.")
        torch.set_num_threads(threads)
    return run(settings, zoo.resolve(model), output, resume=resume, on_progress=on_progress)
