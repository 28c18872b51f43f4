"""Published checkpoints: from their original parameter names to modules of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, InputError

if TYPE_CHECKING:
    import torch


def _builders() -> dict[tuple[str, str], Callable[[Mapping[str, Any]], Any]]:
    from .systems.animatediff.checkpoint import sparse_controlnet_from_config, unet_from_config
    from .systems.magi1.checkpoint import autoencoder_from_config, transformer_from_config

    return {
        ("magi1", "transformer"): transformer_from_config,
        ("magi1", "vae"): autoencoder_from_config,
        ("animatediff", "unet"): unet_from_config,
        ("animatediff", "sparse_controlnet"): sparse_controlnet_from_config,
    }


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
    builders = _builders()
    if (system, component) not in builders:
        known = ", ".join(" ".join(key) for key in builders)
        raise InputError(f"{system} {component} is unknown; known are {known}.")
    module = builders[system, component](config)
    if system == "animatediff":
        from .systems.animatediff.checkpoint import original_names

        state_dict = original_names(state_dict)
    load_strictly(module, state_dict, f"{system} {component}")
    return module.eval()


def load_strictly(module: torch.nn.Module, state_dict: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy every tensor; raises CheckpointError that names the first that does not fit."""
    expected = module.state_dict()
    for name, ours in expected.items():
        if name not in state_dict:
            raise CheckpointError(f"the {what} checkpoint lacks the tensor {name}.")
        if state_dict[name].shape != ours.shape:
            given, wanted = list(state_dict[name].shape), list(ours.shape)
            raise CheckpointError(f"the {what} tensor {name} has shape {given}; {wanted} is needed.")
    for name in state_dict:
        if name not in expected:
            raise CheckpointError(f"the {what} checkpoint has an unexpected tensor {name}.")
    module.load_state_dict(dict(state_dict))
