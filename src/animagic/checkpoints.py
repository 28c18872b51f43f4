"""Published checkpoints: from their original parameter names to modules of ours."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    import torch


def from_original(
    system: str, component: str, state_dict: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> torch.nn.Module:
    """Build a network from original weights: float32, on the CPU, ready for inference.

    Args:
        system, component: "magi1" with "transformer" or "vae", "animatediff" with "unet" or "sparse_controlnet".
        state_dict: tensors under their original names.
        config: for a transformer the original JSON (`model_config`, `runtime_config`, `engine_config`), for a vae its
            `ddconfig`; for a unet the fields of Stable Diffusion's UNet joined with `version` ("v1", "v2", "v3" or
            "sdxl") and `motion_module_kwargs`, for a sparse_controlnet joined with its own and `motion_module_kwargs`.
    Raises: InputError for a component that is not known, CheckpointError for a missing, unexpected or wrongly shaped
        tensor, which it names.
    """
    from . import systems
    from .weights.fit import check

    names = [found.name for found in pkgutil.iter_modules(systems.__path__) if found.ispkg]
    weights: Any = _weights_of(system) if system in names else None
    if weights is None or component not in weights.COMPONENTS:
        known = ", ".join(f"{name} {part}" for name in names for part in _weights_of(name).COMPONENTS)
        raise InputError(f"{system} {component} is unknown; known are {known}.")
    module = weights.COMPONENTS[component](config)
    if hasattr(weights, "original_names"):
        state_dict = weights.original_names(state_dict)
    check(module.state_dict(), state_dict, f"the {system} {component}", same_kind=False)  # values are copied
    module.load_state_dict(dict(state_dict))
    return module.eval()


def _weights_of(system: str) -> Any:
    return importlib.import_module(f"animagic.systems.{system}.weights")
