"""AnimateDiff's networks from the original configurations, and the names that published files have for its tensors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from diffusers import ControlNetModel, UNet2DConditionModel

from ...errors import InputError
from .published import VERSIONS
from .sparse import SparseControlNet
from .unet import AnimateDiffUNet

# Original names -> ours.
_MODULE_FIELDS = {
    "num_attention_heads": "motion_num_attention_heads",
    "num_transformer_block": "motion_num_transformer_blocks",
    "attention_block_types": "motion_attention_block_types",
    "temporal_position_encoding_max_len": "motion_max_length",
    "temporal_attention_dim_div": "motion_attention_dim_div",
}
_FLAGS = {
    "motion_module_resolutions": "motion_resolutions",
    "motion_module_mid_block": "motion_mid_block",
    "motion_module_decoder_only": "motion_decoder_only",
}
# Fields that only one value is known of.
_FIXED: dict[str, Any] = {
    "use_motion_module": True,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "cross_frame_attention_mode": None,
}
_SPARSE = (
    "conditioning_channels",
    "use_simplified_condition_embedding",
    "concate_conditioning_mask",
    "set_noisy_sample_input_to_zero",
    "conditioning_embedding_out_channels",
)

T = TypeVar("T")


def motion_config(
    version: str | None = None, module: Mapping[str, Any] | None = None, flags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The motion part of AnimateDiffUNet's arguments.

    Args:
        version: of VERSIONS, which the other two change; None: they say everything.
        module: the original `motion_module_kwargs`. flags: the rest of the original `unet_additional_kwargs`.
    Raises: InputError for a version, field or value that is not known.
    """
    if version is not None and version not in VERSIONS:
        raise InputError(f"AnimateDiff {version!r} is unknown; choose {', '.join(VERSIONS)}.")
    made = dict(VERSIONS[version]) if version is not None else {}
    module, flags = dict(module or {}), dict(flags or {})
    module.pop("zero_initialize", None)  # of no matter once it is trained
    positions = module.pop("temporal_position_encoding", True)
    for fields, given, where in ((_MODULE_FIELDS, module, "motion_module_kwargs"), (_FLAGS, flags, "the UNet")):
        for name, value in given.items():
            if name in fields:
                made[fields[name]] = tuple(value) if isinstance(value, list) else value
            elif name == "use_inflated_groupnorm":
                made["joint_group_norm"] = not value
            elif name not in _FIXED:
                raise InputError(f"the configuration of {where} has an unknown field {name!r}.")
            elif value != _FIXED[name]:
                raise InputError(f"{name} is {value!r}; only {_FIXED[name]!r} is supported.")
    if not positions:
        made["motion_max_length"] = 0
    return made


def unet_from_config(config: Mapping[str, Any]) -> AnimateDiffUNet:
    """The UNet of an original configuration: fields of Stable Diffusion's UNet joined with `version` and
    `motion_module_kwargs`, and with `unet_additional_kwargs` fields that differ from the version's.

    Raises: InputError for a field or value that is not known.
    """
    base, motion = _split(config)
    return AnimateDiffUNet(**base, **motion)


def sparse_controlnet_from_config(config: Mapping[str, Any]) -> SparseControlNet:
    """The SparseCtrl network of an original configuration: fields of the UNet that it steers, joined with those of its
    own and with `motion_module_kwargs`.

    Raises: InputError for a field or value that is not known.
    """
    # It has one attention a module whatever the UNet has, none in the middle, and norms of single frames.
    ignored = {"version", "motion_module_mid_block", "use_inflated_groupnorm"}
    fields = {name: value for name, value in config.items() if name not in ignored}
    own = {name: fields.pop(name) for name in _SPARSE if name in fields}
    base, motion = _split(fields)
    motion.pop("motion_attention_block_types", None)
    encoder = set(inspect.signature(ControlNetModel).parameters)
    return SparseControlNet(**{name: value for name, value in base.items() if name in encoder}, **own, **motion)


def _split(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The picture model's and the motion modules' arguments."""
    fields = {name: value for name, value in config.items() if not name.startswith("_")}
    version, module = fields.pop("version", None), fields.pop("motion_module_kwargs", {})
    flags = {name: fields.pop(name) for name in [*_FLAGS, *_FIXED, "use_inflated_groupnorm"] if name in fields}
    known = set(inspect.signature(UNet2DConditionModel).parameters)
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InputError(f"the configuration has an unknown field {unknown[0]!r}.")
    # Blocks are called 3D in the original, and do what the 2-D ones do to every frame.
    flat = {name: _flat(value) if name.endswith(("_types", "_type")) else value for name, value in fields.items()}
    return flat, motion_config(version, module, flags)


def _flat(blocks: Any) -> Any:
    if isinstance(blocks, (list, tuple)):
        return tuple(_flat(block) for block in blocks)
    return blocks.replace("3D", "2D") if isinstance(blocks, str) else blocks


def original_names(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Without what trainers put before names (`module.`), and without the tables of positions, which are computed."""
    named = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return {name: tensor for name, tensor in named.items() if not name.endswith((".pos_encoder.pe", ".pos_embed.pe"))}


def motion_name(name: str) -> str:
    """The published name of a motion module's tensor or layer that may have diffusers' name; others stay."""
    if "motion_modules." not in name or ".temporal_transformer." in name:
        return name
    name = re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", name)
    name = re.sub(r"(transformer_blocks\.\d+\.)norm3\b", r"\1ff_norm", name)
    name = re.sub(r"(transformer_blocks\.\d+\.)norm(\d)\b", lambda m: f"{m[1]}norms.{int(m[2]) - 1}", name)
    return re.sub(r"(transformer_blocks\.\d+\.)attn(\d)\b", lambda m: f"{m[1]}attention_blocks.{int(m[2]) - 1}", name)


def diffusers_motion_name(name: str) -> str:
    """The name that diffusers has for a tensor of a motion module with at most two attentions; others stay."""
    if "motion_modules." not in name:
        return name
    name = name.replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
    name = re.sub(r"\.norms\.(\d)\.", lambda m: f".norm{int(m[1]) + 1}.", name)
    return re.sub(r"\.attention_blocks\.(\d)\.", lambda m: f".attn{int(m[1]) + 1}.", name)
