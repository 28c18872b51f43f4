"""MagicAnimate's networks and pipelines from published files. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

from ...errors import CheckpointError
from ...layers.inflation import arguments_for
from ...weights.files import PathLike, read_json, read_tensors
from ...weights.fit import check, fill, network_of
from ...weights.motion_module import original_names, read_motion_module, unet_arguments
from ...weights.places import FIND
from ...weights.stable_diffusion import StableDiffusion
from .appearance import AppearanceEncoder
from .unet import MagicAnimateUNet

VERSION = "v1"
"""The version of AnimateDiff whose motion modules it has."""
FILES = {
    "appearance_encoder": "appearance_encoder",
    "controlnet": "densepose_controlnet",
    "motion_module": "temporal_attention/temporal_attention.ckpt",
}
"""The parts that were published -> where they lie in their folder."""


def unet_from_config(config: Mapping[str, Any]) -> MagicAnimateUNet:
    """The UNet of an original configuration: fields of Stable Diffusion's UNet joined with `motion_module_kwargs` and
    `unet_additional_kwargs`. Raises: InputError for a field or value that is not known."""
    base, motion = unet_arguments({"version": VERSION, **config})
    return MagicAnimateUNet(**base, **motion)


def encoder_from_config(config: Mapping[str, Any]) -> AppearanceEncoder:
    """The appearance encoder of a configuration of Stable Diffusion's UNet. Raises InputError."""
    base, _ = unet_arguments(config)
    return AppearanceEncoder(**base)


def controlnet_from_config(config: Mapping[str, Any]) -> ControlNetModel:
    """The ControlNet of the configuration of a UNet that it steers, joined with its own fields."""
    return ControlNetModel(**arguments_for(ControlNetModel, config))


def completed(component: str, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a component, with what only its tensors say: how wide a ControlNet's first layers are."""
    embedding = "controlnet_cond_embedding."
    if component != "controlnet" or f"{embedding}conv_in.weight" not in tensors:
        return config
    widths = [tensors[f"{embedding}conv_in.weight"].shape[0]]
    blocks = (f"{embedding}blocks.{i}.weight" for i in range(1, 99, 2))
    widths += [tensors[name].shape[0] for name in blocks if name in tensors]
    return {"conditioning_embedding_out_channels": tuple(widths), **config}


COMPONENTS: dict[str, Any] = {
    "unet": unet_from_config,
    "appearance_encoder": encoder_from_config,
    "controlnet": controlnet_from_config,
}
"""The components that `animagic.checkpoints.from_original` can build; tensors go by `original_names`."""


def load_published(
    cls: type,
    base: PathLike,
    folder: PathLike | None = None,
    *,
    appearance_encoder: PathLike | None = None,
    controlnet: PathLike | None = None,
    motion_module: PathLike | None = None,
    vae: PathLike | None = None,
    config: PathLike | None = None,
    tokenizer: None = FIND,
    motion_config: Mapping[str, Any] | None = None,
    torch_dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
) -> Any:
    """A pipeline of class `cls` from published files; what `MagicAnimatePipeline.from_published` does.

    Args:
        base: Stable Diffusion 1.5: a file in Stability AI's layout, or a folder of diffusers.
        folder: of the three published parts, see FILES; appearance_encoder, controlnet (folders or files) and
            motion_module (a file) are used in place of those in it.
        vae: the folder of another autoencoder (sd-vae-ft-mse); None: that of the base.
        config: a folder of diffusers for what a single file lacks.
        tokenizer: None: do without text encoder and tokenizer.
        motion_config: arguments of MagicAnimateUNet in which the motion module differs from the published one.
        allow_pickle: read pickles (.ckpt); no code in them is run.
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    given = {"appearance_encoder": appearance_encoder, "controlnet": controlnet, "motion_module": motion_module}
    if folder is None and (missing := [name for name, place in given.items() if place is None]):
        raise CheckpointError(f"give the folder of the published parts of MagicAnimate, or {' and '.join(missing)}.")
    places = {name: Path(given[name] or Path(folder or "") / place) for name, place in FILES.items()}
    model = StableDiffusion(base, config, allow_pickle)
    parts: dict[str, Any] = {}
    if vae is not None:
        parts["vae"] = _network(AutoencoderKL, Path(vae), {}, torch_dtype, allow_pickle)
    if tokenizer is FIND:
        parts["tokenizer"] = model.tokenizer("tokenizer")
    for part in [*([] if vae else ["vae"]), *(["text_encoder"] if tokenizer is FIND else [])]:
        if part not in model.parts:
            raise CheckpointError(f"{base} has no {part}; take a whole text-to-image model as base.")
        network = model.network(part)
        parts[part] = fill(network, model.read(part, network), torch_dtype)
    like = model.config("unet")
    motion = read_motion_module(
        places["motion_module"], version=VERSION, config=motion_config, allow_pickle=allow_pickle
    )
    unet = network_of(MagicAnimateUNet, like | motion.config, f"the unet of {base}")
    motion.check_base(unet)
    parts["unet"] = fill(unet, model.read("unet", unet, without="motion_modules.") | motion.tensors, torch_dtype)
    for name, kind in (("appearance_encoder", AppearanceEncoder), ("controlnet", ControlNetModel)):
        parts[name] = _network(kind, places[name], like, torch_dtype, allow_pickle)
    return cls(**parts)


def _network(kind: Any, source: Path, otherwise: Mapping[str, Any], dtype: torch.dtype, allow_pickle: bool) -> Any:
    """A network from a folder of diffusers, or from a file with the configuration `otherwise`."""
    tensors = original_names(read_tensors(source, "diffusion_pytorch_model", allow_pickle))
    file = source / "config.json"
    config = read_json(file) if file.is_file() else otherwise
    known = arguments_for(UNet2DConditionModel if kind is AppearanceEncoder else kind, config)
    component = "controlnet" if kind is ControlNetModel else ""
    network = network_of(kind, completed(component, known, tensors), file if file.is_file() else source)
    check(network.state_dict(), tensors, source, hint=": is it for another base model?")
    return fill(network, tensors, dtype)
