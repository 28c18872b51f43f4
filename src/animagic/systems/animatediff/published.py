"""The published models: versions, configurations, names of tensors, how a file is recognised, and how it is sampled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ...errors import CheckpointError, InputError
from ...timeline import build_scheduler

VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"motion_max_length": 24, "motion_mid_block": False, "joint_group_norm": True},
    "v2": {"motion_max_length": 32, "motion_mid_block": True, "joint_group_norm": False},
    "v3": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
    "sdxl": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
}
"""Version -> the arguments of AnimateDiffUNet in which it differs."""

# Original names -> ours.
_MODULE_FIELDS = {
    "num_attention_heads": "motion_num_attention_heads",
    "num_transformer_block": "motion_num_transformer_blocks",
    "attention_block_types": "motion_attention_block_types",
    "temporal_position_encoding_max_len": "motion_max_length",
    "temporal_attention_dim_div": "motion_attention_dim_div",
}
FLAGS = {
    "motion_module_resolutions": "motion_resolutions",
    "motion_module_mid_block": "motion_mid_block",
    "motion_module_decoder_only": "motion_decoder_only",
}
# Fields that only one value is known of.
FIXED: dict[str, Any] = {
    "use_motion_module": True,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "cross_frame_attention_mode": None,
}
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
    for fields, given, where in ((_MODULE_FIELDS, module, "motion_module_kwargs"), (FLAGS, flags, "the UNet")):
        for name, value in given.items():
            if name in fields:
                made[fields[name]] = tuple(value) if isinstance(value, list) else value
            elif name == "use_inflated_groupnorm":
                made["joint_group_norm"] = not value
            elif name not in FIXED:
                raise InputError(f"the configuration of {where} has an unknown field {name!r}.")
            elif value != FIXED[name]:
                raise InputError(f"{name} is {value!r}; only {FIXED[name]!r} is supported.")
    if not positions:
        made["motion_max_length"] = 0
    return made


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


def recognise(shapes: Mapping[str, tuple[int, ...]], file: Path) -> str:
    """Which version the tensors of a motion module are: a key of VERSIONS.

    Args:
        shapes: by published names, with the tables of positions if the file has them.
        file: where v1 and v3 differ in nothing else (without those tables), its name decides.
    Raises: CheckpointError if that does not say it either.
    """
    levels = {int(m[1]) for name in shapes if (m := re.match(r"(?:down|up)_blocks\.(\d+)\.motion_modules\.", name))}
    if len(levels) == 3:
        return "sdxl"
    if any(name.startswith("mid_block.motion_modules.") for name in shapes):
        return "v2"
    length = table_length(shapes)
    if length is not None:
        return "v1" if length == VERSIONS["v1"]["motion_max_length"] else "v3"
    named = file.name.lower()
    if "v3" in named:
        return "v3"
    if re.search(r"v1[45](?!.*v2)", named) or "v1" in re.split(r"[^a-z0-9]", named):
        return "v1"
    raise CheckpointError(
        f"{file} is of AnimateDiff v1 or v3, which its tensors do not tell; say which: version 'v1' or 'v3'."
    )


def table_length(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The most frames that a motion module tells apart, by the tables of positions in its file; None without them."""
    return next((s[-2] for n, s in shapes.items() if n.endswith((".pos_encoder.pe", ".pos_embed.pe"))), None)


def published_sampling(version: str | None, file: Path) -> tuple[Any, dict[str, Any]]:
    """The scheduler and the fields of AnimateDiffSampling that a motion module was made for.

    Its tensors do not say it; the file's name tells few-step ones.

    LCM (AnimateLCM): LCM, 6 steps, guidance 2. Lightning: Euler with trailing timesteps, as many steps as it was
    distilled for, no guidance. Others: DDIM, 25 steps, guidance 7.5; SDXL with its own betas.
    Source: the model cards of wangfuyun/AnimateLCM and ByteDance/AnimateDiff-Lightning, the inference configurations of
    guoyww/AnimateDiff.
    """
    name = file.name.lower()
    if "lightning" in name:
        steps = re.search(r"(\d+)[-_]?step", name)
        config = {"num_inference_steps": int(steps[1]) if steps else 4, "guidance_scale": 1.0}
        return build_scheduler("euler", timestep_spacing="trailing"), config
    if "lcm" in name:
        return build_scheduler("lcm"), {"num_inference_steps": 6, "guidance_scale": 2.0}
    if version == "sdxl":
        return build_scheduler("ddim", beta_end=0.02, beta_schedule="scaled_linear"), {}
    return build_scheduler("ddim"), {}
