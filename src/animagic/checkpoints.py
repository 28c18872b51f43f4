"""Published checkpoints: from their original parameter names to modules of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .systems import SYSTEMS

if TYPE_CHECKING:
    import torch


def from_original(
    system: str, component: str, state_dict: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> torch.nn.Module:
    """Build a network from original weights: float32, on the CPU, ready for inference.

    Args:
        system, component: "magi1" with "transformer" or "vae", "animatediff" with "unet" or "sparse_controlnet",
            "magicanimate" with "unet", "appearance_encoder" or "controlnet", "magicinfinite" with "transformer".
        state_dict: tensors under their original names; of MagicInfinite, whose weights were not published, those of
            HunyuanVideo, under their original names or those of diffusers.
        config: for a transformer the original JSON (`model_config`, `runtime_config`, `engine_config`), for a vae its
            `ddconfig`; for a unet the fields of Stable Diffusion's UNet joined with `version` ("v1", "v2", "v3" or
            "sdxl") and `motion_module_kwargs`, for a sparse_controlnet joined with its own and `motion_module_kwargs`;
            for an appearance_encoder or controlnet of MagicAnimate those of the UNet; for MagicInfinite those of
            HunyuanVideo's transformer in diffusers, joined with those of ours.
    Raises: InputError for a component that is not known, CheckpointError for a missing, unexpected or wrongly shaped
        tensor, which it names.
    """
    from .weights.fit import check

    rooms = {row.name: row.room("weights") for row in SYSTEMS.values() if "weights" in row.rooms}
    weights = rooms.get(system)
    if weights is None or component not in weights.COMPONENTS:
        known = ", ".join(f"{name} {part}" for name, room in rooms.items() for part in room.COMPONENTS)
        raise InputError(f"{system} {component} is unknown; known are {known}.")
    if hasattr(weights, "completed"):
        config = weights.completed(component, config, state_dict)
    module = weights.COMPONENTS[component](config)
    if hasattr(weights, "original_names"):
        state_dict = weights.original_names(state_dict)
    if hasattr(weights, "completed_tensors"):
        state_dict = weights.completed_tensors(module, state_dict)
    check(module.state_dict(), state_dict, f"the {system} {component}", same_kind=False)  # values are copied
    module.load_state_dict(dict(state_dict))
    return module.eval()
