"""The networks of a model without their weights: what predictions of memory and time are made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, InputError
from ..systems import SYSTEMS
from . import _MODELS, resolve, system_of

if TYPE_CHECKING:
    import torch

    from ..systems.magi1.counting import Networks


def networks_of(model: str, dtype: torch.dtype) -> Networks:
    """The networks of a model, in that dtype: a published one ("magi1-4.5b", "24B_distill_quant", ...), an original
    configuration (.json), a name that `animagic models` lists, or a folder. Raises InputError, CheckpointError."""
    from ..systems.magi1.counting import Networks
    from ..systems.magi1.published import NAMES, config_of

    if (model in _MODELS or Path(model).is_dir()) and (system := system_of(model)) != "magi1":
        raise InputError(
            f"memory and time are predicted for MAGI-1 only, and {model} is a model of {SYSTEMS[system].title}."
        )
    if model in _MODELS:
        base = _MODELS[model].base
        return Networks.of_folder(resolve(model), dtype, None if base is None else resolve(base))
    if model.endswith(".json"):
        try:
            config = json.loads(Path(model).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the configuration {model} cannot be read: {error}.") from error
        return Networks.published(config, dtype)
    if Path(model).is_dir():
        return Networks.of_folder(resolve(model), dtype)
    try:
        config = config_of(model)
    except InputError:
        raise InputError(
            f"there is no model {model!r} here; give a folder, {', '.join(_MODELS)}, "
            f"or a published model: {', '.join(NAMES)}."
        ) from None
    return Networks.published(config, dtype)
