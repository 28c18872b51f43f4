"""Models by name, to the prediction of their memory, and loaded so that a video fits into a given amount of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import _ENTRIES, SYSTEMS, dtype_on, folder_of, load, names, resolve, system_of

if TYPE_CHECKING:
    import torch

    from ..pipelines.memory import Fit, Networks


def networks_in(system: str) -> type[Networks]:
    """What a system adds to the prediction of memory."""
    return importlib.import_module(f"..systems.{system}.memory", __package__).MemoryNetworks


def networks_of(model: str, dtype: torch.dtype) -> Networks:
    """The networks of a model, in that dtype: a published one ("magi1-4.5b", "24B_distill_quant", ...), an original
    configuration (.json), a name that `animagic models` lists, or a folder. Raises InputError, CheckpointError."""
    networks: Networks | None = None
    if model in _ENTRIES or Path(model).is_dir():
        base = _ENTRIES[model].base if model in _ENTRIES else None
        others = None if base is None else Path(resolve(base))
        networks = networks_in(system_of(model)).of_folder(Path(resolve(model)), dtype, others)
    else:
        kinds = [networks_in(system) for system in SYSTEMS]
        networks = next(filter(None, (kind.of_published(model, dtype) for kind in kinds)), None)
        if networks is None:
            published = [name for kind in kinds for choices in kind.published.values() for name in choices.values()]
            raise InputError(
                f"there is no model {model!r} here; give a folder, {', '.join(_ENTRIES)}, "
                f"or a published model: {', '.join(published)}."
            )
    networks.model = model
    return networks


def fit(
    model: str,
    budget: int,
    device: str,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    num_steps: int | None = None,
    *,
    drop_text: bool = True,
    tiling: bool = False,
) -> Fit:
    """Choose what makes a video fit into `budget` bytes on a device.

    Args:
        model: what `zoo.load` takes; height, width, num_frames, num_steps: None: the model's own.
        drop_text: whether the text encoder may go before the video is made.
        tiling: whether the autoencoder works in tiles anyway.
    Raises: InputError, CheckpointError.
    """
    import torch

    from ..pipelines.memory import Predictor

    if model.endswith(".json"):
        raise InputError(f"a budget of memory needs a model folder; make one from {model} with animagic convert.")
    if model not in names():
        model = str(folder_of(model))
    kind, networks = torch.device(device).type, networks_of(model, dtype_on(model, device))
    torch.ones(1, device=device).item()  # refuses a device that is not there before anything is loaded
    predictor = Predictor(networks, kind, height, width, num_frames, num_steps, tight=True)
    return predictor.fit(budget, drop_text=drop_text, tiling=tiling)


def load_fitting(fitted: Fit, device: str, texts: Sequence[str]) -> Any:
    """The pipeline of a model on a device, made to fit. texts: every prompt that will be asked for."""
    from ..pipelines import memory

    model = fitted.networks.model
    return memory.load_fitting(fitted, partial(load, model, dtype=dtype_on(model, device)), device, texts)
